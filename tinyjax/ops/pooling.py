"""Pooling with the conventions of torch."""

from functools import reduce

import jax
import jax.numpy as jnp
from jax import Array

from tinyjax.ops.conv import shifted_taps, sum_of_taps

SIZE, STRIDE = 3, 2  # of the windows of `max_pool`


@jax.custom_vjp
def max_pool(x: Array) -> Array:
    """Maximum over windows of 3 x 3 with stride 2: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C].

    As in torch with padding 1: outside of the image there is -inf, and the first of several equal
    values of a window receives the gradient. Elementwise maxima of shifted slices: on CPU, XLA's
    reduce_window and the scatter of its gradient are several times slower.
    """
    height, width = (-(-side // STRIDE) for side in x.shape[1:3])
    padded = _pad(x, -jnp.inf)
    rows = [padded[:, i : i + (height - 1) * STRIDE + 1 : STRIDE] for i in range(SIZE)]
    tallest = reduce(jnp.maximum, rows)
    columns = [tallest[:, :, i : i + (width - 1) * STRIDE + 1 : STRIDE] for i in range(SIZE)]
    return reduce(jnp.maximum, columns)


def _max_pool_fwd(x):
    y = max_pool(x)
    return y, (x, y)


def _max_pool_bwd(residuals, dy):
    """Half the time of the maxima's autodiff, which pads and adds once per slice."""
    x, y = residuals
    _, height, width, _ = y.shape
    taps = [*shifted_taps(_pad(x, -jnp.inf), SIZE, STRIDE, height, width)]
    first = jnp.full(y.shape, len(taps), jnp.uint8)  # tap of the first maximum of each window
    for t, tap in reversed([*enumerate(taps)]):
        first = jnp.where(tap == y, jnp.uint8(t), first)
    first, dy = _pad(first, len(taps)), _pad(dy, 0)

    def tap_grad(i, j, window):
        return jnp.where(first[window] == i * SIZE + j, dy[window], 0)

    return (sum_of_taps(tap_grad, SIZE, STRIDE, x.shape, y.shape),)


max_pool.defvjp(_max_pool_fwd, _max_pool_bwd)


def _pad(x, value):
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=value)


@jax.jit  # a call that exports know by its name
def max_pool_2x2(x: Array) -> Array:
    """Maximum over windows of 2 x 2: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C].

    As torch's `max_pool2d` with `ceil_mode`; the first of several equal values of a window receives
    the gradient. Not `jnp.max`: its gradient divides by the number of values equal to the maximum.
    Where XLA computes the values again with another rounding, this number is 0 and the gradient
    NaN.
    """
    windows = _split_windows(x)  # b h i w j c
    rows = larger(windows[:, :, :, :, 0], windows[:, :, :, :, 1])
    return larger(rows[:, :, 0], rows[:, :, 1])


@jax.custom_jvp
def larger(a, b):
    """The larger of two values, the first of two equal ones: the maximum, except in gradients."""
    return jnp.maximum(a, b)


@larger.defjvp
def _larger_jvp(primals, tangents):
    (a, b), (da, db) = primals, tangents
    return jnp.maximum(a, b), jnp.where((a >= b) | jnp.isnan(a), da, db)


@jax.custom_jvp
def spatial_max(x: Array) -> Array:
    """Maximum over each map: [B, H, W, C] -> [B, 1, 1, C].

    The first of several equal values receives the gradient. Not that of `jnp.max`, see
    `max_pool_2x2`.
    """
    return x.max((1, 2), keepdims=True)


@spatial_max.defjvp
def _spatial_max_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    b, h, w, c = x.shape
    x, dx = (array.reshape(b, h * w, c) for array in (x, dx))  # b h w c -> b (h w) c
    is_first = jnp.arange(h * w)[:, None] == jnp.argmax(x, 1)[:, None]
    largest = spatial_max(x[:, None])
    return largest, jnp.where(is_first, dx, 0).sum(1)[:, None, None]


@jax.jit  # a call that exports know by its name
def mean_pool_2x2(x: Array) -> Array:
    """Mean over windows of 2 x 2: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C].

    As torch's `avg_pool2d` with `ceil_mode`: a window at the border of an odd side has fewer
    pixels.
    """
    return _split_windows(x).mean((2, 4))


def _split_windows(x):
    """b (h 2) (w 2) c -> b h 2 w 2 c."""
    b, h, w, c = x.shape
    # A repeated last row or column changes neither the maximum nor the mean of its window.
    x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")
    return x.reshape(b, -(-h // 2), 2, -(-w // 2), 2, c)
