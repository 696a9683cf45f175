"""How each primitive of jax becomes ONNX operations.

A rule is a function (layout, equation, *inputs) -> result, or a list of results. CALLS has rules of
whole functions, which are known by their names.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tinyjax.exporting import selection
from tinyjax.exporting.graph import BATCH, Unsupported
from tinyjax.exporting.layout import Layout, Shape, Value, constant
from tinyjax.exporting.products import convolution, dot_general, patch_conv, pool, result_of

# ---- elementwise


def elementwise(op: str, layout: Layout, equation: Any, *inputs: Value, **attributes: Any) -> Value:
    shape, dtype = result_of(equation)
    return broadcast(layout, op, shape, dtype, *inputs, **attributes)


def broadcast(
    layout: Layout, op: str, shape: Shape, dtype: Any, *inputs: Value, **attributes: Any
) -> Value:
    """An operation on values that broadcast to `shape`."""
    order = layout.common_order(inputs, len(shape))
    operands = [layout.ordered(value, order) for value in inputs]
    sizes = [layout.graph.shapes[x] if isinstance(x, str) else x.shape for x in operands]
    tensor = layout.graph.add(
        op, *operands, shape=np.broadcast_shapes(*sizes), dtype=dtype, **attributes
    )
    return Value(shape, tensor, order)


def not_equal(layout: Layout, equation: Any, *inputs: Value) -> Value:
    shape, dtype = result_of(equation)
    return broadcast(layout, "Not", shape, dtype, elementwise("Equal", layout, equation, *inputs))


def square(layout: Layout, equation: Any, x: Value) -> Value:
    return elementwise("Mul", layout, equation, x, x)


def integer_pow(layout: Layout, equation: Any, x: Value) -> Value:
    if (power := equation.params["y"]) == 2:
        return square(layout, equation, x)
    return elementwise("Pow", layout, equation, x, constant(np.float32(power)))


def rsqrt(layout: Layout, equation: Any, x: Value) -> Value:
    shape, dtype = result_of(equation)
    root = elementwise("Sqrt", layout, equation, x)
    return broadcast(layout, "Reciprocal", shape, dtype, root)


def cbrt(layout: Layout, equation: Any, x: Value) -> Value:
    size = elementwise("Abs", layout, equation, x)
    root = elementwise("Pow", layout, equation, size, constant(np.float32(1 / 3)))
    return elementwise("Mul", layout, equation, root, elementwise("Sign", layout, equation, x))


def clamp(layout: Layout, equation: Any, low: Value, x: Value, high: Value) -> Value:
    above = elementwise("Max", layout, equation, x, low)
    return elementwise("Min", layout, equation, above, high)


def select(layout: Layout, equation: Any, which: Value, *cases: Value) -> Value:
    if len(cases) != 2 or layout.dtype(which) != np.dtype(bool):
        raise Unsupported("a choice between more than two arrays")
    return elementwise("Where", layout, equation, which, cases[1], cases[0])


def cast(layout: Layout, equation: Any, x: Value) -> Value:
    shape, dtype = result_of(equation)
    if layout.dtype(x) == dtype:
        return x
    tensor = layout.graph.add("Cast", x.data, shape=layout.sizes(x), dtype=dtype, to=dtype)
    return Value(shape, tensor, x.order)


def identity(layout: Layout, equation: Any, *inputs: Value) -> list[Value]:
    return [*inputs]


# ---- shapes


def broadcast_in_dim(layout: Layout, equation: Any, x: Value, *_: Value) -> Value:
    return layout.insert_axes(x, result_of(equation)[0], equation.params["broadcast_dimensions"])


def reshape(layout: Layout, equation: Any, x: Value, *_: Value) -> Value:
    return layout.reshape(x, result_of(equation)[0])


def transpose(layout: Layout, equation: Any, x: Value) -> Value:
    permutation = equation.params["permutation"]
    if isinstance(x.data, np.ndarray):
        return constant(x.data.transpose(permutation), result_of(equation)[0])
    order = tuple(permutation.index(axis) for axis in x.order)
    return Value(result_of(equation)[0], x.data, order)


def concatenate(layout: Layout, equation: Any, *inputs: Value) -> Value:
    return _join(layout, result_of(equation), inputs, equation.params["dimension"])


def stack(layout: Layout, equation: Any, *inputs: Value) -> Value:
    shape, axis = result_of(equation)[0], equation.params["axis"]
    single = tuple(1 if i == axis else n for i, n in enumerate(shape))
    others = tuple(i for i in range(len(shape)) if i != axis)
    inputs = tuple(layout.insert_axes(layout.expanded(x), single, others) for x in inputs)
    return _join(layout, result_of(equation), inputs, axis)


def _join(
    layout: Layout, result: tuple[Shape, np.dtype], inputs: Sequence[Value], axis: int
) -> Value:
    shape, dtype = result
    inputs = [*map(layout.expanded, inputs)]
    order = layout.common_order(inputs, len(shape))
    sizes = tuple(shape[i] for i in order)
    operands = [layout.ordered(value, order) for value in inputs]
    position = order.index(axis)
    tensor = layout.graph.add("Concat", *operands, shape=sizes, dtype=dtype, axis=position)
    return Value(shape, tensor, order)


def unstack(layout: Layout, equation: Any, x: Value) -> list[Value]:
    axis = equation.params["axis"]
    parts = [_slice_axis(layout, x, axis, i, i + 1, 1) for i in range(x.shape[axis])]
    return [layout.reshape(part, result_of(equation)[0]) for part in parts]


def tile(layout: Layout, equation: Any, x: Value) -> Value:
    shape, dtype = result_of(equation)
    x = layout.expanded(x)
    repeats = np.array([equation.params["reps"][axis] for axis in x.order], np.int64)
    sizes = tuple(shape[axis] for axis in x.order)
    return Value(
        shape, layout.graph.add("Tile", x.data, repeats, shape=sizes, dtype=dtype), x.order
    )


def slice_(layout: Layout, equation: Any, x: Value) -> Value:
    params = equation.params
    starts, limits = params["start_indices"], params["limit_indices"]
    strides = params["strides"] or (1,) * len(starts)
    for axis, bounds in enumerate(zip(starts, limits, strides, strict=True)):
        if bounds != (0, x.shape[axis], 1):
            x = _slice_axis(layout, x, axis, *map(int, bounds))
    return x


def _slice_axis(layout: Layout, x: Value, axis: int, start: int, limit: int, stride: int) -> Value:
    """x[start:limit:stride] along an axis."""
    x = layout.expanded(x)
    size = x.shape[axis]
    if size % BATCH == 0:  # whole batches of several: (k n) .. -> k n ..
        if start % BATCH or limit % BATCH or stride != 1:
            raise Unsupported("a slice of the batch")
        batches = layout.reshape(x, (*x.shape[:axis], size // BATCH, BATCH, *x.shape[axis + 1 :]))
        selected = _slice_axis(layout, batches, axis, start // BATCH, limit // BATCH, 1)
        return layout.reshape(selected, (*x.shape[:axis], limit - start, *x.shape[axis + 1 :]))
    shape = (*x.shape[:axis], len(range(start, limit, stride)), *x.shape[axis + 1 :])
    return _slice(layout, x, shape, axis, (start, limit, stride))


def _slice(layout: Layout, x: Value, shape: Shape, axis: int, bounds: Sequence[int]) -> Value:
    start, limit, stride = (np.array([n], np.int64) for n in bounds)
    position = np.array([layout.position(x, axis)], np.int64)
    sizes = tuple(shape[a] for a in x.order)
    tensor = layout.graph.add(
        "Slice", x.data, start, limit, position, stride, shape=sizes, dtype=layout.dtype(x)
    )
    return Value(shape, tensor, x.order)


def split(layout: Layout, equation: Any, x: Value) -> list[Value]:
    parts, start = [], 0
    for size in map(int, equation.params["sizes"]):
        parts.append(_slice_axis(layout, x, equation.params["axis"], start, start + size, 1))
        start += size
    return parts


def reverse(layout: Layout, equation: Any, x: Value) -> Value:
    for axis in equation.params["dimensions"]:
        x = _slice(layout, layout.expanded(x), x.shape, axis, (-1, -(2**31), -1))
    return x


def pad(layout: Layout, equation: Any, x: Value, fill: Value) -> Value:
    shape, dtype = result_of(equation)
    config = [tuple(map(int, bounds)) for bounds in equation.params["padding_config"]]
    if any(interior or low < 0 or high < 0 for low, high, interior in config):
        raise Unsupported("negative or interior padding")
    if not any(low or high for low, high, _ in config):
        return x
    x = layout.expanded(x)
    pads = np.array([config[axis][side] for side in (0, 1) for axis in x.order], np.int64)
    sizes = tuple(shape[axis] for axis in x.order)
    tensor = layout.graph.add(
        "Pad", x.data, pads, fill.data, shape=sizes, dtype=dtype, mode="constant"
    )
    return Value(shape, tensor, x.order)


# ---- reductions


def reduce(op: str, layout: Layout, equation: Any, x: Value) -> Value:
    axes, dtype = equation.params["axes"], result_of(equation)[1]
    if not axes:
        return x
    x = layout.expanded(x)
    positions = sorted(layout.position(x, axis) for axis in axes)
    sizes = tuple(n for i, n in enumerate(layout.sizes(x)) if i not in positions)
    tensor = layout.graph.add(
        op, x.data, np.array(positions, np.int64), shape=sizes, dtype=dtype, keepdims=0
    )
    return layout.drop_axes(x, axes, tensor)


def argmax(layout: Layout, equation: Any, x: Value) -> Value:
    (axis,), dtype = equation.params["axes"], result_of(equation)[1]
    x = layout.expanded(x)
    position = layout.position(x, axis)
    sizes = tuple(n for i, n in enumerate(layout.sizes(x)) if i != position)
    index = layout.graph.add(
        "ArgMax", x.data, shape=sizes, dtype=np.int64, axis=position, keepdims=0
    )
    tensor = layout.graph.add("Cast", index, shape=sizes, dtype=dtype, to=dtype)
    return layout.drop_axes(x, (axis,), tensor)


# ---- whole functions


def activation(op: str, layout: Layout, equation: Any, x: Value, **attributes: Any) -> Value:
    return elementwise(op, layout, equation, x, **attributes)


def silu(layout: Layout, equation: Any, x: Value) -> Value:
    return elementwise("Mul", layout, equation, x, elementwise("Sigmoid", layout, equation, x))


CALLS: dict[str, Callable[..., Value]] = {
    "relu": partial(activation, "Relu"),
    "hard_silu": partial(activation, "HardSwish"),
    "hard_swish": partial(activation, "HardSwish"),
    "hard_sigmoid": partial(activation, "HardSigmoid", alpha=1 / 6, beta=0.5),
    "silu": silu,
    "max_pool": partial(pool, "MaxPool", 3),
    "max_pool_2x2": partial(pool, "MaxPool", 2),
    "mean_pool_2x2": partial(pool, "AveragePool", 2, count_include_pad=0),
    "patch_conv": patch_conv,
    "nms_mask": selection.nms_mask,
    "align_cells": selection.align_cells,
}

ELEMENTWISE = {
    "add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max",
    "min": "Min", "neg": "Neg", "exp": "Exp", "log": "Log", "tanh": "Tanh", "logistic": "Sigmoid",
    "sqrt": "Sqrt", "abs": "Abs", "floor": "Floor", "ceil": "Ceil", "sign": "Sign", "erf": "Erf",
    "pow": "Pow", "gt": "Greater", "lt": "Less", "ge": "GreaterOrEqual", "le": "LessOrEqual",
    "eq": "Equal", "and": "And", "or": "Or", "not": "Not",
}  # fmt: skip

RULES: dict[str, Callable[..., Value | list[Value]]] = {
    **{name: partial(elementwise, op) for name, op in ELEMENTWISE.items()},
    "ne": not_equal,
    "square": square,
    "integer_pow": integer_pow,
    "rsqrt": rsqrt,
    "cbrt": cbrt,
    "clamp": clamp,
    "select_n": select,
    "convert_element_type": cast,
    "stop_gradient": identity,
    "copy": identity,
    "optimization_barrier": identity,
    "broadcast_in_dim": broadcast_in_dim,
    "reshape": reshape,
    "squeeze": reshape,
    "expand_dims": reshape,
    "transpose": transpose,
    "concatenate": concatenate,
    "stack": stack,
    "unstack": unstack,
    "tile": tile,
    "slice": slice_,
    "split": split,
    "rev": reverse,
    "pad": pad,
    "reduce_sum": partial(reduce, "ReduceSum"),
    "reduce_max": partial(reduce, "ReduceMax"),
    "reduce_min": partial(reduce, "ReduceMin"),
    "reduce_and": selection.reduce_and,
    "argmax": argmax,
    "top_k": selection.top_k,
    "gather": selection.gather,
    "conv_general_dilated": convolution,
    "dot_general": dot_general,
}
