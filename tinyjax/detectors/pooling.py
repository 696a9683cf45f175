"""Pooling of RoIs, and the pyramid level that each one is pooled from."""

import math
from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

from tinyjax.detectors.boxes import area
from tinyjax.ops.roi_align import roi_align

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


def pool_rois(
    levels: Mapping[int, Array],
    rois: Array,
    size: int,
    canonical_size: float = 0,
    samples: int = 1,
    aligned: bool = True,
) -> Array:
    """Pool each RoI by RoIAlign.

    Args:
        levels: {stride: [B, h, w, D]}, consecutive strides.
        rois: [B, T, 4] xyxy pixels.
        size: bins per side, P.
        canonical_size: side in pixels of the RoIs that are pooled from stride 16, see `box_levels`;
            all RoIs are then pooled from all levels. 0: all RoIs are pooled from the finest level.
        samples, aligned: see `roi_align`.

    Returns:
        [B, T, P, P, D] in the dtype of the levels.
    """
    strides = tuple(sorted(levels))
    if not canonical_size:
        return roi_align(levels[strides[0]], rois, strides[0], size, samples, aligned)
    level = box_levels(rois, strides, canonical_size)[..., None, None, None]
    pooled = [
        jnp.where(level == i, roi_align(levels[stride], rois, stride, size, samples, aligned), 0)
        for i, stride in enumerate(strides)
    ]
    return sum(pooled[1:], pooled[0])
