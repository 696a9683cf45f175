"""Pooling of maps to vectors, [B, H, W, C] -> [B, C] in at least float32."""

import jax.numpy as jnp
from jax import Array

from tinyjax.models.layers import spatial_mean

GEM_POWER = 3
GEM_FLOOR = 1e-6


def gem(x: Array) -> Array:
    """Generalized mean with the power 3 (arXiv 1711.02512), as AGW (arXiv 2001.04193) uses it.

    Negative values count as 0, because hard-swish networks have them. A mean below the floor is
    exactly 0, with a gradient of 0, so that channels that are zero in a padded network stay zero.
    """
    x = jnp.maximum(x.astype(jnp.promote_types(x.dtype, jnp.float32)), 0)
    mean = (x**GEM_POWER).mean((1, 2))
    is_positive = mean > GEM_FLOOR**GEM_POWER
    return jnp.where(is_positive, jnp.cbrt(jnp.where(is_positive, mean, 1)), 0)


POOLINGS = {"mean": spatial_mean, "gem": gem}
