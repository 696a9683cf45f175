"""The arena: the memory in which a microcontroller keeps activations.

The planner is that of TensorFlow Lite Micro (GreedyMemoryPlanner). Kernels need scratch memory
besides, which is not counted.
"""

import math
from typing import Any, NamedTuple

ALIGNMENT = 16  # bytes, of buffers in the arena
# Operations whose output is their input in another shape, without a copy.
VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")


class Buffer(NamedTuple):
    """A tensor in the arena: it is written by node `first` and last read by node `last`."""

    size: int  # bytes
    first: int
    last: int


def place(buffers: list[Buffer]) -> int:
    """The size of an arena in which buffers that are alive at the same time do not overlap.

    The largest buffer is placed first, each at the lowest free offset.
    """
    placed: list[tuple[int, int, Buffer]] = []  # start, end; in order of the start
    for buffer in sorted(buffers, key=lambda b: (-b.size, b.first)):
        offset = 0
        for start, end, other in placed:
            if other.first > buffer.last or other.last < buffer.first:
                continue
            if offset + buffer.size <= start:
                break
            offset = max(offset, end)
        end = offset + -(-buffer.size // ALIGNMENT) * ALIGNMENT
        placed.append((offset, end, buffer))
        placed.sort(key=lambda row: row[:2])
    return max((end for _, end, _ in placed), default=0)


def arena_bytes(model: Any) -> int:
    """The size of the arena of an ONNX file's network with int8 activations, a byte for each value.

    model: an `onnx.ModelProto` with a fixed batch.
    """
    from onnx import shape_inference

    graph = shape_inference.infer_shapes(model).graph
    tensors = [*graph.input, *graph.value_info, *graph.output]
    sizes = {x.name: _num_values(x) for x in tensors}
    source: dict[str, str] = {}  # a view -> the tensor that it shows
    first: dict[str, int] = {x.name: -1 for x in graph.input}
    last = dict(first)
    for number, node in enumerate(graph.node):
        for name in node.input:
            if (name := source.get(name, name)) in first:
                last[name] = number
        for name in node.output:
            viewed = source.get(node.input[0], node.input[0]) if node.op_type in VIEWS else name
            if viewed in first:
                source[name] = viewed
            else:
                first[name] = last[name] = number
    for x in graph.output:
        last[source.get(x.name, x.name)] = len(graph.node)
    return place([Buffer(sizes[name], first[name], last[name]) for name in first if sizes[name]])


def _num_values(tensor: Any) -> int:
    return math.prod(dimension.dim_value for dimension in tensor.type.tensor_type.shape.dim)
