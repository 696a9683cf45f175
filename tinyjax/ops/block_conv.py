"""Convolutions of several members at once, whose channels lie side by side: x [B, H, W, M C].

The kernel is block-diagonal: [k, k, M C, M D], zero between members. M times the products are with
zeros, but on a TPU the small kernels of one member fill a fraction of the matrix unit, and
the bytes of x, of which a tile has no padding, bound the time (docs/performance.md).
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

Padding = Sequence[tuple[int, int]]
LANES = 128  # to which a TPU pads the last axis of an array


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def block_conv(x: Array, kernel: Array, strides: tuple[int, int], padding: Padding) -> Array:
    """Convolve the channels of each member with its kernel.

    Args:
        x: [B, H, W, M C], finite (see `keep_finite`).
        kernel: [M, k, k, C, D], the same dtype as `x`.
        strides, padding: as in `lax.conv_general_dilated`.

    Returns:
        [B, h, w, M D]. A kernel or a gradient of a member that is not finite does not change the
        results of others.
    """
    return _conv(x, block_diagonal(kernel), strides, padding)


def _conv(x, kernel, strides, padding):
    if strides[0] > 1 and strides[0] * x.shape[3] <= LANES:
        x, kernel, padding = fold_rows(x, kernel, strides[0], padding)
        strides = 1, strides[1]
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=dimensions)


def _block_conv_fwd(x, kernel, strides, padding):
    return block_conv(x, kernel, strides, padding), (x, kernel)


def _block_conv_bwd(strides, padding, residuals, dy):
    x, kernel = residuals
    diagonal = block_diagonal(kernel)
    conv = partial(_conv, strides=strides, padding=padding)
    (dx,) = jax.vjp(lambda x: conv(x, diagonal), x)[1](keep_finite(dy))
    # Gradients between members are dropped, so that dy need not be finite.
    (products,) = jax.vjp(lambda kernel: conv(x, kernel), diagonal)[1](dy)
    m, k, _, c, d = kernel.shape
    products = products.reshape(k, k, m, c, m, d)
    # Slices: a TPU moves twice the bytes for the gather of `jnp.diagonal`.
    return dx, jnp.stack([products[:, :, i, :, i] for i in range(m)])


block_conv.defvjp(_block_conv_fwd, _block_conv_bwd)


def block_diagonal(kernel: Array) -> Array:
    """[M, k, k, C, D] -> [k, k, M C, M D], zero between members."""
    m, k, _, c, d = kernel.shape
    same_member = jnp.eye(m, dtype=bool)[:, None, :, None]
    kernel = jnp.moveaxis(kernel, 0, 2)[:, :, :, :, None]  # m k k c d -> k k m c 1 d
    return jnp.where(same_member, kernel, 0).reshape(k, k, m * c, m * d)


def fold_rows(
    x: Array, kernel: Array, stride: int, padding: Padding
) -> tuple[Array, Array, Padding]:
    """An equal convolution without stride over the rows, of blocks of s rows as channels.

    The blocks of an image fill more of the lanes. The same for columns does not pay on a TPU, which
    would have to move them between lanes.

    Args:
        x: [B, H, W, C]. kernel: [k, l, C, D]. stride: s, of the rows. padding: of rows and columns.

    Returns:
        x [B, ceil(H / s), W, s C], a kernel [.., l, s C, D], and the padding of blocks and columns.
    """
    (b, height, width, c), (k, columns, _, d) = x.shape, kernel.shape
    before, after = padding[0]
    outputs = (before + height + after - k) // stride + 1
    lead = -before % stride  # rows of zeros, so that the first output starts with a block
    kernel = jnp.pad(kernel, ((lead, -(lead + k) % stride), *[(0, 0)] * 3))
    kernel = kernel.reshape(-1, stride, columns, c, d).swapaxes(1, 2)  # i s l c d -> i l s c d
    kernel = kernel.reshape(-1, columns, stride * c, d)
    x = jnp.pad(x, ((0, 0), (0, -height % stride), (0, 0), (0, 0)))
    x = x.reshape(b, -1, stride, width, c).swapaxes(2, 3)  # b h s w c -> b h w s c
    x = x.reshape(b, -1, width, stride * c)
    before = (before + lead) // stride
    after = outputs - 1 + len(kernel) - before - x.shape[1]
    return x, kernel, ((before, after), padding[1])


@jax.custom_jvp
def keep_finite(x: Array) -> Array:
    """x with the largest number of its dtype in the place of nan, inf and -inf; its gradient is 1.

    0 times nan is nan: a member that diverges would otherwise change all others. Its own values
    stay far from finite results, so that the step still finds it (see `step.make_step`).
    """
    return jnp.where(jnp.isfinite(x), x, jnp.finfo(x.dtype).max)


@keep_finite.defjvp
def _keep_finite_jvp(primals, tangents):
    return keep_finite(*primals), tangents[0]
