"""What a LiteRT file needs on a device: memory of activations, bytes of weights, multiply-adds."""

import math
from typing import Any

from tinyjax.exporting import flatbuffer
from tinyjax.exporting.arena import Buffer, place

ITEM_SIZES = {"FLOAT32": 4, "INT32": 4, "INT64": 8, "INT16": 2, "FLOAT16": 2}  # else 1


def estimate(file: bytes) -> dict[str, int]:
    """Estimates of one call, as JSON types:

    - arena_bytes: the memory of activations, see `arena.place`.
    - weight_bytes: of constants.
    - multiply_adds: of convolutions and products of matrices.
    """
    model = flatbuffer.read(file)
    graph = model.subgraphs[0]
    used = {i for op in graph.operators for i in op.inputs} - {-1}
    buffers = {graph.tensors[i].buffer for i in used}
    weights = sum(len(model.buffers[b].data) for b in buffers if model.buffers[b].data is not None)
    return {
        "arena_bytes": place(lifetimes(model)),
        "weight_bytes": weights,
        "multiply_adds": count_multiply_adds(model),
    }


def lifetimes(model: Any) -> list[Buffer]:
    """The activations of a `ModelT`, input and outputs included."""
    graph = model.subgraphs[0]
    first = dict.fromkeys(graph.inputs, 0)
    last: dict[int, int] = {}
    for number, op in enumerate(graph.operators):
        for index in op.outputs:
            first.setdefault(index, number)
        for index in [*op.inputs, *op.outputs]:
            last[index] = number
    last |= dict.fromkeys(graph.outputs, len(graph.operators) - 1)
    return [Buffer(_bytes(graph.tensors[i]), start, last[i]) for i, start in first.items()]


def count_multiply_adds(model: Any) -> int:
    """The multiply-adds of convolutions and products of matrices of a `ModelT`."""
    graph, total = model.subgraphs[0], 0
    for op, name in zip(graph.operators, flatbuffer.operator_names(model), strict=True):
        tensors = graph.tensors
        if name in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"):
            # Kernels are [out, h, w, in], [1, h, w, out] and [out, in].
            kernel = [*tensors[op.inputs[1]].shape]
            del kernel[-1 if name == "DEPTHWISE_CONV_2D" else 0]
            total += math.prod(tensors[op.outputs[0]].shape) * math.prod(kernel)
        elif name == "BATCH_MATMUL":
            terms = tensors[op.inputs[0]].shape[-2 if op.builtinOptions.adjX else -1]
            total += math.prod(tensors[op.outputs[0]].shape) * terms
    return total


def _bytes(tensor: Any) -> int:
    types = vars(flatbuffer.import_schema().TensorType)
    (name,) = (name for name, value in types.items() if value == tensor.type and name[0] != "_")
    return math.prod(tensor.shape) * ITEM_SIZES.get(name, 1)
