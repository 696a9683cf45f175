"""Pooling with the conventions of torch."""

from functools import reduce

import jax.numpy as jnp
from jax import Array


def max_pool(x: Array, size: int = 3, stride: int = 2) -> Array:
    """Maximum over windows of size x size: [B, H, W, C] -> [B, ceil(H/stride), ceil(W/stride), C].

    As in torch with padding (size - 1) // 2 of -inf and `ceil_mode`. Elementwise maxima of shifted
    slices: on CPU, XLA's reduce_window and the scatter of its gradient are several times slower.
    Where several values of a window are equal, they share the gradient; torch gives it to the
    first.
    """
    border = (size - 1) // 2, size // 2
    height, width = (-(-side // stride) for side in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), border, border, (0, 0)), constant_values=-jnp.inf)

    rows = [padded[:, i : i + (height - 1) * stride + 1 : stride] for i in range(size)]
    tallest = reduce(jnp.maximum, rows)
    columns = [tallest[:, :, i : i + (width - 1) * stride + 1 : stride] for i in range(size)]
    return reduce(jnp.maximum, columns)


def mean_pool(x: Array) -> Array:
    """Mean over windows of 2 x 2: [B, H, W, C] -> [B, ceil(H/2), ceil(W/2), C].

    As torch's `avg_pool2d` with `ceil_mode`: a window at the border of an odd side has fewer
    pixels.
    """
    b, h, w, c = x.shape
    # A repeated last row or column does not change the mean of its window.
    x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), mode="edge")
    return x.reshape(b, -(-h // 2), 2, -(-w // 2), 2, c).mean((2, 4))  # b (h 2) (w 2) c -> b h w c
