"""The memory that activations need on a microcontroller."""

import math
from typing import Any, NamedTuple

# Operations whose output is their input in another shape, without a copy.
VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity")


class Buffer(NamedTuple):
    """A tensor in the arena: it is written by node `first` and last read by node `last`."""

    size: int  # bytes
    first: int
    last: int


def arena_bytes(model: Any) -> int:
    """The size of the arena of a network with int8 activations, a byte for each value.

    The buffers are placed as TensorFlow Lite Micro does, see `place`. The temporary memory of its
    kernels is not included.

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


def place(buffers: list[Buffer]) -> int:
    """The size of an arena in which buffers that are alive at the same time do not overlap.

    The largest buffer is placed first, each at the lowest free offset, which is the rule of
    GreedyMemoryPlanner in TensorFlow Lite Micro.
    """
    placed: list[tuple[int, Buffer]] = []  # by offset
    for buffer in sorted(buffers, key=lambda b: (-b.size, b.first)):
        offset = 0
        for start, other in placed:
            if other.first > buffer.last or other.last < buffer.first:
                continue
            if start - offset >= buffer.size:
                break
            offset = max(offset, start + other.size)
        placed.append((offset, buffer))
        placed.sort(key=lambda item: item[0])
    return max((start + buffer.size for start, buffer in placed), default=0)


def _num_values(tensor: Any) -> int:
    return math.prod(dimension.dim_value for dimension in tensor.type.tensor_type.shape.dim)
