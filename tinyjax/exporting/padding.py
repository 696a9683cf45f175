"""PADV2 in LiteRT files: the padding before max pooling, with the least float32 as its value."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinyjax.exporting import flatbuffer

NAME = "PADV2"
LEAST = np.finfo(np.float32).min


def narrow_paddings(model: Any) -> None:
    """Write the sizes of paddings of a `ModelT` as int32, in place: TensorFlow Lite Micro reads
    them as such, whatever their type.
    """
    graph = model.subgraphs[0]
    is_int64 = flatbuffer.import_schema().TensorType.INT64
    for op, name in zip(graph.operators, flatbuffer.operator_names(model), strict=True):
        tensor = graph.tensors[op.inputs[1]] if name == NAME else None
        if tensor is not None and tensor.type == is_int64:
            data = bytes(model.buffers[tensor.buffer].data)
            sizes = np.frombuffer(data, np.int64).astype(np.int32).reshape(tensor.shape)
            name = f"paddings_{op.outputs[0]}"
            op.inputs[1] = flatbuffer.add_tensor(model, name, sizes.shape, "INT32", sizes)


def fill_with_minimum(model: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Let a float32 `ModelT` pad with the least value of the padded tensor, in place: the maximum
    is the same.

    ranges: of all tensors, without the padding's value. With the least float32 in a range, the step
    between its integers would be 1e36.
    """
    graph = model.subgraphs[0]
    for op, name in zip(graph.operators, flatbuffer.operator_names(model), strict=True):
        if name == NAME and flatbuffer.constant(model, op.inputs[2]) == LEAST:
            low, _ = ranges[graph.tensors[op.inputs[0]].name.decode()]
            least, name = np.array(low, np.float32), f"least_{op.outputs[0]}"
            op.inputs[2] = flatbuffer.add_tensor(model, name, (), "FLOAT32", least)
    flatbuffer.prune(model)
