"""Boxes relative to anchors: the box coder of R-CNN (arXiv 1311.2524, appendix C).

With torchvision's conventions: the deltas are multiplied by weights, and decoding limits the growth
of the size, but not its decrease.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

from tinyjax.detectors.boxes import center_size

MAX_LOG_GROWTH = math.log(1000 / 16)  # of the size from anchor to box
UNIT_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


def encode(boxes: Array, anchors: Array, weights: Sequence[float] = UNIT_WEIGHTS) -> Array:
    """Encode boxes relative to anchors.

    Args:
        boxes, anchors: broadcast [..., 4] xyxy pixels; anchors have positive sizes.
        weights: factors on dx, dy, dw and dh.

    Returns:
        [..., 4]: displacement of the center in sizes of the anchor, and log ratio of the sizes.
        They are finite for empty boxes, too.
    """
    (center, size), (anchor_center, anchor_size) = center_size(boxes), center_size(anchors)
    shift = (center - anchor_center) / anchor_size
    growth = jnp.log(jnp.maximum(size, 1e-2) / anchor_size)
    return jnp.concatenate([shift, growth], -1) * jnp.asarray(weights, shift.dtype)


def decode(deltas: Array, anchors: Array, weights: Sequence[float] = UNIT_WEIGHTS) -> Array:
    """Invert `encode`: deltas [..., 4] -> xyxy boxes [..., 4], at most 62.5 anchors wide or high.

    The boxes are not clipped.
    """
    deltas = deltas / jnp.asarray(weights, deltas.dtype)
    anchor_center, anchor_size = center_size(anchors)
    center = anchor_center + deltas[..., :2] * anchor_size
    half = jnp.exp(jnp.minimum(deltas[..., 2:], MAX_LOG_GROWTH)) * anchor_size / 2
    return jnp.concatenate([center - half, center + half], -1)


def clip(boxes: Array, image_size: tuple[int, int]) -> Array:
    """Clip xyxy boxes [..., 4] to an image of (height, width) pixels."""
    height, width = image_size
    return jnp.clip(boxes, 0, jnp.asarray([width, height, width, height], boxes.dtype))
