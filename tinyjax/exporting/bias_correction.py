"""Biases of integer files: the mean of each channel becomes that of the float32 file.

    file = correct_biases(integers, file, inputs)

Rounding shifts the mean of a channel, and the shift passes on to all layers that follow. After a
few layers it costs a detector more than the noise of rounding does. The bias of each convolution
and linear layer, in order of computation, absorbs the difference of the means over some images
(empirical bias correction: Nagel et al., arXiv 1906.04721, appendix D). Values of the float32 file
are clipped to the range of the integers: a bias that made up for the large values that a clipped
range loses would shift all others.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyjax.exporting import flatbuffer, runtimes
from tinyjax.exporting.activations import Inputs, Range, channel_values, over_positions

Values = dict[int, np.ndarray]  # tensor -> its values for one batch


def correct_biases(integers: bytes, file: bytes, inputs: Inputs) -> bytes:
    """An integer file with other biases. file: the float32 file that it was made from, which reads
    `inputs`.
    """
    model = flatbuffer.read(integers)
    expected = channel_means(file, inputs, integer_ranges(model))
    (source,) = model.subgraphs[0].inputs
    details = runtimes.make_interpreter(integers).get_input_details()[0]
    batches = [{source: runtimes.quantize(batch, details)} for batch in inputs]
    last_reader = _last_readers(model)
    for number, op in enumerate(model.subgraphs[0].operators):
        tensor = model.subgraphs[0].tensors[op.outputs[0]]
        results = _run(model, number, batches)
        if (name := tensor.name.decode()) in expected:
            outputs = [_dequantize(values, tensor) for (values,) in results]
            means = [over_positions(values, np.mean) for values in outputs]
            _add_to_bias(model, op, expected[name] - np.mean(means, axis=0))
            results = _run(model, number, batches)
        for batch, values in zip(batches, results, strict=True):
            batch |= dict(zip(op.outputs, values, strict=True))
            for index in [index for index in batch if last_reader[index] <= number]:
                del batch[index]
    return flatbuffer.pack(model)


def channel_means(
    file: bytes, inputs: Inputs, ranges: Mapping[str, Range]
) -> dict[str, np.ndarray]:
    """The mean of each channel of all convolutions and linear layers that have a bias, of a float32
    file: name of the output -> [C]. ranges: values are clipped to these, by tensor.
    """
    model = flatbuffer.read(file)
    graph = model.subgraphs[0]
    outputs = [graph.operators[number].outputs[0] for number in flatbuffer.find_layers(model)]
    names = [graph.tensors[index].name.decode() for index in outputs]
    spans = [ranges.get(name, (-np.inf, np.inf)) for name in names]
    means = channel_values(file, outputs, inputs, np.mean, spans)
    return dict(zip(names, means, strict=True))


def integer_ranges(model: Any) -> dict[str, Range]:
    """The values that the integer activations of a `ModelT` can have, by tensor."""
    limits = {"INT8": (-128, 127), "INT16": (-32768, 32767)}
    types = flatbuffer.import_schema().TensorType
    limits_of = {getattr(types, name): pair for name, pair in limits.items()}
    graph, ranges = model.subgraphs[0], {}
    for tensor in (graph.tensors[index] for op in graph.operators for index in op.outputs):
        if tensor.type in limits_of:
            (scale,), (zero,) = tensor.quantization.scale, tensor.quantization.zeroPoint
            low, high = limits_of[tensor.type]
            ranges[tensor.name.decode()] = (low - zero) * scale, (high - zero) * scale
    return ranges


def _last_readers(model: Any) -> dict[int, int]:
    """Tensor -> the number of the last operator that reads it; -1 if there is none."""
    operators = model.subgraphs[0].operators
    result = {index: -1 for op in operators for index in [*op.inputs, *op.outputs]}
    return result | {index: number for number, op in enumerate(operators) for index in op.inputs}


def _run(model: Any, number: int, batches: Sequence[Values]) -> list[list[np.ndarray]]:
    """The outputs of one operator for each batch."""
    file, inputs = flatbuffer.single_operator(model, number)
    interpreter = runtimes.make_interpreter(file)
    interpreter.allocate_tensors()
    slots = [details["index"] for details in interpreter.get_input_details()]
    outputs = [details["index"] for details in interpreter.get_output_details()]
    results = []
    for values in batches:
        for slot, index in zip(slots, inputs, strict=True):
            interpreter.set_tensor(slot, values[index])
        interpreter.invoke()
        results.append([interpreter.get_tensor(index) for index in outputs])
    return results


def _dequantize(values: np.ndarray, tensor: Any) -> np.ndarray:
    if values.dtype == np.float32:
        return values
    (scale,), (zero,) = tensor.quantization.scale, tensor.quantization.zeroPoint
    return runtimes.dequantize(values, {"quantization": (scale, zero)})


def _add_to_bias(model: Any, op: Any, delta: np.ndarray) -> None:
    """Add [C] to the bias of an operator, in place."""
    bias = model.subgraphs[0].tensors[op.inputs[2]]
    buffer = model.buffers[bias.buffer]
    is_int64 = bias.type == flatbuffer.import_schema().TensorType.INT64
    integers = np.frombuffer(bytes(buffer.data), np.int64 if is_int64 else np.int32)
    changed = integers + np.round(delta / np.asarray(bias.quantization.scale)).astype(np.int64)
    limits = np.iinfo(np.int64 if is_int64 else np.int32)
    buffer.data = changed.clip(limits.min, limits.max).astype(integers.dtype).view(np.uint8)
