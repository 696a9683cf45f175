"""Anchors: boxes of fixed shapes on a grid, xyxy in pixels of the network's input.

They are numpy arrays, so they are constants in compiled programs. The order is: levels, finest
first; cells, row by row; anchors of a cell.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from tinyjax.config.detectors import SMALL_ANCHORS
from tinyjax.errors import UserError, suggest

# (width, height, n): a shape in pixels, with n x n evenly spaced centers per cell
Anchor = tuple[float, float, int]

# Names that stand for anchors in a config, see `make_levels`
PRESETS = ("small", "torchvision", "torchvision_rpn", "torchvision_mobilenet", "detectron2")
ASPECT_RATIOS = (0.5, 1.0, 2.0)  # h / w, of the detectors in torchvision and detectron2


class AnchorLevel(NamedTuple):
    """The anchors of a level: those of the first cell, repeated over a grid of cells."""

    cell: np.ndarray  # float [A, 4], anchors of the cell at the image's upper left corner
    grid: tuple[int, int]  # number of cells (h, w)
    strides: tuple[int, int]  # (vertical, horizontal), pixels


def make_levels(
    image_size: tuple[int, int], strides: Sequence[int], anchors: Sequence[Any]
) -> list[AnchorLevel]:
    """Return the anchors that a config describes, for an input of (height, width) pixels.

    A level of stride s has ceil(height / s) x ceil(width / s) cells.

    anchors: for each stride, the anchors of a cell, see `make_anchors`; or the name of a preset, as
        a tuple: ("small",) is `SMALL_ANCHORS`, for strides 4 and 8; ("torchvision",) and
        ("detectron2",) are RetinaNet's anchors in these libraries, with sizes of 4 s 2^(k/3) for k
        = 0, 1, 2 and three aspect ratios. Theirs have strides of 8 to 128, but other strides can be
        given. ("torchvision_rpn",) and ("torchvision_mobilenet",) are those of Faster R-CNN: with
        the size 8 s, for strides of 4 to 64, and with five sizes at each stride.

    Raises UserError for an unknown preset and invalid anchors.
    """
    preset = _preset_name(anchors)
    if preset and preset != "small":
        level_shapes = [_grid(image_size, stride) for stride in strides]
        sizes = [_preset_sizes(preset, stride) for stride in strides]
        if preset == "detectron2":
            return _detectron2_levels(level_shapes, strides, sizes, ASPECT_RATIOS)
        return _torchvision_levels(image_size, level_shapes, sizes, ASPECT_RATIOS)
    explicit = SMALL_ANCHORS if preset else anchors
    _check_anchors(explicit, strides)
    return [
        AnchorLevel(
            np.concatenate([_centered_boxes(stride, *anchor) for anchor in level_anchors]),
            _grid(image_size, stride),
            (stride, stride),
        )
        for stride, level_anchors in zip(strides, explicit, strict=True)
    ]


def configured_levels(config: ConfigDict, image_size: tuple[int, int]) -> list[AnchorLevel]:
    """Return the anchors of `config.model` for an input of (height, width) pixels. Raises
    UserError as `make_levels` does.
    """
    return make_levels(image_size, config.model.strides, config.model.anchors)


def to_tuples(anchors: Any) -> Any:
    """Nested sequences as nested tuples, so that they are static data of a module."""
    return tuple(map(to_tuples, anchors)) if isinstance(anchors, tuple | list) else anchors


def level_sizes(levels: Sequence[AnchorLevel]) -> tuple[int, ...]:
    """Return the number of anchors of each level."""
    return tuple(len(level.cell) * math.prod(level.grid) for level in levels)


def all_boxes(levels: Sequence[AnchorLevel]) -> np.ndarray:
    """Return the anchors of all levels, float32 [N, 4]."""
    return np.concatenate([_repeat_over_cells(*level) for level in levels]).astype(np.float32)


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
    return all_boxes(make_levels((height, width), strides, anchors))


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
    return all_boxes(_torchvision_levels(image_size, level_shapes, sizes, aspect_ratios))


def _torchvision_levels(image_size, level_shapes, sizes, aspect_ratios) -> list[AnchorLevel]:
    """The levels of `make_torchvision_anchors`."""
    levels = []
    for (h, w), level_sizes in zip(level_shapes, sizes, strict=True):
        shapes = make_shapes(level_sizes, aspect_ratios)
        cell = np.round(np.concatenate([-shapes, shapes], 1) / 2)
        levels.append(AnchorLevel(cell, (h, w), (image_size[0] // h, image_size[1] // w)))
    return levels


def _detectron2_levels(level_shapes, strides, sizes, aspect_ratios) -> list[AnchorLevel]:
    """detectron2's anchors: centers at index * stride, and the aspect ratio varies fastest."""
    levels = []
    for grid, stride, level_sizes in zip(level_shapes, strides, sizes, strict=True):
        shapes = np.concatenate([make_shapes([size], aspect_ratios) for size in level_sizes])
        levels.append(AnchorLevel(np.concatenate([-shapes, shapes], 1) / 2, grid, (stride, stride)))
    return levels


def _preset_sizes(preset: str, stride: int) -> list[float]:
    if preset == "torchvision_mobilenet":
        return [32, 64, 128, 256, 512]
    if preset == "torchvision_rpn":
        return [8 * stride]
    sizes = [4 * stride * 2 ** (k / 3) for k in range(3)]
    return [int(size) for size in sizes] if preset == "torchvision" else sizes


def _preset_name(anchors: Sequence[Any]) -> str:
    """The name of the preset, or "" if the anchors are explicit."""
    names = [item for item in anchors if isinstance(item, str)]
    if not names:
        return ""
    if len(anchors) > 1 or names[0] not in PRESETS:
        raise UserError(
            f"model.anchors = {tuple(anchors)}: give anchors for each stride, or one name: "
            f"{suggest(names[0], PRESETS)}"
        )
    return names[0]


def _check_anchors(anchors: Sequence[Any], strides: Sequence[int]) -> None:
    if len(anchors) != len(strides) or not all(isinstance(a, tuple | list) and a for a in anchors):
        raise UserError(
            f"model.anchors: {len(anchors)} levels for model.strides = {tuple(strides)}; give a "
            "tuple of anchors for each stride, or a preset such as torchvision"
        )
    for anchor in (anchor for level in anchors for anchor in level):
        if not _is_anchor(anchor):
            raise UserError(
                f"model.anchors: {anchor}: give (width, height, n), with positive sizes in pixels "
                "and n x n centers per cell"
            )


def _is_anchor(anchor: Any) -> bool:
    return (
        isinstance(anchor, tuple | list)
        and len(anchor) == 3
        and all(isinstance(number, int | float) and number > 0 for number in anchor)
        and anchor[2] == int(anchor[2])
    )


def _grid(image_size: tuple[int, int], stride: int) -> tuple[int, int]:
    """The number of cells (h, w) of a level."""
    return -(-image_size[0] // stride), -(-image_size[1] // stride)


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
