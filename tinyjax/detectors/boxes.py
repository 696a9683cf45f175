"""Boxes: `xyxy` in pixels of the network's input, float32. Pixel i covers [i, i + 1), so a cell of
stride s at index i is centerd on (i + 1/2) s. Every function guards its divisions: a padding box is
a point, never a NaN.
"""

import jax.numpy as jnp
from jax import Array

EPS = 1e-9
LOG_SIZE = (
    4.0  # sizes are decoded within stride * exp(+-4), far outside any object a level is given
)


def center_size(boxes: Array) -> tuple[Array, Array]:
    """xyxy [..., 4] -> center (x, y) [..., 2] and size (w, h) [..., 2], size floored at 0."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) / 2, jnp.maximum(high - low, 0)


def encode(boxes: Array, cells: Array, strides: Array) -> Array:
    """xyxy boxes as offsets from cells: center displacement in strides, log of the size in strides.

    Unlike four distances to the sides this reaches cells that lie outside the box, as most cells
    near a 5-pixel person do.

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
    """[..., 4] -> [...] in square pixels."""
    size = center_size(boxes)[1]
    return size[..., 0] * size[..., 1]


def intersection(a: Array, b: Array) -> Array:
    """Overlap of broadcast boxes [..., 4] and [..., 4] -> [...] in square pixels."""
    size = jnp.minimum(a[..., 2:], b[..., 2:]) - jnp.maximum(a[..., :2], b[..., :2])
    size = jnp.maximum(size, 0)
    return size[..., 0] * size[..., 1]


def iou(a: Array, b: Array) -> Array:
    """Intersection over union of broadcast boxes [..., 4] and [..., 4] -> [...] in [0, 1]."""
    overlap = intersection(a, b)
    return overlap / jnp.maximum(area(a) + area(b) - overlap, EPS)


def diou(a: Array, b: Array) -> Array:
    """IoU less the squared center distance over the squared diagonal of the hull (arXiv 1911.08287,
    eq. 7).

    Unlike IoU alone it still pulls a box that has slipped off its 5-pixel object; unlike CIoU it
    has no term whose gradient grows as 1 / size^2. [..., 4], [..., 4] -> [...] in (-1, 1].
    """
    distance = ((center_size(a)[0] - center_size(b)[0]) ** 2).sum(-1)
    hull = jnp.maximum(a[..., 2:], b[..., 2:]) - jnp.minimum(a[..., :2], b[..., :2])
    return iou(a, b) - distance / jnp.maximum((hull**2).sum(-1), EPS)


def wasserstein_similarity(a: Array, b: Array, scale: float = 12.8) -> Array:
    """exp(-W2 / scale) of the boxes' Gaussians (arXiv 2110.13389, eq. 7): ranks candidates that do
    not overlap.

    [..., 4], [..., 4] -> [...] in (0, 1]; `scale` in pixels, the typical object size.
    """
    (ca, sa), (cb, sb) = center_size(a), center_size(b)
    squared = ((ca - cb) ** 2).sum(-1) + ((sa - sb) ** 2).sum(-1) / 4
    return jnp.exp(-jnp.sqrt(squared + EPS) / scale)
