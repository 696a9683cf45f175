"""Pooling with the conventions of torch."""

from functools import reduce

import jax.numpy as jnp
from jax import Array


def max_pool(x: Array, size: int = 3, stride: int = 2) -> Array:
    """Maximum over windows of size x size: [B, H, W, C] -> [B, ceil(H/stride), ceil(W/stride), C].

    As in torch, with padding size // 2 of -inf. Elementwise maxima of shifted slices: on CPU, XLA's
    reduce_window and the scatter of its gradient are several times slower. Where several values
    of a window are equal, they share the gradient; torch gives it to the first.
    """
    half = size // 2
    height, width = (-(-side // stride) for side in x.shape[1:3])
    padding = ((0, 0), (half, half), (half, half), (0, 0))
    padded = jnp.pad(x, padding, constant_values=-jnp.inf)

    rows = [padded[:, i : i + (height - 1) * stride + 1 : stride] for i in range(size)]
    tallest = reduce(jnp.maximum, rows)
    columns = [tallest[:, :, i : i + (width - 1) * stride + 1 : stride] for i in range(size)]
    return reduce(jnp.maximum, columns)
