"""Assignment of objects to grid cells, within a fixed window of cells around each object.

Task-aligned assignment (TOOD, arXiv 2108.07755, eq. 5) with the dynamic number of positives of OTA
(arXiv 2107.08430, section 2.5). Only WINDOW x WINDOW cells per level are candidates, so shapes are
fixed and an image with G objects has G x 50 pairs instead of G x 6400. Cells within one stride of
an object's center are always candidates: a 5-pixel object may contain no cell center. The
Wasserstein similarity ranks cells whose boxes do not overlap the object.
"""

from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from tinyjax.detectors.boxes import center_size, iou, wasserstein_similarity
from tinyjax.detectors.grid import Grid
from tinyjax.ops.gather import take_entries, take_last, take_rows

WINDOW = 5  # cells per side, at each level
MAX_POSITIVES = 9  # per object
ALPHA, BETA = 1.0, 4.0  # exponents of the class score and of the overlap
WASSERSTEIN_WEIGHT = 0.5  # share in the overlap that ranks candidates; the rest is IoU


class Assignment(NamedTuple):
    """P = `MAX_POSITIVES` candidate pairs for each of G objects of one image."""

    cell: Array  # int32 [G, P] index into the grid
    is_positive: Array  # bool [G, P]
    target: Array  # float32 [G, P] quality in [0, 1], the target of the class score


def assign(
    scores: Array, boxes: Array, truth: Array, labels: Array, valid: Array, grid: Grid
) -> Assignment:
    """Assign cells to one image's objects. Not differentiable: use `stop_gradient`.

    Args:
        scores: [N, C] class probabilities of all cells.
        boxes: [N, 4] decoded boxes, xyxy pixels.
        truth: [G, 4] objects, xyxy pixels, padded.
        labels: int [G] classes of the objects.
        valid: bool [G], False for padding.
        grid: geometry of the N cells.

    Returns:
        The assignment. A cell is assigned to at most one object; in a tie, to the lowest index.
    """
    num_cells = len(boxes)
    cell, eligible = candidate_cells(truth, grid)
    eligible &= valid[:, None]

    scores, boxes = at_candidates(scores, boxes, cell, labels, grid)  # [G, K], [G, K, 4]
    overlap = iou(boxes, truth[:, None])
    similarity = wasserstein_similarity(boxes, truth[:, None])
    blended = (1 - WASSERSTEIN_WEIGHT) * overlap + WASSERSTEIN_WEIGHT * similarity
    metric = scores**ALPHA * blended**BETA
    metric = jnp.where(eligible, metric, -1.0)

    best, index = lax.top_k(metric, MAX_POSITIVES)  # [G, P]
    cell, overlap = take_last(cell, index), take_last(overlap, index)
    num_positives = jnp.clip(jnp.where(best >= 0, overlap, 0).sum(1), 2, MAX_POSITIVES)
    positive = (best >= 0) & (jnp.arange(MAX_POSITIVES) < jnp.floor(num_positives)[:, None])
    positive = keep_one_per_cell(cell, jnp.where(positive, best, -1.0), num_cells)

    # Targets are proportional to the metric. Each object's largest target is its largest IoU.
    metric = jnp.where(positive, best, 0)
    overlap = jnp.where(positive, overlap, 0)
    scale = overlap.max(1, keepdims=True) / jnp.maximum(metric.max(1, keepdims=True), 1e-30)
    return Assignment(cell, positive, jnp.clip(metric * scale, 0, 1))


def candidate_cells(truth: Array, grid: Grid) -> tuple[Array, Array]:
    """Return the window of cells around each object at each level.

    Args:
        truth: [G, 4] xyxy pixels.

    Returns:
        cell: int32 [G, levels * WINDOW^2] indices into the grid, clipped to the level.
        eligible: bool [G, levels * WINDOW^2], whether the cell is inside the level and, on each
            axis, within max(half the side, one stride) of the object's center.
    """
    center, size = center_size(truth)
    dy, dx = (d.reshape(-1) - WINDOW // 2 for d in np.mgrid[:WINDOW, :WINDOW])
    cells, eligible = [], []
    for stride, start, (h, w) in zip(grid.strides, grid.level_starts, grid.shapes, strict=True):
        center_cell = jnp.floor(center / stride).astype(jnp.int32)
        x, y = center_cell[:, :1] + dx, center_cell[:, 1:] + dy  # [G, WINDOW^2]
        inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
        distance = jnp.abs((jnp.stack([x, y], -1) + 0.5) * stride - center[:, None])
        near = (distance <= jnp.maximum(size / 2, stride)[:, None]).all(-1)
        cells.append(start + jnp.clip(y, 0, h - 1) * w + jnp.clip(x, 0, w - 1))
        eligible.append(inside & near)
    return jnp.concatenate(cells, 1), jnp.concatenate(eligible, 1)


def at_candidates(
    scores: Array, boxes: Array, cell: Array, labels: Array, grid: Grid
) -> tuple[Array, Array]:
    """The score of each object's class, and the boxes, at the cells of `candidate_cells`.

    Args:
        scores: [N, C]; boxes: [N, 4].
        cell: int32 [G, K]; labels: int [G].

    Returns:
        [G, K] and [G, K, 4].
    """
    windows = []
    # Level by level: a TPU compares each index with those of all rows (`ops.gather`).
    levels = zip(grid.level_starts, grid.shapes, jnp.split(cell, len(grid.shapes), 1), strict=True)
    for start, (h, w), cells in levels:
        level, index = np.s_[start : start + h * w], cells - start
        rows = take_rows(boxes[level], index.reshape(-1)).reshape(*index.shape, 4)
        windows.append((take_class(scores[level], index, labels), rows))
    window_scores, window_boxes = zip(*windows, strict=True)
    return jnp.concatenate(window_scores, 1), jnp.concatenate(window_boxes, 1)


def take_class(values: Array, cell: Array, labels: Array) -> Array:
    """values[cell, labels[:, None]]: [N, C], int [G, P], int [G] -> [G, P]."""
    columns = jnp.broadcast_to(labels[:, None], cell.shape)
    return take_entries(values, cell.reshape(-1), columns.reshape(-1)).reshape(cell.shape)


def keep_one_per_cell(cell: Array, metric: Array, num_cells: int) -> Array:
    """Return whether a pair has the highest metric of all pairs of its cell, and the lowest object
    in a tie.

    Args:
        cell: int32 [G, P], in 0 .. num_cells - 1.
        metric: [G, P], negative for pairs that are not to be kept.

    Returns:
        bool [G, P].
    """
    default = partial(_keep_by_scatter, num_cells=num_cells)
    return lax.platform_dependent(cell, metric, tpu=_keep_by_comparison, default=default)


def _keep_by_scatter(cell, metric, *, num_cells):
    g, object_ = len(cell), jnp.broadcast_to(jnp.arange(len(cell))[:, None], cell.shape)
    highest = jnp.full(num_cells, -1.0).at[cell].max(metric)
    kept = (metric >= 0) & (metric == highest[cell])
    first = jnp.full(num_cells, g).at[cell].min(jnp.where(kept, object_, g))
    return kept & (object_ == first[cell])


def _keep_by_comparison(cell, metric):
    """Compare all pairs: a TPU scatters one value after the other."""
    object_ = jnp.broadcast_to(jnp.arange(len(cell))[:, None], cell.shape)
    (cell_a, metric_a, object_a), (cell_b, metric_b, object_b) = (
        tuple(x.reshape(shape) for x in (cell, metric, object_)) for shape in ((-1, 1), (1, -1))
    )
    is_better = (metric_b > metric_a) | ((metric_b == metric_a) & (object_b < object_a))
    is_beaten = ((cell_b == cell_a) & is_better).any(1).reshape(cell.shape)
    return (metric >= 0) & ~is_beaten
