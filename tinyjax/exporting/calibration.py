"""Integer files of which the score is that of the network: the ranges of their activations.

    inputs = make_inputs(model, function, count=200, batch=1)
    file, record = quantize(file, "int8", inputs)

An int8 tensor has 256 values between the ends of its range. A few large activations make the steps
between them so wide that the others are lost: one or two tensors then cause most of the error of
the outputs. Four steps help, none of which needs labels:

- Channels between layers without an activation get similar ranges (`equalization`).
- What enters hard-swish or SiLU needs no values below which the activation is 0, or almost.
- The ranges of the most harmful tensors are clipped where this reduces the error of the outputs.
- Biases absorb the mean error of each channel (`bias_correction`).
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from tinyjax.data.modality import MODALITIES
from tinyjax.errors import UserError
from tinyjax.exporting import flatbuffer, litert, padding, runtimes
from tinyjax.exporting.bias_correction import correct_biases
from tinyjax.exporting.equalization import equalize
from tinyjax.exporting.functions import ExportedFunction
from tinyjax.exporting.litert import Range
from tinyjax.exporting.runtimes import SIGNATURE
from tinyjax.inference.model import Model
from tinyjax.run.text import text_table
from tinyjax.tasks import get_task

Inputs = Sequence[np.ndarray]  # batches float32 [B, H, W, C] that the file reads
Outputs = list[dict[str, np.ndarray]]  # of each batch, by name

# operator -> the input below which its result is 0, or almost: hard-swish(-3) = 0, and
# silu(-8) = -0.003
FLOORS = {"HARD_SWISH": -3.0, "LOGISTIC": -8.0}
# operators whose output has the range of their input
SHARED = ("PAD", "PADV2", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "TRANSPOSE")
CLIPS = (0.75, 0.5, 0.35, 0.25)  # fractions of the largest absolute value that are tried
ERROR_IMAGES = 8  # batches on which errors of files are compared
SCREENING_IMAGES = 2  # batches on which the errors of single tensors are compared
MAX_RECORDED = 16  # tensors, the most harmful ones
MIN_GAIN = 0.1  # fraction of the error of the outputs
MAX_CLIPPED = 5  # tensors, the most harmful ones
CORRECTION_IMAGES = 40  # batches on which means are compared


class TensorError(NamedTuple):
    """The error of the outputs when a single tensor has integers."""

    tensor: str
    range: Range
    error: float  # see `output_error`


def make_inputs(
    model: Model, function: ExportedFunction, count: int, batch: int, name: str = ""
) -> Inputs:
    """What a file reads of `count` training images: the images, or the features of their RoIs.

    batch: images per call. name: see `functions.make_function`. Raises UserError as
    `training_images` does.
    """
    images = training_images(model, count, batch, name if name in MODALITIES else "")
    if function.make_input is None:
        return images
    return [np.asarray(function.make_input(jnp.asarray(pixels))) for pixels in images]


def training_images(model: Model, count: int, batch: int, modality: str = "") -> Inputs:
    """Batches of about `count` training images, spread evenly over the training set: its first ones
    may be one video. The last one is repeated to fill a batch.

    Raises UserError if the training set is not on this machine.
    """
    config = model.config
    try:
        split: Any = get_task(config.task).load(config.data, config.data.train)
    except OSError as error:
        raise UserError(f"data.train: {error}; int8 and int16 need training images") from error
    rows = np.arange(len(split.names))
    if modality:
        rows = rows[np.asarray(split.inputs["modality"]) == MODALITIES[modality]]
    count = min(count, len(rows))
    rows = rows[np.linspace(0, len(rows) - 1, count).round().astype(int)]
    rows = np.append(rows, np.repeat(rows[-1:], -count % batch))
    images = np.asarray(split.inputs["image"][rows]).astype(np.float32)
    if images.shape[1:] != model.input_shape:
        raise UserError(
            f"data.train: images of {images.shape[1:]}, but the network reads {model.input_shape}"
        )
    return [images[i : i + batch] for i in range(0, len(images), batch)]


def quantize(file: bytes, scheme: str, inputs: Inputs) -> tuple[bytes, dict[str, Any]]:
    """An integer file, and fields of its record, as JSON types.

    file: in float32, of a function that reads float32. scheme: int8 or int16.
    """
    file = equalize(file, spread(inputs, CORRECTION_IMAGES))
    ranges = measure(file, inputs)
    record: dict[str, Any] = {"scheme": scheme, "calibration": sum(map(len, inputs))}
    if scheme == "int8":
        ranges, errors = reduce_error(file, raise_floors(file, ranges), inputs)
        record["tensors"] = [
            {"tensor": name, "range": list(span), "error": error, "clipped": list(ranges[name])}
            for name, span, error in errors[:MAX_RECORDED]
        ]
    integers = litert.quantize(file, scheme, ranges)
    integers = correct_biases(integers, file, spread(inputs, CORRECTION_IMAGES))
    return integers, {"quantization": record}


def reduce_error(
    file: bytes, ranges: Mapping[str, Range], inputs: Inputs
) -> tuple[dict[str, Range], list[TensorError]]:
    """Clipped ranges of an int8 file, and the errors of tensors before, in descending order."""
    errors = tensor_errors(file, ranges, spread(inputs, SCREENING_IMAGES))
    few = spread(inputs, ERROR_IMAGES)
    return clip(file, ranges, errors, few, partial(litert.quantize, file, "int8")), errors


def spread(inputs: Inputs, count: int) -> Inputs:
    """At most `count` batches, at equal distances."""
    return inputs[:: -(-len(inputs) // count)]


def table(record: Mapping[str, Any]) -> str:
    """The tensors that cause most of the error of a file's outputs, as text."""
    rows = [
        {
            "tensor": row["tensor"],
            "range": f"{row['range'][0]:.3g} to {row['range'][1]:.3g}",
            "error": f"{row['error']:.4f}",
            "clipped": ""
            if row["clipped"] == row["range"]
            else f"{row['clipped'][0]:.3g} to {row['clipped'][1]:.3g}",
        }
        for row in record["quantization"]["tensors"]
    ]
    return "error of the outputs if only this tensor has integers\n" + text_table(
        rows, ("tensor", "range", "error", "clipped")
    )


def measure(file: bytes, inputs: Inputs) -> dict[str, Range]:
    """Ranges of the input and of all activations of a float32 file, by tensor. The padding of max
    pooling is no value (`padding`).
    """
    interpreter = runtimes.make_interpreter(file, keep_tensors=True)
    run = interpreter.get_signature_runner(SIGNATURE)
    graph = flatbuffer.read(file).subgraphs[0]
    tensors = [*graph.inputs, *(i for op in graph.operators for i in op.outputs)]
    activations = [(i, graph.tensors[i].name.decode()) for i in tensors]
    (_, input_name), *_ = activations
    # From 0, which an integer tensor needs for padding.
    lows, highs = (dict.fromkeys(names, 0.0) for names in [dict(activations).values()] * 2)
    for batch in inputs:
        run(**{input_name: batch})
        for index, name in activations:
            values = interpreter.get_tensor(index)
            low = values.min(initial=0, where=values > padding.LEAST)
            lows[name] = min(lows[name], float(low))
            highs[name] = max(highs[name], float(values.max()))
    return {name: (lows[name], highs[name]) for name in lows}


def raise_floors(file: bytes, ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Ranges that start at FLOORS, for tensors that only hard-swish or SiLU reads."""
    model = flatbuffer.read(file)
    graph, names = model.subgraphs[0], flatbuffer.operator_names(model)
    readers = defaultdict(list)  # tensor -> names and operators
    for op, name in zip(graph.operators, names, strict=True):
        for index in op.inputs:
            readers[index].append((name, op))
    result = dict(ranges)
    for index, tensor in enumerate(graph.tensors):
        floors = [FLOORS[name] for name, _ in readers[index] if name in FLOORS]
        if not floors or index in graph.outputs:
            continue
        # The other reader of what enters SiLU multiplies it with the sigmoid.
        sigmoids = {op.outputs[0] for name, op in readers[index] if name == "LOGISTIC"}
        others = [op for name, op in readers[index] if name not in FLOORS]
        if all(sigmoids & {*op.inputs} for op in others):
            low, high = ranges[tensor.name.decode()]
            result[tensor.name.decode()] = max(low, min(floors)), max(high, 0.0)
    return result


def run_file(file: bytes, inputs: Inputs) -> Outputs:
    """The outputs of a file, float32, or dequantized."""
    run = runtimes.load_litert(file)
    return [run(batch) for batch in inputs]


def output_error(expected: Outputs, actual: Outputs) -> float:
    """The greatest, over outputs, of root mean square difference / standard deviation.

    The mean over the cells of a detector is weighted by their highest score: most cells are
    background, and whether its logit is -9 or -7 hardly matters.
    """

    def relative(name: str) -> float:
        x, y = (np.stack([outputs[name] for outputs in each]) for each in (expected, actual))
        weights = np.ones_like(x)
        logits = f"logits_{name.rpartition('_')[2]}"  # of the same stride
        if logits in expected[0]:
            scores = 1 / (1 + np.exp(-np.stack([outputs[logits] for outputs in expected])))
            weights = weights * scores.max(-1, keepdims=True)
        return float(np.sqrt(np.average(np.square(x - y), weights=weights)) / max(x.std(), 1e-12))

    return max(map(relative, expected[0]))


def tensor_errors(file: bytes, ranges: Mapping[str, Range], inputs: Inputs) -> list[TensorError]:
    """The errors of all activations, each alone, in descending order."""
    model = flatbuffer.read(file)
    graph, names = model.subgraphs[0], flatbuffer.operator_names(model)
    is_float = flatbuffer.import_schema().TensorType.FLOAT32
    expected, errors = run_file(file, inputs), []
    for number, (op, name) in enumerate(zip(graph.operators, names, strict=True)):
        output = graph.tensors[op.outputs[0]]
        if name not in SHARED and output.type == is_float:
            tensor = output.name.decode()
            actual = run_file(with_integers(model, number, ranges[tensor]), inputs)
            errors.append(TensorError(tensor, ranges[tensor], output_error(expected, actual)))
    return sorted(errors, key=lambda row: -row.error)


def with_integers(model: Any, number: int, span: Range) -> bytes:
    """The file of a `ModelT` in which the first output of one operator goes through int8, as in an
    int8 file.
    """
    model = flatbuffer.copy_model(model)
    graph = model.subgraphs[0]
    index = graph.operators[number].outputs[0]
    shape = graph.tensors[index].shape
    low, high = min(span[0], 0.0), max(span[1], 1e-9)
    scale = (high - low) / 255
    zero_point = int(np.clip(np.round(-128 - low / scale), -128, 127))
    integers = flatbuffer.add_tensor(
        model, "integers", shape, "INT8", scale=scale, zero_point=zero_point
    )
    restored = flatbuffer.add_tensor(model, "restored", shape, "FLOAT32")
    for op in graph.operators:
        op.inputs = [restored if i == index else i for i in op.inputs]
    graph.outputs = [restored if i == index else i for i in graph.outputs]
    for output in model.signatureDefs[0].outputs:
        if output.tensorIndex == index:
            output.tensorIndex = restored
    quantize = flatbuffer.add_operator_code(model, "QUANTIZE")
    dequantize = flatbuffer.add_operator_code(model, "DEQUANTIZE", 2)
    graph.operators[number + 1 : number + 1] = [
        flatbuffer.make_operator(quantize, [index], integers),
        flatbuffer.make_operator(dequantize, [integers], restored),
    ]
    return flatbuffer.pack(model)


def activation_pairs(model: Any) -> dict[str, tuple[str, str]]:
    """Tensor of a `ModelT` -> input and output of the hard-swish or SiLU that it belongs to, which
    large values pass unchanged.
    """
    graph = model.subgraphs[0]
    pairs: dict[str, tuple[str, str]] = {}
    sigmoids = {}  # LOGISTIC(x) -> x
    for op, name in zip(graph.operators, flatbuffer.operator_names(model), strict=True):
        if name == "LOGISTIC":
            sigmoids[op.outputs[0]] = op.inputs[0]
        is_silu = name == "MUL" and any({i, sigmoids.get(i)} == {*op.inputs} for i in op.inputs)
        if name == "HARD_SWISH" or is_silu:
            source = next(i for i in op.inputs if i not in sigmoids)
            pair = tuple(graph.tensors[i].name.decode() for i in (source, op.outputs[0]))
            pairs |= dict.fromkeys(pair, pair)
    return pairs


def clip(
    file: bytes,
    ranges: Mapping[str, Range],
    errors: Sequence[TensorError],
    inputs: Inputs,
    quantize: Callable[[Mapping[str, Range]], bytes],
) -> dict[str, Range]:
    """Ranges of which the most harmful are clipped, and clipped further, where this reduces the
    error of the outputs by MIN_GAIN: a clip costs large values on other images.

    One tensor after the other, in the order of `errors`, together with the input or output of its
    activation; each is compared in the integer file of the ranges chosen so far, the result of
    `quantize(ranges)`.
    """
    expected, chosen = run_file(file, inputs), dict(ranges)
    pairs = activation_pairs(flatbuffer.read(file))

    def error_of(candidate: Mapping[str, Range]) -> float:
        return output_error(expected, run_file(quantize(candidate), inputs))

    def clipped(names: Sequence[str], limit: float) -> dict[str, Range]:
        spans = ((name, *chosen[name]) for name in names)
        return chosen | {name: (max(low, -limit), min(high, limit)) for name, low, high in spans}

    least = error_of(chosen)
    for names in dict.fromkeys(pairs.get(e.tensor, (e.tensor,)) for e in errors[:MAX_CLIPPED]):
        largest = max(abs(end) for name in names for end in chosen[name])
        for fraction in CLIPS:
            candidate = clipped(names, fraction * largest)
            if (error := error_of(candidate)) <= (1 - MIN_GAIN) * least:
                least, chosen = error, candidate
    return chosen
