"""Rules of `rules` for convolutions, products of matrices, and pooling."""

import math
from typing import Any

import numpy as np

from tinyjax.exporting.graph import Unsupported
from tinyjax.exporting.layout import Layout, Shape, Value

CHANNELS_FIRST = (0, 3, 1, 2)


def result_of(equation: Any) -> tuple[Shape, np.dtype]:
    """Shape and dtype of the first result of an equation."""
    aval = equation.outvars[0].aval
    return tuple(map(int, aval.shape)), np.dtype(aval.dtype)


def convolution(layout: Layout, equation: Any, x: Value, kernel: Value) -> Value:
    params, (shape, dtype) = equation.params, result_of(equation)
    spec = params["dimension_numbers"]
    dilated = {*params["lhs_dilation"]} != {1} or params["batch_group_count"] != 1
    if dilated or not isinstance(kernel.data, np.ndarray):
        raise Unsupported("a transposed convolution, or one with a computed kernel")
    image = layout.ordered(layout.expanded(x), spec.lhs_spec)
    padding = [tuple(map(int, bounds)) for bounds in params["padding"]]
    tensor = layout.graph.add(
        "Conv",
        image,
        np.broadcast_to(kernel.data, kernel.shape).transpose(spec.rhs_spec),
        shape=tuple(shape[axis] for axis in spec.out_spec),
        dtype=dtype,
        strides=[*params["window_strides"]],
        dilations=[*params["rhs_dilation"]],
        group=params["feature_group_count"],
        pads=[bounds[side] for side in (0, 1) for bounds in padding],
    )
    return Value(shape, tensor, tuple(spec.out_spec))


def dot_general(layout: Layout, equation: Any, a: Value, b: Value) -> Value:
    (a_contract, b_contract), (a_batch, b_batch) = equation.params["dimension_numbers"]
    shape, _ = result_of(equation)
    if b.is_constant and not b_batch:
        return _product_with_constant(layout, a, a_contract, b, b_contract, shape)
    if a.is_constant and not a_batch:
        b_free = [n for axis, n in enumerate(b.shape) if axis not in b_contract]
        a_free = [n for axis, n in enumerate(a.shape) if axis not in a_contract]
        swapped = (*b_free, *a_free)
        y = _product_with_constant(layout, b, b_contract, a, a_contract, swapped)
        to_axis = [*range(len(a_free), len(shape)), *range(len(a_free))]
        return Value(shape, y.data, tuple(to_axis[axis] for axis in y.order))
    return _product(layout, (a, a_batch, a_contract), (b, b_batch, b_contract), shape)


def _product_with_constant(
    layout: Layout, x: Value, contract: Shape, matrix: Value, matrix_axes: Shape, shape: Shape
) -> Value:
    """The axes `contract` of x times `matrix_axes` of a constant; its other axes are the last."""
    x, weights = layout.expanded(x), np.broadcast_to(matrix.data, matrix.shape)
    pairs = dict(zip(contract, matrix_axes, strict=True))
    positions = [layout.position(x, axis) for axis in contract]
    is_map = len(x.shape) in (3, 4) and layout.position(x, 0) == 0
    multiply = _pointwise_convolution if is_map and positions == [1] else _matrix_product
    return layout.reshape(multiply(layout, x, pairs, weights), shape)


def _pointwise_convolution(
    layout: Layout, x: Value, pairs: dict[int, int], weights: np.ndarray
) -> Value:
    """The product over channels that are first in the tensor: [N, C, ..] -> value [N, .., D]."""
    ((channels, axis),) = pairs.items()
    spatial = len(x.shape) - 2
    kernel = np.moveaxis(weights, axis, -1).reshape(-1, weights.shape[axis], *[1] * spatial)
    sizes = layout.sizes(x)
    tensor = layout.graph.add("Conv", x.data, kernel, shape=(sizes[0], len(kernel), *sizes[2:]))
    free = [i for i in range(len(x.shape)) if i != channels]
    first, *rest = (free.index(i) for i in x.order if i != channels)
    shape = (*(x.shape[i] for i in free), len(kernel))
    return Value(shape, tensor, (first, len(free), *rest))


def _matrix_product(layout: Layout, x: Value, pairs: dict[int, int], weights: np.ndarray) -> Value:
    """The product over any axes: -> value [.., D], D the product of the other axes of weights.

    pairs: axis of x -> axis of weights.
    """
    free = [axis for axis in range(len(x.shape)) if axis not in pairs]
    rows = [axis for axis in x.order if axis not in pairs]
    columns = [axis for axis in x.order if axis in pairs]
    if [*x.order] != rows + columns:  # moved anyway, so in the value's order
        rows = free
    depth = math.prod(x.shape[axis] for axis in columns)
    lead = tuple(x.shape[axis] for axis in rows)
    moved = str(layout.ordered(x, (*rows, *columns)))
    first = [pairs[axis] for axis in columns]
    others = [axis for axis in range(weights.ndim) if axis not in first]
    kernel = weights.transpose(*first, *others).reshape(depth, -1)
    features = kernel.shape[1]
    flat = layout.graph.reshape(moved, (*lead, depth))
    tensor = layout.graph.add("MatMul", flat, kernel, shape=(*lead, features))
    order = (*(free.index(axis) for axis in rows), len(free))
    return Value((*(x.shape[axis] for axis in free), features), tensor, order)


def _product(layout: Layout, a: tuple[Any, ...], b: tuple[Any, ...], shape: Shape) -> Value:
    """A product of two values over axes (batch, contracted), which become (batch, free)."""
    graph, operands, free_sizes = layout.graph, [], []
    for (value, batch, contract), contract_last in ((a, True), (b, False)):
        value = layout.expanded(value)
        free = [i for i in range(len(value.shape)) if i not in (*batch, *contract)]
        parts = (free, contract) if contract_last else (contract, free)
        moved = layout.ordered(value, (*batch, *parts[0], *parts[1]))
        moved = moved if isinstance(moved, str) else graph.constant(moved)
        graph.shapes.setdefault(
            moved, tuple(value.shape[i] for i in (*batch, *parts[0], *parts[1]))
        )
        graph.dtypes.setdefault(moved, layout.dtype(value))
        lengths = [math.prod(value.shape[i] for i in part) for part in parts]
        lead = tuple(value.shape[i] for i in batch)
        operands.append(graph.reshape(moved, (*lead, *lengths)))
        free_sizes.append(lengths[0 if contract_last else 1])
    sizes = (*lead, *free_sizes)
    tensor = graph.add("MatMul", *operands, shape=sizes)
    return layout.reshape(Value(sizes, tensor, tuple(range(len(sizes)))), shape)


def pool(op: str, size: int, layout: Layout, equation: Any, x: Value, **attributes: Any) -> Value:
    """Windows of 3 x 3 with padding 1, or of 2 x 2, cut off at the border; the stride is 2."""
    shape, dtype = result_of(equation)
    image = layout.ordered(layout.expanded(x), CHANNELS_FIRST)
    pads = [1] * 4 if size == 3 else [0, 0, x.shape[1] % 2, x.shape[2] % 2]
    tensor = layout.graph.add(
        op,
        image,
        shape=tuple(shape[axis] for axis in CHANNELS_FIRST),
        dtype=dtype,
        kernel_shape=[size] * 2,
        strides=[2, 2],
        pads=pads,
        **attributes,
    )
    return Value(shape, tensor, CHANNELS_FIRST)


def patch_conv(layout: Layout, equation: Any, x: Value, kernel: Value) -> Value:
    """A convolution with the stride of its size, see `ops.conv.patch_conv`."""
    if not isinstance(kernel.data, np.ndarray):
        raise Unsupported("patch_conv with a computed kernel")
    shape, dtype = result_of(equation)
    size = kernel.shape[0]
    image = layout.ordered(layout.expanded(x), CHANNELS_FIRST)
    tensor = layout.graph.add(
        "Conv",
        image,
        kernel.data.transpose(3, 2, 0, 1),
        shape=tuple(shape[axis] for axis in CHANNELS_FIRST),
        dtype=dtype,
        strides=[size, size],
        pads=[0, 0, -x.shape[1] % size, -x.shape[2] % size],
    )
    return Value(shape, tensor, CHANNELS_FIRST)
