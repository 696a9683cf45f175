"""Boxes: `xyxy` in pixels of the network's input, float32.

Pixel i covers [i, i + 1), so the cell at index i of a level of stride s has its center at
(i + 1/2) s. All divisions are guarded: padding boxes are points and give finite values.
"""

import jax.numpy as jnp
from jax import Array

EPS = 1e-9
LOG_SIZE = 4.0  # decoded sizes are within stride * exp(+-4), beyond the objects of any level


def center_size(boxes: Array) -> tuple[Array, Array]:
    """xyxy [..., 4] -> center (x, y) [..., 2] and size (w, h) [..., 2], which is at least 0."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, jnp.maximum(high - low, 0)


def encode(boxes: Array, cells: Array, strides: Array) -> Array:
    """Encode xyxy boxes as offsets from cells: the center's displacement in strides, and the
    logarithm of the size in strides.

    Unlike distances to the four sides, this encoding works for cells outside the box, as are most
    cells near a 5-pixel person.

    Args:
        boxes: [..., 4] pixels.
        cells: [..., 2] cell centers (x, y), pixels.
        strides: [...] pixels per cell.

    Returns:
        [..., 4] (dx, dy, log w, log h).
    """
    center, size = center_size(boxes)
    strides = strides[..., None]
    return jnp.concatenate(
        [(center - cells) / strides, jnp.log(jnp.maximum(size, 1e-2) / strides)], -1
    )


def decode(offsets: Array, cells: Array, strides: Array) -> Array:
    """The inverse of `encode`: [..., 4] offsets -> [..., 4] xyxy boxes in pixels."""
    strides = strides[..., None]
    center = cells + offsets[..., :2] * strides
    half = jnp.exp(jnp.clip(offsets[..., 2:], -LOG_SIZE, LOG_SIZE)) * strides / 2
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
    """Distance-IoU of boxes [..., 4] and [..., 4] -> [...] in (-1, 1] (arXiv 1911.08287, eq. 7):
    IoU minus the squared center distance over the squared diagonal of the enclosing box.

    Unlike IoU it has a gradient for a box that does not overlap its 5-pixel object; unlike CIoU it
    has no term whose gradient grows as 1 / size^2.
    """
    distance = ((center_size(a)[0] - center_size(b)[0]) ** 2).sum(-1)
    enclosing = jnp.maximum(a[..., 2:], b[..., 2:]) - jnp.minimum(a[..., :2], b[..., :2])
    return iou(a, b) - distance / jnp.maximum((enclosing**2).sum(-1), EPS)


def wasserstein_similarity(a: Array, b: Array, scale: float = 12.8) -> Array:
    """exp(-W2 / scale) of the Gaussians of boxes [..., 4] and [..., 4] -> [...] in (0, 1]
    (arXiv 2110.13389, eq. 7). It also ranks boxes that do not overlap.

    scale: typical object size in pixels.
    """
    (center_a, size_a), (center_b, size_b) = center_size(a), center_size(b)
    squared = ((center_a - center_b) ** 2).sum(-1) + ((size_a - size_b) ** 2).sum(-1) / 4
    return jnp.exp(-jnp.sqrt(squared + EPS) / scale)
