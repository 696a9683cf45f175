"""Upsampling in LiteRT files: a broadcast of six dimensions as RESIZE_NEAREST_NEIGHBOR.

TensorFlow Lite Micro broadcasts tensors of at most five dimensions, and accelerators none.
"""

from typing import Any

import numpy as np

from tinyjax.exporting.flatbuffer import (
    add_operator_code,
    add_tensor,
    import_schema,
    operator_names,
)


def resize_for_broadcast(model: Any) -> None:
    """Write RESHAPE, BROADCAST_TO and RESHAPE of a `ModelT`, [n, h, w, c] -> [n, h, 1, w, 1, c] ->
    [n, h, a, w, b, c] -> [n, h a, w b, c], as one operator, in place.
    """
    graph = model.subgraphs[0]
    names = operator_names(model)
    producers = {op.outputs[0]: i for i, op in enumerate(graph.operators)}
    readers = [index for op in graph.operators for index in op.inputs] + [*graph.outputs]
    code = None
    removed = set()
    for last, name in enumerate(names):
        if name != "RESHAPE":
            continue
        middle = producers.get(graph.operators[last].inputs[0], -1)
        if middle < 0 or names[middle] != "BROADCAST_TO":
            continue
        first = producers.get(graph.operators[middle].inputs[0], -1)
        if first < 0 or names[first] != "RESHAPE":
            continue
        chain = [graph.operators[i] for i in (first, middle, last)]
        source, *shapes = (graph.tensors[i].shape for i in _tensors(chain))
        if any(readers.count(op.outputs[0]) > 1 for op in chain[:2]) or not _is_upsampling(
            [*source], *map(list, shapes)
        ):
            continue
        if code is None:
            code = add_operator_code(model, "RESIZE_NEAREST_NEIGHBOR", 2)
        sizes = np.array(graph.tensors[chain[2].outputs[0]].shape[1:3], np.int32)
        size = add_tensor(model, f"size_{last}", (2,), "INT32", data=sizes)
        graph.operators[last] = _resize(code, chain[0].inputs[0], size, chain[2].outputs[0])
        removed |= {first, middle}
    graph.operators = [op for i, op in enumerate(graph.operators) if i not in removed]


def _tensors(chain: list[Any]) -> list[int]:
    return [chain[0].inputs[0], *(op.outputs[0] for op in chain)]


def _is_upsampling(source: list[int], flat: list[int], wide: list[int], result: list[int]) -> bool:
    if len(source) != 4 or len(wide) != 6:
        return False
    n, h, w, c = source
    _, _, a, _, b, _ = wide
    return (
        flat == [n, h, 1, w, 1, c] and wide == [n, h, a, w, b, c] and result == [n, h * a, w * b, c]
    )


def _resize(code: int, source: int, size: int, output: int) -> Any:
    schema = import_schema()
    return schema.OperatorT(
        opcodeIndex=code,
        inputs=[source, size],
        outputs=[output],
        builtinOptionsType=schema.BuiltinOptions.ResizeNearestNeighborOptions,
        builtinOptions=schema.ResizeNearestNeighborOptionsT(),
    )
