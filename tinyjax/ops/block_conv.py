"""Convolutions of several members at once, whose channels lie side by side: x [B, H, W, M C].

The kernel is block-diagonal: [k, k, M C, M D], zero between members. M times the products are with
zeros, but on a TPU the small kernels of one member fill a fraction of the matrix unit, and
the bytes of x, of which a tile has no padding, bound the time (docs/performance.md).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

Padding = tuple[tuple[int, int], tuple[int, int]]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def block_conv(x: Array, kernel: Array, strides: tuple[int, int], padding: Padding) -> Array:
    """Convolve the channels of each member with its kernel.

    Args:
        x: [B, H, W, M C], float.
        kernel: [M, k, k, C, D], the same dtype as `x`.
        strides, padding: as in `lax.conv_general_dilated`.

    Returns:
        [B, h, w, M D]. A member with values that are not finite does not change those of others.
    """
    return _conv(keep_finite(x), block_diagonal(kernel), strides, padding)


def _conv(x, kernel, strides, padding):
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
    blocks = jnp.diagonal(products.reshape(k, k, m, c, m, d), axis1=2, axis2=4)
    return dx, jnp.moveaxis(blocks, -1, 0)  # k k c d m -> m k k c d


block_conv.defvjp(_block_conv_fwd, _block_conv_bwd)


def block_diagonal(kernel: Array) -> Array:
    """[M, k, k, C, D] -> [k, k, M C, M D], zero between members."""
    m, k, _, c, d = kernel.shape
    same_member = jnp.eye(m, dtype=bool)[:, None, :, None]
    kernel = jnp.moveaxis(kernel, 0, 2)[:, :, :, :, None]  # m k k c d -> k k m c 1 d
    return jnp.where(same_member, kernel, 0).reshape(k, k, m * c, m * d)


def keep_finite(x: Array) -> Array:
    """x with the largest number of its dtype in the place of nan, inf and -inf.

    0 times nan is nan: a member that diverges would otherwise change all others. Its own values
    stay far from finite results, so that the step still finds it (see `step.make_step`).
    """
    return jnp.where(jnp.isfinite(x), x, jnp.finfo(x.dtype).max)
