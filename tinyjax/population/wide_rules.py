"""Operations of wide values, see `population.wide`: a rule for each primitive of JAX.

A rule `(equation, inputs) -> [results]` computes the operation without vmap, or returns None where
it does not apply: for inputs none of which is wide, or for an operation along the last axis.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from tinyjax.ops import pooling
from tinyjax.ops.block_conv import LANES, block_conv, keep_finite
from tinyjax.population.wide_value import Value, merge

Results = list[Value] | None
Rule = Callable[[Any, Sequence[Value]], Results]

NHWC = (0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)  # JAX's specification of NHWC, HWIO, NHWC
IMAGE_AXES = 4  # of the arrays that are made wide, if members' numbers are broadcast to them
MIN_IMAGES = 8  # of a group: XLA:TPU replaces smaller batches by parts of images, at more bytes


def elementwise(equation: Any, inputs: Sequence[Value]) -> Results:
    """All inputs become wide, except numbers that all members share."""
    wide = _most_groups(inputs)
    if wide is None:
        return None
    *lead, channels = equation.outvars[0].aval.shape

    def operand(value: Value) -> Any:
        if value.ndim:
            array = value.wide(wide.groups)
            # An axis of length 1 is broadcast.
            return array if value.channels == channels else jnp.repeat(array, channels, -1)
        if value.form == "shared":
            return value.array
        per_channel = jnp.repeat(value.array, channels)  # m -> (m c)
        (full,) = value.with_wide(jnp.broadcast_to(per_channel, (*lead, value.size * channels)))
        return full.wide(wide.groups)

    result = equation.primitive.bind(*map(operand, inputs), **equation.params)
    return wide.with_wide(result)


def broadcast_in_dim(equation: Any, inputs: Sequence[Value]) -> Results:
    value, params = inputs[0], equation.params
    shape, axes = params["shape"], params["broadcast_dimensions"]
    if value.form == "shared" or not (value.is_wide or len(shape) >= IMAGE_AXES):
        return None
    value = _per_group(value, axes[:1] == (0,) and shape[0] == value.images)
    wide_shape = *_shape_of_group(value, shape)[:-1], value.blocks * shape[-1]
    if not value.ndim:
        channels = jnp.repeat(value.array, shape[-1])  # m -> (m c)
        return value.with_wide(jnp.broadcast_to(channels, wide_shape))
    if axes[-1] != len(shape) - 1:
        return None
    array = value.wide(value.groups)
    if value.channels != shape[-1]:  # 1, which is repeated
        array = jnp.repeat(array, shape[-1], -1)
    return value.with_wide(lax.broadcast_in_dim(array, wide_shape, axes))


def reduce(equation: Any, inputs: Sequence[Value]) -> Results:
    (value,), params = inputs, equation.params
    if not value.is_wide:
        return None
    axes, last = params["axes"], value.ndim - 1
    if last in axes:
        axes = tuple(axis + (axis == last) for axis in axes)  # of [.., M, C]
        array = value.with_groups(1).split()
        result = equation.primitive.bind(array, **{**params, "axes": axes})
        return value.with_stacked(jnp.moveaxis(result, -1, 0))  # .. m -> m ..
    result = equation.primitive.bind(value.array, **params)
    if value.groups == 1 or 0 not in axes:
        return value.with_wide(result)
    result = result.reshape(*result.shape[:-1], value.groups, -1)  # .. (g m c) -> .. g (m c)
    result = equation.primitive.bind(result, **{**params, "axes": (result.ndim - 2,)})
    return [Value(result, "wide", value.size)]


def reshape(equation: Any, inputs: Sequence[Value]) -> Results:
    """Reshapes that keep the last axis."""
    value, shape = inputs[0], equation.params["new_sizes"]
    if not value.is_wide or not shape or shape[-1] != value.channels:
        return None
    value = _per_group(value, shape[0] == value.images)
    lead = _shape_of_group(value, shape)[:-1]
    return value.with_wide(value.array.reshape(*lead, value.array.shape[-1]))


def of_axes(equation: Any, inputs: Sequence[Value]) -> Results:
    """Operations along the axes in parameter `dimensions`."""
    (value,), params = inputs, equation.params
    axes = params["dimensions"]
    if not value.is_wide or value.ndim - 1 in axes:
        return None
    value = _per_group(value, 0 not in axes)
    return value.with_wide(equation.primitive.bind(value.array, **params))


def transpose(equation: Any, inputs: Sequence[Value]) -> Results:
    (value,), order = inputs, equation.params["permutation"]
    if not value.is_wide or order[-1] != value.ndim - 1:
        return None
    value = _per_group(value, order[0] == 0)
    return value.with_wide(value.array.transpose(order))


def slice_(equation: Any, inputs: Sequence[Value]) -> Results:
    (value,), params = inputs, equation.params
    if not value.is_wide:
        return None
    start, limit = params["start_indices"], params["limit_indices"]
    strides = params["strides"] or (1,) * value.ndim
    value = _per_group(value, (start[0], limit[0], strides[0]) == (0, value.images, 1))
    limit = _shape_of_group(value, limit)
    if (start[-1], limit[-1], strides[-1]) == (0, value.channels, 1):
        limit = *limit[:-1], value.array.shape[-1]
        return value.with_wide(lax.slice(value.array, start, limit, strides))
    start, limit, strides = (  # of [.., M, C]
        (*sizes[:-1], whole, sizes[-1])
        for sizes, whole in ((start, 0), (limit, value.blocks), (strides, 1))
    )
    return value.with_wide(merge(lax.slice(value.split(), start, limit, strides)))


def pad(equation: Any, inputs: Sequence[Value]) -> Results:
    (value, filler), config = inputs, equation.params["padding_config"]
    if not value.is_wide or filler.form != "shared":
        return None
    value = _per_group(value, tuple(config[0]) == (0, 0, 0))
    if tuple(config[-1]) == (0, 0, 0):
        return value.with_wide(lax.pad(value.array, filler.array, config))
    config = *config[:-1], (0, 0, 0), config[-1]  # of [.., M, C]
    return value.with_wide(merge(lax.pad(value.split(), filler.array, config)))


def concatenate(equation: Any, inputs: Sequence[Value]) -> Results:
    wide = _most_groups(inputs)
    if wide is None:
        return None
    axis = equation.params["dimension"]
    wide = _per_group(wide, axis != 0)
    values = [value.with_groups(wide.groups) for value in inputs]
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
    maps = keep_finite(x.array).reshape(lead[0], -1, lead[-1], channels)
    kernels = jnp.tile(kernel.stacked()[:, None, None], (x.groups, 1, 1, 1, 1))
    y = block_conv(maps, kernels, (1, 1), ((0, 0), (0, 0)))
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
        x_shape, kernel_shape = (atom.aval.shape for atom in equation.invars)
        y_shape = equation.outvars[0].aval.shape
        if not x.is_wide:  # of an image, only the output counts: regrouping it costs more
            x_shape = y_shape
        # Before its channels are moved, which a TPU does in the same pass for an image.
        x = x._replace(array=keep_finite(x.array))
        x = x.with_groups(image_groups(x_shape, kernel_shape, y_shape, x.size))
        kernels = jnp.tile(kernel.stacked(), (x.groups, 1, 1, 1, 1))
        return x.with_wide(block_conv(x.array, kernels, strides, padding))
    # Groups of channels do not mix, nor do members: they are M times as many groups.
    x = x.with_groups(x.groups)
    params = {**params, "feature_group_count": groups * x.blocks}
    kernels = jnp.tile(kernel.wide(), x.groups)
    return x.with_wide(equation.primitive.bind(x.array, kernels, **params))


def image_groups(x: Sequence[int], kernel: Sequence[int], y: Sequence[int], size: int) -> int:
    """The number of groups of images with which a convolution moves the fewest bytes.

    x, kernel, y: the shapes of one of `size` members. More groups fill more of the lanes, but have
    larger block-diagonal kernels.
    """

    def elements(groups: int) -> int:
        inputs, outputs = (-(-groups * size * shape[-1] // LANES) * LANES for shape in (x, y))
        images = math.prod(x[:-1]) * inputs + math.prod(y[:-1]) * outputs
        return images // groups + math.prod(kernel[:-1]) * groups * size * outputs

    max_groups = min(x[0] // MIN_IMAGES, -(-LANES // (size * min(x[-1], y[-1]))))
    divisors = (groups for groups in range(1, max_groups + 1) if x[0] % groups == 0)
    return min(divisors, key=elements, default=1)


def same_forms(equation: Any, inputs: Sequence[Value]) -> Results:
    """Sums over devices, of each array."""
    results = equation.primitive.bind(*(value.array for value in inputs), **equation.params)
    results = results if equation.primitive.multiple_results else [results]
    return [v._replace(array=array) for v, array in zip(inputs, results, strict=True)]


def channelwise(function: Callable[..., Array]) -> Rule:
    """The rule of a function that does not mix channels."""

    def rule(equation: Any, inputs: Sequence[Value]) -> Results:
        wide = _most_groups(inputs)
        if wide is None:
            return None
        return wide.with_wide(function(*(value.wide(wide.groups) for value in inputs)))

    return rule


def _most_groups(inputs: Sequence[Value]) -> Value | None:
    """The wide value with the most groups of images, if any."""
    return max((v for v in inputs if v.is_wide), key=lambda v: v.groups, default=None)


def _per_group(value: Value, is_apart: bool) -> Value:
    """The value without groups, unless an operation treats images apart."""
    return value if is_apart or value.groups == 1 else value.with_groups(1)


def _shape_of_group(value: Value, shape: Sequence[int]) -> tuple[int, ...]:
    """A shape [B, ..] as [B / G, ..]."""
    return shape[0] // value.groups, *shape[1:]


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
    "squeeze": of_axes,
    "transpose": transpose,
    "rev": of_axes,
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
    "spatial_max": channelwise(pooling.spatial_max),
}
