"""Anchors fitted to the objects of a data set: k-means on 1 - IoU (YOLOv2, arXiv 1612.08242)."""

from collections.abc import Sequence

import numpy as np

from tinyjax.detectors.anchors import Anchor
from tinyjax.errors import UserError

RESTARTS = 60  # with 6 shapes on HIT-UAV, four seeds then give the same shapes; with 20, three
MAX_ITERATIONS = 100
MAX_OBJECTS = 20_000  # shapes are fitted to a sample of a larger set
# Anchors of this size, in distances between their centers, are the best trade-off on HIT-UAV at 320
# x 256 with 4 to 12 shapes. An object of the anchor's shape then has an IoU of 0.46 or more with
# some anchor. For 0.5, the size is 2.72: up to half more anchors for 0.1 to 2 % more objects.
SIZE_PER_SPACING = 2.4


def fit_shapes(sizes: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Return the shapes with the highest mean IoU with the objects, by k-means.

    A center is the median of its objects. The result is the best of `RESTARTS` runs, which start
    from objects drawn as in k-means++.

    Args:
        sizes: [G, 2] (width, height) of the objects.
        count: number of shapes.
        seed: of the draws.

    Returns:
        float64 [count, 2], from small to large area, rounded to three digits.

    Raises UserError without objects and if there are fewer distinct sizes than shapes.
    """
    rng = np.random.default_rng(seed)
    sizes = np.asarray(sizes, np.float64)
    if len(sizes) > MAX_OBJECTS:
        sizes = rng.choice(sizes, MAX_OBJECTS, replace=False)
    if not len(sizes):
        raise UserError("no objects to fit anchors to")
    if (distinct := len(np.unique(sizes, axis=0))) < count:
        raise UserError(
            f"{count} anchors: the objects have {distinct} different sizes; give at most that many"
        )
    runs = [_k_means(sizes, _draw_centers(sizes, count, rng)) for _ in range(RESTARTS)]
    shapes = max(runs, key=lambda shapes: mean_iou(sizes, shapes))
    shapes = shapes[np.argsort(shapes.prod(1), kind="stable")]
    return np.array([[float(f"{side:.3g}") for side in shape] for shape in shapes])


def mean_iou(sizes: np.ndarray, shapes: np.ndarray) -> float:
    """Return the mean of the objects' IoU with the best shape, all centered on the same point."""
    return float(_shape_iou(sizes, shapes).max(1).mean())


def assign_levels(
    shapes: np.ndarray, strides: Sequence[int], max_centers: int = 2
) -> tuple[tuple[Anchor, ...], ...]:
    """Return anchors of these shapes by level, each with as few centers as its size allows.

    A shape belongs to the coarsest level whose stride is at most its size, sqrt(w h), over
    `SIZE_PER_SPACING`. Smaller ones belong to the finest level, with n x n centers per cell for
    their size, n at most `max_centers`. A level that would be empty takes the shape next in size.

    Args:
        shapes: [k, 2] (width, height), from small to large area, pixels.
        strides: of the levels, finest first.

    Raises UserError for fewer shapes than levels.
    """
    if len(shapes) < len(strides):
        raise UserError(
            f"{len(shapes)} anchors for {len(strides)} levels: give at least one for each level"
        )
    spacing = np.sqrt(np.asarray(shapes).prod(1)) / SIZE_PER_SPACING
    wanted = np.searchsorted(strides, spacing, "right") - 1
    anchors: list[list[Anchor]] = [[] for _ in strides]
    level = -1
    for i, (width, height) in enumerate(np.asarray(shapes).tolist()):
        unfilled = len(strides) - len(shapes) + i  # the lowest level that leaves no later one empty
        level = int(np.clip(wanted[i], max(level, unfilled, 0), level + 1))
        n = int(np.clip(np.ceil(strides[0] / spacing[i]), 1, max_centers)) if level == 0 else 1
        anchors[level].append((width, height, n))
    return tuple(map(tuple, anchors))


def _draw_centers(sizes: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Objects of different sizes, each drawn with a probability ~ (distance to the others)^2."""
    centers = sizes[rng.integers(len(sizes))][None]
    while len(centers) < count:
        weight = (1 - _shape_iou(sizes, centers).max(1)) ** 2
        index = rng.choice(len(sizes), p=weight / weight.sum())
        centers = np.concatenate([centers, sizes[index][None]])
    return centers


def _k_means(sizes: np.ndarray, centers: np.ndarray) -> np.ndarray:
    assigned = np.full(len(sizes), -1)
    for _ in range(MAX_ITERATIONS):
        nearest = _shape_iou(sizes, centers).argmax(1)
        if (nearest == assigned).all():
            break
        assigned = nearest
        for k in np.unique(assigned):  # a center without objects stays
            centers[k] = np.median(sizes[assigned == k], axis=0)
    return centers


def _shape_iou(sizes: np.ndarray, shapes: np.ndarray) -> np.ndarray:
    """IoU [G, k] of boxes with the same center."""
    (width, height), (w, h) = sizes.T[..., None], shapes.T
    intersection = np.minimum(width, w) * np.minimum(height, h)
    return intersection / (width * height + w * h - intersection)
