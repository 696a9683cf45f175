"""Rules of `rules` for proposals: the best of many boxes, suppression, and pooling of RoIs."""

import math
from typing import Any

import numpy as np
from jax.lax import GatherScatterMode

from tinyjax.exporting.graph import Unsupported
from tinyjax.exporting.layout import Layout, Value
from tinyjax.exporting.products import CHANNELS_FIRST, result_of


def top_k(layout: Layout, equation: Any, x: Value) -> list[Value]:
    """The k largest values, in descending order, and their indices; of equal ones, the first."""
    params, (shape, dtype) = equation.params, result_of(equation)
    x = layout.expanded(x)
    sizes = tuple(shape[axis] for axis in x.order)
    values, index = layout.graph.add_node(
        "TopK",
        [x.data, np.array([params["k"]])],
        [(sizes, dtype), (sizes, np.int64)],
        axis=layout.position(x, params["axis"]),
    )
    index = _cast(layout, index, equation.outvars[1].aval.dtype)
    return [Value(shape, values, x.order), Value(shape, index, x.order)]


def gather(layout: Layout, equation: Any, x: Value, index: Value) -> Value:
    """x[b, index[b, i, :]] for each b, where b are the batch axes of both."""
    params, (shape, dtype) = equation.params, result_of(equation)
    spec = params["dimension_numbers"]
    batch = (*range(len(spec.operand_batching_dims)),)
    first_kept = len(batch) + index.shape[-1]
    selected = (*range(len(batch), first_kept),)
    kept = x.shape[first_kept:]
    if (
        (batch, batch) != (spec.operand_batching_dims, spec.start_indices_batching_dims)
        or (selected, selected) != (spec.collapsed_slice_dims, spec.start_index_map)
        or spec.offset_dims != (*range(len(index.shape) - 1, len(shape)),)
        or params["slice_sizes"] != (*[1] * first_kept, *kept)
        or params["mode"] != GatherScatterMode.PROMISE_IN_BOUNDS
    ):
        raise Unsupported("a gather of other than whole rows, or one that checks its indices")
    rows = _cast(layout, layout.tensor(index), np.int64)
    data = layout.tensor(x)
    tensor = layout.graph.add(
        "GatherND", data, rows, shape=shape, dtype=dtype, batch_dims=len(batch)
    )
    return Value(shape, tensor, (*range(len(shape)),))


def reduce_and(layout: Layout, equation: Any, x: Value) -> Value:
    x, axes = layout.expanded(x), equation.params["axes"]
    positions = np.array(sorted(layout.position(x, axis) for axis in axes), np.int64)
    sizes = tuple(n for i, n in enumerate(layout.sizes(x)) if i not in positions)
    number = _cast(layout, str(x.data), np.float32)
    least = layout.graph.add("ReduceMin", number, positions, shape=sizes, keepdims=0)
    return layout.drop_axes(x, axes, _cast(layout, least, bool))


def nms_mask(
    layout: Layout, equation: Any, boxes: Value, labels: Value, iou_threshold: Value
) -> Value:
    """Which boxes [.., P, 4], sorted by descending score, suppression keeps: bool [.., P].

    labels: bool [.., P], the two groups within which boxes suppress each other.
    """
    if layout.dtype(labels) != np.dtype(bool):
        raise Unsupported("nms_mask with other than two labels")
    graph, shape, count = layout.graph, labels.shape, labels.shape[-1]
    sets = math.prod(shape[:-1])
    corners = layout.tensor(layout.reshape(boxes, (sets, count, 4)))
    group = layout.tensor(layout.reshape(labels, (sets, 1, count)))
    other = graph.add("Not", group, shape=(sets, 1, count), dtype=bool)
    groups = graph.add("Concat", group, other, shape=(sets, 2, count), dtype=bool, axis=1)
    # Scores that have the order of the boxes; a box that is not of a group has 0.
    ranks = np.arange(count, 0, -1, dtype=np.float32)
    scores = graph.add("Where", groups, ranks, np.float32(0), shape=(sets, 2, count))
    limits = np.array(count), np.float32(iou_threshold.data), np.float32(0)
    selected = graph.add(  # rows of set, group, box
        "NonMaxSuppression", corners, scores, *limits, shape=(0, 3), dtype=np.int64
    )
    position = graph.add("Gather", selected, np.array([0, 2]), shape=(0, 2), dtype=np.int64, axis=1)
    values = graph.add("GatherND", scores, selected, shape=(0,))
    zeros = graph.add("ReduceMin", scores, np.array([1]), shape=(sets, count), keepdims=0)
    kept = graph.add("ScatterND", zeros, position, values, shape=(sets, count))
    mask = Value((sets, count), _cast(layout, kept, bool), (0, 1))
    return layout.reshape(mask, shape)


def align_cells(
    layout: Layout, equation: Any, features: Value, low: Value, extent: Value, steps: Value
) -> Value:
    """RoIAlign of boxes in cells, see `ops.roi_align.align_cells`."""
    graph, (shape, dtype) = layout.graph, result_of(equation)
    batch, count, size, _, channels = shape
    maps = layout.ordered(layout.expanded(features), CHANNELS_FIRST)
    corner, sides = (layout.tensor(value) for value in (low, extent))
    opposite = graph.add("Add", corner, sides, shape=low.shape)
    boxes = graph.add("Concat", corner, opposite, shape=(batch, count, 4), axis=2)
    # Here, the center of cell i is at i, and there at i + 1/2.
    shifted = graph.add("Add", boxes, np.float32(0.5), shape=(batch, count, 4))
    pooled = graph.add(
        "RoiAlign",
        maps,
        graph.reshape(shifted, (batch * count, 4)),
        _image_indices(layout, str(maps), batch, count),
        shape=(batch * count, channels, size, size),
        dtype=dtype,
        mode="avg",
        coordinate_transformation_mode="half_pixel",
        spatial_scale=1.0,
        sampling_ratio=steps.shape[0] // size,
        output_height=size,
        output_width=size,
    )
    flat = Value((batch * count, size, size, channels), pooled, CHANNELS_FIRST)
    return layout.reshape(flat, shape)


def _image_indices(layout: Layout, maps: str, batch: int, count: int) -> str:
    """The index of the image of each of [batch * count] boxes, int64."""
    graph = layout.graph
    size = graph.add("Shape", maps, shape=(1,), dtype=np.int64, start=0, end=1)
    limit = graph.reshape(size, ())
    start, step = np.int64(0), np.int64(1)
    index = graph.add("Range", start, limit, step, shape=(batch,), dtype=np.int64)
    column = graph.reshape(index, (batch, 1))
    wide = np.array([1, count])
    table = graph.add("Expand", column, wide, shape=(batch, count), dtype=np.int64)
    return graph.reshape(table, (batch * count,))


def _cast(layout: Layout, tensor: str, dtype: Any) -> str:
    """The tensor in another dtype; a number is True unless it is 0."""
    dtype, shape = np.dtype(dtype), layout.graph.shapes.get(tensor)
    if shape is None:
        array = layout.graph.constants[tensor]
        return layout.graph.constant(array.astype(dtype))
    if layout.graph.dtypes[tensor] == dtype:
        return tensor
    return layout.graph.add("Cast", tensor, shape=shape, dtype=dtype, to=dtype)
