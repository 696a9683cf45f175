"""Boxes: `xyxy` in pixels of the network's input, float32.

Pixel i covers [i, i + 1), so in a level of stride s the center of cell i is at (i + 1/2) s. All
divisions are guarded, because padding boxes have size 0.
"""

import jax.numpy as jnp
from jax import Array

EPS = 1e-9
MAX_LOG_SIZE = 4.0  # sizes are decoded to stride * exp(-4..4), a wider range than any level needs


def center_size(boxes: Array) -> tuple[Array, Array]:
    """xyxy [..., 4] -> center (x, y) [..., 2] and size (w, h) [..., 2], clipped at 0."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, jnp.maximum(high - low, 0)


def encode(boxes: Array, cell_centers: Array, strides: Array) -> Array:
    """Encode xyxy boxes as offsets from cells: displacement of the center, and log of the size,
    both in strides.

    Unlike distances to the four sides, this encoding works for cells outside the box: near a
    5-pixel person, most cells are outside.

    Args:
        boxes: [..., 4] pixels.
        cell_centers: [..., 2] (x, y), pixels.
        strides: [...] pixels per cell.

    Returns:
        [..., 4] (dx, dy, log w, log h).
    """
    center, size = center_size(boxes)
    strides = strides[..., None]
    return jnp.concatenate(
        [(center - cell_centers) / strides, jnp.log(jnp.maximum(size, 1e-2) / strides)], -1
    )


def decode(offsets: Array, cell_centers: Array, strides: Array) -> Array:
    """Invert `encode`: [..., 4] offsets -> [..., 4] xyxy boxes in pixels."""
    strides = strides[..., None]
    center = cell_centers + offsets[..., :2] * strides
    half = jnp.exp(jnp.clip(offsets[..., 2:], -MAX_LOG_SIZE, MAX_LOG_SIZE)) * strides / 2
    return jnp.concatenate([center - half, center + half], -1)


def area(boxes: Array) -> Array:
    """Area of boxes [..., 4] -> [...] in square pixels."""
    size = center_size(boxes)[1]
    return size[..., 0] * size[..., 1]


def intersection(a: Array, b: Array) -> Array:
    """Intersection of broadcast boxes [..., 4] and [..., 4] -> [...] in square pixels."""
    size = jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2])
    size = jnp.maximum(size, 0)
    return size[..., 0] * size[..., 1]


def iou(a: Array, b: Array) -> Array:
    """Intersection over union of broadcast boxes [..., 4] and [..., 4] -> [...] in [0, 1]."""
    shared = intersection(a, b)
    return shared / jnp.maximum(area(a) + area(b) - shared, EPS)


def diou(a: Array, b: Array) -> Array:
    """Distance-IoU of boxes [..., 4] and [..., 4] -> [...] in (-1, 1] (arXiv 1911.08287, eq. 7).

    It is IoU - (center distance)^2 / (diagonal of the enclosing box)^2. Unlike IoU, it has a
    gradient for boxes that do not overlap, which is common for 5-pixel objects; unlike CIoU, it has
    no term whose gradient grows as 1 / size^2.
    """
    squared_distance = ((center_size(a)[0] - center_size(b)[0]) ** 2).sum(-1)
    enclosing = jnp.maximum(a[..., 2:], b[..., 2:]) - jnp.minimum(a[..., :2], b[..., :2])
    return iou(a, b) - squared_distance / jnp.maximum((enclosing**2).sum(-1), EPS)


def wasserstein_similarity(a: Array, b: Array, scale: float = 12.8) -> Array:
    """Normalized Wasserstein distance of boxes [..., 4] and [..., 4] -> [...] in (0, 1].

    It is exp(-W2 / scale), with the 2-Wasserstein distance W2 of the boxes as Gaussians (arXiv
    2110.13389, eq. 7). It also ranks boxes that do not overlap.

    scale: typical object size in pixels.
    """
    (center_a, size_a), (center_b, size_b) = center_size(a), center_size(b)
    squared = ((center_a - center_b) ** 2).sum(-1) + ((size_a - size_b) ** 2).sum(-1) / 4
    return jnp.exp(-jnp.sqrt(squared + EPS) / scale)
