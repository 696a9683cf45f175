"""What tiles cost: logical and padded bytes of the arrays that a compiled TPU program moves.

A TPU stores arrays in tiles, mostly of 8 x 128 elements: the minor axis of an array is padded to
128, the next one to 8. Layouts and tiles are part of the compiled program's text.
"""

import math
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

DTYPE_BYTES = {
    "pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2,
    "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8,
}  # fmt: skip
# bf16[8,16,40,40]{1,3,2,0:T(8,128)(2,1)S(1)}: type, shape, axes from the minor one, tiles, memory
ARRAY = re.compile(
    rf"\b({'|'.join(DTYPE_BYTES)})\[([\d,]*)\](?:{{([\d,]*)(?::(?:T\(([\d,]+)\))?([^}}]*))?}})?"
)
INSTRUCTION = re.compile(
    r"\s*(?:ROOT )?%(?P<name>[\w.-]+) = (?P<type>.*?) (?P<op>[\w-]+)\((?P<rest>.*)"
)
COMPUTATION = re.compile(r"(ENTRY )?%([\w.-]+) \(.*\{$")
SOURCE = re.compile(r'op_name="([^"]*)"')
SCOPE = re.compile(r"\(|^cond$|^branch_\d+_fun$")  # in a source, what is no name of a layer
MAX_NAMES = 4  # of a source that is printed
CHIP_MEMORY = "S(1)"  # arrays there are not moved to or from the device's memory
# These move nothing, or only what another instruction is counted for.
FREE = {
    "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "while",
    "conditional", "copy-done", "async-done", "slice-done", "dynamic-slice-done",
}  # fmt: skip
LARGE = 0.1  # fraction of the largest array, from which on an array is as large as an activation


class Array(NamedTuple):
    """An array in the device's memory."""

    dtype: str  # as XLA names it
    shape: tuple[int, ...]
    logical: int  # bytes
    padded: int  # bytes


class Operation(NamedTuple):
    """An instruction with the arrays that it reads and writes."""

    name: str  # fusion, copy, convolution, ..
    outputs: tuple[Array, ...]
    inputs: tuple[Array, ...]
    source: str  # the operation of JAX that it was compiled from

    @property
    def logical(self) -> int:
        return sum(array.logical for array in (*self.outputs, *self.inputs))

    @property
    def padded(self) -> int:
        return sum(array.padded for array in (*self.outputs, *self.inputs))


def read_operations(hlo: str) -> list[Operation]:
    """The operations of a compiled program, those in loops once, as the compiler counts them.

    Arrays that stay in the chip's memory are left out. An operation that reads a slice of an array
    is counted with the whole array, one that writes a slice in place with the slice.
    """
    computations = _split_computations(hlo)
    entry = next((name for name, (is_entry, _) in computations.items() if is_entry), None)
    return [] if entry is None else [*_operations(computations, entry)]


def logical_and_padded(operations: Sequence[Operation]) -> tuple[int, int]:
    """Logical and padded bytes of all operations."""
    return sum(op.logical for op in operations), sum(op.padded for op in operations)


def most_wasteful(operations: Sequence[Operation], count: int = 5) -> list[Operation]:
    """The operations with the most bytes of padding, in descending order."""
    return sorted(operations, key=lambda op: op.logical - op.padded)[:count]


def large_float32_arrays(operations: Sequence[Operation]) -> list[tuple[Array, Operation]]:
    """The float32 arrays that a program in bfloat16 writes and that are as large as activations."""
    written = [(array, op) for op in operations for array in op.outputs]
    largest = max((array.logical for array, _ in written if array.dtype == "bf16"), default=0)
    return [
        (array, op)
        for array, op in written
        if largest and array.dtype == "f32" and array.logical >= LARGE * largest
    ]


def describe(operations: Sequence[Operation]) -> list[str]:
    """What tiles cost, as lines of text: bytes, the operations with the most padding, and float32
    arrays of a program in bfloat16.
    """
    logical, padded = logical_and_padded(operations)
    lines = [
        f"{padded / 1e9:.2f} GB of arrays in tiles, {padded / max(logical, 1):.2f} times their "
        "values; most padding:"
    ]
    lines += [f"  {describe_padding(operation)}" for operation in most_wasteful(operations)]
    if arrays := large_float32_arrays(operations):
        array, op = max(arrays, key=lambda pair: pair[0].logical)
        shape = "x".join(map(str, array.shape))
        lines.append(
            f"{len(arrays)} float32 arrays as large as activations, the largest {shape}: "
            f"{_describe(op)}"
        )
    return lines


def describe_padding(operation: Operation) -> str:
    """Such as "28.2 of 31.5 MB: backbone/stem/conv_general_dilated (fusion)"."""
    padding = operation.padded - operation.logical
    return f"{padding / 1e6:.1f} of {operation.padded / 1e6:.1f} MB: {_describe(operation)}"


def _describe(operation: Operation) -> str:
    """Such as "stage2/block0/expand/conv_general_dilated (fusion, backward)"."""
    names = [name for name in operation.source.split("/") if not SCOPE.search(name)]
    layer = "/".join(names[-MAX_NAMES:])
    backward = ", backward" if "transpose(" in operation.source else ""
    return f"{layer or 'unknown'} ({operation.name}{backward})"


def _split_computations(hlo: str) -> dict[str, tuple[bool, list[str]]]:
    """Name -> (whether it is the program itself, lines)."""
    computations: dict[str, tuple[bool, list[str]]] = {}
    lines: list[str] = []
    for line in hlo.splitlines():
        if match := COMPUTATION.match(line):
            lines = []
            computations[match[2]] = bool(match[1]), lines
        else:
            lines.append(line)
    return computations


def _operations(computations: dict[str, tuple[bool, list[str]]], name: str) -> Iterator[Operation]:
    arrays: dict[str, tuple[Array, ...]] = {}
    for line in computations[name][1]:
        if not (match := INSTRUCTION.match(line)):
            continue
        arrays[match["name"]] = outputs = tuple(_arrays(match["type"]))
        for body in re.findall(r"(?:body|true_computation|false_computation)=%([\w.-]+)", line):
            yield from _operations(computations, body)
        if match["op"] in FREE:
            continue
        operands = re.findall(r"%([\w.-]+)", match["rest"].partition(")")[0])
        if match["op"] == "dynamic-update-slice":  # in place: only the slice is moved
            operands = operands[1:2]
            outputs = arrays.get(operands[0], ())
        inputs = tuple(array for operand in operands for array in arrays.get(operand, ()))
        source = SOURCE.search(line)
        yield Operation(match["op"], outputs, inputs, source[1] if source else "")


def _arrays(type: str) -> Iterator[Array]:
    for dtype, dims, order, tile, rest in ARRAY.findall(type):
        if CHIP_MEMORY in rest:
            continue
        shape = tuple(map(int, dims.split(","))) if dims else ()
        physical = [shape[int(axis)] for axis in reversed(order.split(","))] if order else [*shape]
        for axis, size in enumerate(reversed(tile.split(",") if tile else ()), start=1):
            if axis <= len(physical):
                physical[-axis] += -physical[-axis] % int(size)
        width = DTYPE_BYTES[dtype]
        yield Array(dtype, shape, math.prod(shape) * width, math.prod(physical) * width)
