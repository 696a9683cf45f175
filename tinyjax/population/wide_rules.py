"""Operations of wide values, see `population.wide`: a rule for each primitive of JAX.

A rule `(equation, inputs) -> [results]` computes the operation without vmap, or returns None where
it does not apply: for inputs none of which is wide, or for an operation along the last axis.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from tinyjax.ops import pooling
from tinyjax.ops.block_conv import block_conv
from tinyjax.population.wide_value import Value, merge

Results = list[Value] | None
Rule = Callable[[Any, Sequence[Value]], Results]

NHWC = (0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)  # JAX's specification of NHWC, HWIO, NHWC
IMAGE_AXES = 4  # of the arrays that are made wide, if members' numbers are broadcast to them


def elementwise(equation: Any, inputs: Sequence[Value]) -> Results:
    """All inputs become wide, except numbers that all members share."""
    wide = next((value for value in inputs if value.is_wide), None)
    if wide is None:
        return None
    *lead, channels = equation.outvars[0].aval.shape

    def operand(value: Value) -> Any:
        if value.ndim:
            array = value.wide()
            # An axis of length 1 is broadcast.
            return array if value.channels == channels else jnp.repeat(array, channels, -1)
        if value.form == "shared":
            return value.array
        per_channel = jnp.repeat(value.array, channels)  # m -> (m c)
        return jnp.broadcast_to(per_channel, (*lead, value.size * channels))

    result = equation.primitive.bind(*map(operand, inputs), **equation.params)
    return wide.with_wide(result)


def broadcast_in_dim(equation: Any, inputs: Sequence[Value]) -> Results:
    value, params = inputs[0], equation.params
    shape, axes = params["shape"], params["broadcast_dimensions"]
    if value.form == "shared" or not (value.is_wide or len(shape) >= IMAGE_AXES):
        return None
    wide_shape = (*shape[:-1], value.size * shape[-1])
    if not value.ndim:
        channels = jnp.repeat(value.array, shape[-1])  # m -> (m c)
        return value.with_wide(jnp.broadcast_to(channels, wide_shape))
    if axes[-1] != len(shape) - 1:
        return None
    array = value.wide()
    if value.channels != shape[-1]:  # 1, which is repeated
        array = jnp.repeat(array, shape[-1], -1)
    return value.with_wide(lax.broadcast_in_dim(array, wide_shape, axes))


def reduce(equation: Any, inputs: Sequence[Value]) -> Results:
    (value,), params = inputs, equation.params
    if not value.is_wide:
        return None
    axes, last = params["axes"], value.ndim - 1
    if last not in axes:
        return value.with_wide(equation.primitive.bind(value.array, **params))
    axes = tuple(axis + (axis == last) for axis in axes)  # of [.., M, C]
    result = equation.primitive.bind(value.split(), **{**params, "axes": axes})
    return value.with_stacked(jnp.moveaxis(result, -1, 0))  # .. m -> m ..


def reshape(equation: Any, inputs: Sequence[Value]) -> Results:
    """Reshapes that keep the last axis."""
    value, shape = inputs[0], equation.params["new_sizes"]
    if not value.is_wide or not shape or shape[-1] != value.channels:
        return None
    return value.with_wide(value.array.reshape(*shape[:-1], value.array.shape[-1]))


def squeeze(equation: Any, inputs: Sequence[Value]) -> Results:
    (value,), axes = inputs, equation.params["dimensions"]
    if not value.is_wide or value.ndim - 1 in axes:
        return None
    return value.with_wide(lax.squeeze(value.array, axes))


def transpose(equation: Any, inputs: Sequence[Value]) -> Results:
    (value,), order = inputs, equation.params["permutation"]
    if not value.is_wide or order[-1] != value.ndim - 1:
        return None
    return value.with_wide(value.array.transpose(order))


def reverse(equation: Any, inputs: Sequence[Value]) -> Results:
    (value,), axes = inputs, equation.params["dimensions"]
    if not value.is_wide or value.ndim - 1 in axes:
        return None
    return value.with_wide(lax.rev(value.array, axes))


def slice_(equation: Any, inputs: Sequence[Value]) -> Results:
    (value,), params = inputs, equation.params
    if not value.is_wide:
        return None
    start, limit = params["start_indices"], params["limit_indices"]
    strides = params["strides"] or (1,) * value.ndim
    if (start[-1], limit[-1], strides[-1]) == (0, value.channels, 1):
        limit = *limit[:-1], value.array.shape[-1]
        return value.with_wide(lax.slice(value.array, start, limit, strides))
    start, limit, strides = (  # of [.., M, C]
        (*sizes[:-1], whole, sizes[-1])
        for sizes, whole in ((start, 0), (limit, value.size), (strides, 1))
    )
    return value.with_wide(merge(lax.slice(value.split(), start, limit, strides)))


def pad(equation: Any, inputs: Sequence[Value]) -> Results:
    (value, filler), config = inputs, equation.params["padding_config"]
    if not value.is_wide or filler.form != "shared":
        return None
    if tuple(config[-1]) == (0, 0, 0):
        return value.with_wide(lax.pad(value.array, filler.array, config))
    config = *config[:-1], (0, 0, 0), config[-1]  # of [.., M, C]
    return value.with_wide(merge(lax.pad(value.split(), filler.array, config)))


def concatenate(equation: Any, inputs: Sequence[Value]) -> Results:
    wide = next((value for value in inputs if value.is_wide), None)
    if wide is None:
        return None
    axis, values = equation.params["dimension"], [wide.with_wide(v.wide())[0] for v in inputs]
    if axis < wide.ndim - 1:
        return wide.with_wide(jnp.concatenate([value.array for value in values], axis))
    return wide.with_wide(merge(jnp.concatenate([value.split() for value in values], -1)))


def dot_general(equation: Any, inputs: Sequence[Value]) -> Results:
    """The product of maps [.., C] with a matrix [C, D], as a layer applies it to every position.

    Its result is stacked: layers of this form are the last ones, and have few outputs.
    """
    (x, kernel), params = inputs, equation.params
    positions = (((x.ndim - 1,), (0,)), ((), ()))
    if not x.is_wide or x.ndim < 3 or kernel.ndim != 2 or kernel.is_wide:
        return None
    if params["dimension_numbers"] != positions:
        return None
    *lead, channels = x.array.shape
    maps = x.array.reshape(-1, 1, 1, channels)
    y = block_conv(maps, kernel.stacked()[:, None, None], (1, 1), ((0, 0), (0, 0)))
    return x.with_stacked(x.with_wide(y.reshape(*lead, -1))[0].stacked())


def conv_general_dilated(equation: Any, inputs: Sequence[Value]) -> Results:
    """The convolutions of `ops.conv`, whose outputs are wide whatever their inputs are."""
    (x, kernel), params = inputs, equation.params
    numbers, groups = params["dimension_numbers"], params["feature_group_count"]
    if (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec) != NHWC:
        return None
    if params["lhs_dilation"] != (1, 1) or params["rhs_dilation"] != (1, 1):
        return None
    strides, padding = params["window_strides"], params["padding"]
    if groups == 1:
        return x.with_wide(block_conv(x.wide(), kernel.stacked(), strides, padding))
    # Groups of channels do not mix, nor do members: they are M times as many groups.
    params = {**params, "feature_group_count": groups * x.size}
    return x.with_wide(equation.primitive.bind(x.wide(), kernel.wide(), **params))


def same_forms(equation: Any, inputs: Sequence[Value]) -> Results:
    """Sums over devices, of each array."""
    results = equation.primitive.bind(*(value.array for value in inputs), **equation.params)
    results = results if equation.primitive.multiple_results else [results]
    return [v._replace(array=array) for v, array in zip(inputs, results, strict=True)]


def channelwise(function: Callable[..., Array]) -> Rule:
    """The rule of a function that does not mix channels."""

    def rule(equation: Any, inputs: Sequence[Value]) -> Results:
        if not any(value.is_wide for value in inputs):
            return None
        return inputs[0].with_wide(function(*(value.wide() for value in inputs)))

    return rule


ELEMENTWISE = (
    "abs", "add", "and", "ceil", "clamp", "convert_element_type", "copy", "cos", "div", "eq", "erf",
    "exp", "exp2", "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p",
    "logistic", "lt", "max", "min", "mul", "ne", "neg", "not", "or", "pow", "round", "rsqrt",
    "select_n", "sign", "sin", "sqrt", "square", "stop_gradient", "sub", "tanh",
)  # fmt: skip
REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or", "reduce_prod")
RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, elementwise),
    **dict.fromkeys(REDUCTIONS, reduce),
    "broadcast_in_dim": broadcast_in_dim,
    "reshape": reshape,
    "squeeze": squeeze,
    "transpose": transpose,
    "rev": reverse,
    "slice": slice_,
    "pad": pad,
    "concatenate": concatenate,
    "dot_general": dot_general,
    "conv_general_dilated": conv_general_dilated,
    "psum": same_forms,
    "psum_invariant": same_forms,
}
# Functions with a derivative of their own, by name.
INLINED = ("conv2d",)
CALLS: dict[str, Rule] = {
    "relu": channelwise(jax.nn.relu),
    "relu6": channelwise(jax.nn.relu6),
    "max_pool": channelwise(pooling.max_pool),
    "larger": channelwise(pooling.larger),
}
