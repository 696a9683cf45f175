"""Clipped ranges of the int8 tensors that cause most of the error of a file's outputs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyjax.exporting import flatbuffer
from tinyjax.exporting.activations import Inputs, Range
from tinyjax.exporting.output_error import output_error, run_file

# operators whose output has the range of their input
SHARED = ("PAD", "PADV2", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR", "SLICE", "TRANSPOSE")
CLIPS = (0.75, 0.5, 0.35, 0.25)  # fractions of the largest absolute value that are tried
MIN_GAIN = 0.1  # fraction of the error of the outputs
MAX_CLIPPED = 5  # tensors, the most harmful ones


class TensorError(NamedTuple):
    """The error of the outputs when a single tensor has integers."""

    tensor: str
    range: Range
    error: float  # see `output_error`


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
