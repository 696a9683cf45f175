"""How well anchors cover the objects of a data set, by class, without a matrix of IoUs.

An anchor of a cell is repeated on a grid, and on each axis the overlap with a box falls with the
distance of the centers. So the best of its copies is the nearest one, and those above an IoU are in
a window around the box.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tinyjax.data.records import DetectionSplit
from tinyjax.detectors.anchors import AnchorLevel

BLOCK = 128  # images whose anchors are assigned at once; bounds the memory


def class_reach(
    split: DetectionSplit,
    levels: Sequence[AnchorLevel],
    thresholds: Sequence[float] = (0.5, 0.4, 0.3),
) -> list[dict[str, Any]]:
    """Return the reach of anchors for all objects of a split, then for those of each class.

    levels: see `anchors.make_levels`, for the size of the split's images.

    Returns:
        Dicts with the keys "class" ("all" in the first one), "objects", their number, "reach", for
        each threshold the share of objects whose best anchor has at least this IoU, and
        "positives", the mean number of positive anchors per object at the first threshold, see
        `count_positives`. The last two are NaN for a class without objects.
    """
    images, _ = np.nonzero(split.valid)
    boxes, labels = split.boxes[split.valid], split.labels[split.valid]
    best = best_iou(boxes, levels)
    positives = count_positives(boxes, images, levels, thresholds[0])
    masks = [("all", np.ones(len(boxes), bool))]
    masks += [(name, labels == label) for label, name in enumerate(split.classes)]
    return [
        {
            "class": name,
            "objects": int(mask.sum()),
            "reach": tuple(_mean(best[mask] >= threshold) for threshold in thresholds),
            "positives": _mean(positives[mask]),
        }
        for name, mask in masks
    ]


def best_iou(boxes: np.ndarray, levels: Sequence[AnchorLevel]) -> np.ndarray:
    """Return the highest IoU of each box with an anchor: float64 [G].

    boxes: [G, 4] xyxy pixels.
    """
    boxes = np.asarray(boxes, np.float64)
    best = np.zeros(len(boxes))
    for anchor, counts, strides in _grids(levels):
        first, last = _centers(anchor), counts - 1
        cell = np.clip(np.round((_centers(boxes) - first) / strides), 0, last)
        best = np.maximum(best, _iou(boxes, anchor + np.tile(cell * strides, 2)))
    return best


def count_positives(
    boxes: np.ndarray, images: np.ndarray, levels: Sequence[AnchorLevel], threshold: float
) -> np.ndarray:
    """Return the number of positive anchors of each object: int64 [G].

    An anchor is positive for the object of its image with the highest IoU, the first of equal ones,
    if this is at least `threshold`: `anchor_matching.match` without `low_quality`.

    Args:
        boxes: [G, 4] xyxy pixels.
        images: int [G], the index of each object's image, ascending.
    """
    boxes = np.asarray(boxes, np.float64)
    count = np.zeros(len(boxes), np.int64)
    block_starts = np.searchsorted(images, np.arange(BLOCK, images.max(initial=0) + 1, BLOCK))
    for rows in np.split(np.arange(len(boxes)), block_starts):
        for anchor, counts, strides in _grids(levels):
            row, cell = _candidates(boxes[rows], anchor, counts, strides, threshold)
            row = rows[row]
            overlap = _iou(boxes[row], anchor + np.tile(cell * strides, 2))
            anchor_id = (images[row] * counts[1] + cell[:, 1]) * counts[0] + cell[:, 0]
            order = np.lexsort((row, -overlap, anchor_id))
            _, first = np.unique(anchor_id[order], return_index=True)
            assigned = order[first][overlap[order[first]] >= threshold]
            np.add.at(count, row[assigned], 1)
    return count


def _candidates(
    boxes: np.ndarray,
    anchor: np.ndarray,
    counts: np.ndarray,
    strides: np.ndarray,
    threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of boxes [P] and cells (x, y) [P, 2] that include all pairs with an IoU of at least
    `threshold`.

    Such a pair has an intersection of at least t / (1 + t) times the sum of the areas; divided by
    the largest possible overlap on one axis, it is the least overlap on the other.
    """
    sizes, size = _sizes(boxes), _sizes(anchor)
    intersection = (sizes.prod(-1) + size.prod()) * threshold / (1 + threshold)
    largest = np.minimum(sizes, size)  # overlap on each axis
    least = intersection[:, None] / largest[:, ::-1]
    distance = np.where(least <= largest, (sizes + size) / 2 - least, -1) + 1e-6
    offset = _centers(boxes) - _centers(anchor)
    start = np.maximum(np.ceil((offset - distance) / strides), 0).astype(np.int64)
    stop = np.minimum(np.floor((offset + distance) / strides) + 1, counts).astype(np.int64)
    width, height = np.maximum(stop - start, 0).T
    pairs = width * height
    row = np.repeat(np.arange(len(boxes)), pairs)
    index = np.arange(pairs.sum()) - np.repeat(pairs.cumsum() - pairs, pairs)
    return row, start[row] + np.stack([index % width[row], index // width[row]], -1)


def _grids(levels: Sequence[AnchorLevel]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Each anchor of a cell: its first box [4], and (x, y) numbers of cells and strides [2]."""
    for level in levels:
        for anchor in level.cell:
            yield anchor, np.array(level.grid[::-1]), np.array(level.strides[::-1])


def _iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of pairs of boxes [..., 4] that are not empty."""
    corners = (
        np.minimum(boxes[..., 2:], others[..., 2:]),
        np.maximum(boxes[..., :2], others[..., :2]),
    )
    intersection = np.maximum(corners[0] - corners[1], 0).prod(-1)
    areas = _sizes(boxes).prod(-1) + _sizes(others).prod(-1)
    return intersection / (areas - intersection)


def _sizes(boxes: np.ndarray) -> np.ndarray:
    return boxes[..., 2:] - boxes[..., :2]


def _centers(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
