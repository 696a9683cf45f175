"""The pyramid level that each box is pooled from."""

import math

import jax.numpy as jnp
from jax import Array

from tinyjax.detectors.boxes import area

CANONICAL_SIZE, CANONICAL_LEVEL = 224, 4  # of ImageNet's images; the level of stride 2^4


def box_levels(
    boxes: Array,
    strides: tuple[int, ...],
    canonical_size: float = CANONICAL_SIZE,
    canonical_level: int = CANONICAL_LEVEL,
) -> Array:
    """Return the level of each box (arXiv 1612.03144, eq. 1, with torchvision's rounding).

    A box of `canonical_size`^2 pixels belongs to the stride 2^`canonical_level`. Half the size is
    one level finer. With the default, all boxes of less than 112 pixels belong to stride 4.

    Args:
        boxes: [..., 4] xyxy pixels.
        strides: consecutive powers of two, ascending.

    Returns:
        int32 [...], index into `strides`. An empty box belongs to the finest level.
    """
    log_size = jnp.log2(jnp.sqrt(area(boxes)) / canonical_size)
    level = jnp.floor(canonical_level + log_size + 1e-6) - math.log2(strides[0])
    return jnp.clip(level, 0, len(strides) - 1).astype(jnp.int32)
