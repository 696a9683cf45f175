"""Biases of integer files: the mean of each channel becomes that of the float32 file.

    file = correct_biases(integers, file, inputs)

Rounding shifts the mean of a channel, and the shift passes on to all layers that follow. After a
few layers it costs a detector more than the noise of rounding does. The bias of each convolution
and linear layer, in order of computation, absorbs the difference of the means over some images
(empirical bias correction: Nagel et al., arXiv 1906.04721, appendix D).
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyjax.exporting import flatbuffer, runtimes

Values = dict[int, np.ndarray]  # tensor -> its values for one batch
Reduction = Callable[..., np.ndarray]  # (array, axis=..)


def correct_biases(integers: bytes, file: bytes, inputs: Sequence[np.ndarray]) -> bytes:
    """An integer file with other biases. file: the float32 file that it was made from.

    inputs: batches float32 that `file` reads.
    """
    expected = channel_means(file, inputs)
    model = flatbuffer.read(integers)
    (source,) = model.subgraphs[0].inputs
    details = runtimes.make_interpreter(integers).get_input_details()[0]
    batches = [{source: runtimes.quantize(batch, details)} for batch in inputs]
    last_reader = _last_readers(model)
    for number, op in enumerate(model.subgraphs[0].operators):
        tensor = model.subgraphs[0].tensors[op.outputs[0]]
        results = _run(model, number, batches)
        if (name := tensor.name.decode()) in expected:
            outputs = [_dequantize(values, tensor) for (values,) in results]
            means = [_over_positions(values, np.mean) for values in outputs]
            _add_to_bias(model, op, expected[name] - np.mean(means, axis=0))
            results = _run(model, number, batches)
        for batch, values in zip(batches, results, strict=True):
            batch |= dict(zip(op.outputs, values, strict=True))
            for index in [index for index in batch if last_reader[index] <= number]:
                del batch[index]
    return flatbuffer.pack(model)


def channel_means(file: bytes, inputs: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The mean of each channel of all convolutions and linear layers that have a bias, of a float32
    file: name of the output -> [C].
    """
    model = flatbuffer.read(file)
    graph = model.subgraphs[0]
    outputs = [graph.operators[number].outputs[0] for number in flatbuffer.find_layers(model)]
    names = (graph.tensors[index].name.decode() for index in outputs)
    return dict(zip(names, channel_values(file, outputs, inputs, np.mean), strict=True))


def channel_values(
    file: bytes, tensors: Sequence[int], inputs: Sequence[np.ndarray], reduce: Reduction
) -> list[np.ndarray]:
    """A number for each channel of the tensors of a float32 file over all inputs: [C] of each.

    reduce: such as `np.mean`, over the positions of a batch, and then over batches.
    """
    interpreter = runtimes.make_interpreter(file, keep_tensors=True)
    run, rows = interpreter.get_signature_runner(runtimes.SIGNATURE), []
    name = flatbuffer.input_name(flatbuffer.read(file))
    for batch in inputs:
        run(**{name: batch})
        rows.append([_over_positions(interpreter.get_tensor(i), reduce) for i in tensors])
    return [reduce(np.stack(column), axis=0) for column in zip(*rows, strict=True)]


def _over_positions(values: np.ndarray, reduce: Reduction) -> np.ndarray:
    """[.., C] -> [C]."""
    return reduce(values.reshape(-1, values.shape[-1]), axis=0)


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
