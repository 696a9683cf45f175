"""Anchors: boxes of fixed shapes on a grid, xyxy in pixels of the network's input.

They are numpy arrays, so they are constants in compiled programs. The order is: levels, finest
first; cells, row by row; anchors of a cell.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from tinyjax.errors import UserError

# (width, height, n): a shape in pixels, with n x n evenly spaced centers per cell
Anchor = tuple[float, float, int]


def make_anchors(
    height: int, width: int, strides: Sequence[int], anchors: Sequence[Sequence[Anchor]]
) -> np.ndarray:
    """Return the anchors of all levels for an input of `height` x `width` pixels.

    A level of stride s has ceil(height / s) x ceil(width / s) cells. With n = 1, the center is the
    center of the cell. With n = 2, the spacing of the centers is s / 2: a 5 x 10 object that is 2
    pixels off on both axes has an IoU of 0.34 with a perfect anchor, so one center per cell of
    stride 4 is not enough for it (densification, FaceBoxes, arXiv 1708.05234, section 3.2).

    anchors: for each level, the anchors of a cell. The n x n anchors of a shape are consecutive,
    row by row.

    Returns:
        float32 [N, 4].
    """
    levels = []
    for stride, level_anchors in zip(strides, anchors, strict=True):
        grid = -(-height // stride), -(-width // stride)
        cell = [_centered_boxes(stride, *anchor) for anchor in level_anchors]
        levels.append(_repeat_over_cells(np.concatenate(cell), grid, (stride, stride)))
    return np.concatenate(levels).astype(np.float32)


def count_anchors(level_anchors: Sequence[Anchor]) -> int:
    """Return the number of anchors per cell of a level."""
    return sum(n * n for _, _, n in level_anchors)


def make_levels(
    height: int, width: int, strides: Sequence[int], anchors: Sequence[Sequence[Anchor]]
) -> np.ndarray:
    """Return the level of each anchor of `make_anchors`: int32 [N], 0 for the finest."""
    levels = [
        np.full(-(-height // stride) * -(-width // stride) * count_anchors(level_anchors), level)
        for level, (stride, level_anchors) in enumerate(zip(strides, anchors, strict=True))
    ]
    return np.concatenate(levels).astype(np.int32)


def configured_anchors(config: ConfigDict) -> tuple[tuple[Anchor, ...], ...]:
    """Return `model.anchors` as tuples.

    Raises UserError unless there are valid anchors for each of `model.strides`.
    """
    anchors = tuple(tuple(map(tuple, level)) for level in config.model.anchors)
    if len(anchors) != len(config.model.strides) or not all(anchors):
        raise UserError(
            f"model.anchors: {len(anchors)} levels for model.strides = "
            f"{tuple(config.model.strides)}; give a tuple of anchors for each stride"
        )
    for anchor in (anchor for level in anchors for anchor in level):
        if len(anchor) != 3 or min(anchor) <= 0 or anchor[2] != int(anchor[2]):
            raise UserError(
                f"model.anchors: {anchor}: give (width, height, n), with positive sizes in pixels "
                "and n x n centers per cell"
            )
    return anchors


def all_anchors(config: ConfigDict, image_size: tuple[int, int]) -> Array:
    """Return the anchors of all levels, `make_anchors` of a config: float32 [N, 4]."""
    return jnp.asarray(make_anchors(*image_size, config.model.strides, configured_anchors(config)))


def make_shapes(sizes: Sequence[float], aspect_ratios: Sequence[float]) -> np.ndarray:
    """Return the shapes (w, h) of area size^2 and h / w = ratio: float32 [ratios * sizes, 2].

    The order is torchvision's: the size varies fastest.
    """
    root = np.sqrt(np.asarray(aspect_ratios, np.float32))[:, None]
    size = np.asarray(sizes, np.float32)
    return np.stack([1 / root * size, root * size], -1).reshape(-1, 2)


def make_torchvision_anchors(
    image_size: tuple[int, int],
    level_shapes: Sequence[tuple[int, int]],
    sizes: Sequence[Sequence[float]],
    aspect_ratios: Sequence[float],
) -> np.ndarray:
    """Return the anchors of torchvision's `AnchorGenerator`, for its published weights.

    They differ from `make_anchors`: centers are at index * stride, without half a cell; the stride
    of an axis is the integer quotient of the image's and the level's size; and corners are rounded
    half to even relative to the center, so all sides are even.

    Args:
        image_size: (height, width) of the padded batch, pixels.
        level_shapes: (h, w) of each level.
        sizes: of each level, pixels.
        aspect_ratios: h / w, for all levels.

    Returns:
        float32 [N, 4].
    """
    levels = []
    for (h, w), level_sizes in zip(level_shapes, sizes, strict=True):
        shapes = make_shapes(level_sizes, aspect_ratios)
        cell = np.round(np.concatenate([-shapes, shapes], 1) / 2)
        levels.append(_repeat_over_cells(cell, (h, w), (image_size[0] // h, image_size[1] // w)))
    return np.concatenate(levels).astype(np.float32)


def _centered_boxes(stride: int, width: float, height: float, n: int) -> np.ndarray:
    """Boxes [n * n, 4] in a cell with its corner at the origin."""
    y, x = np.mgrid[:n, :n]
    center = (np.stack([x, y], -1).reshape(-1, 2) + 0.5) * (stride / n)
    half = np.array([width, height]) / 2
    return np.concatenate([center - half, center + half], 1)


def _repeat_over_cells(
    cell: np.ndarray, grid: tuple[int, int], strides: tuple[int, int]
) -> np.ndarray:
    """The boxes [A, 4] of the first cell, repeated over a grid (h, w): [h * w * A, 4]."""
    y, x = np.mgrid[: grid[0], : grid[1]]
    shift = np.stack([x * strides[1], y * strides[0]] * 2, -1)  # [h, w, 4]
    return (shift[:, :, None] + cell).reshape(-1, 4)
