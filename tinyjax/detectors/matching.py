"""Assignment of objects to grid cells, within a fixed window of cells around each object.

Task-aligned assignment (TOOD, arXiv 2108.07755, eq. 5) with the dynamic number of positives of OTA
(arXiv 2107.08430, section 2.5). Only WINDOW x WINDOW cells per level are candidates, so shapes are
fixed and an image with G objects has G x 50 pairs instead of G x 6400. Cells within one stride of
an object's center are always candidates: a 5-pixel object may contain no cell center. The
Wasserstein similarity ranks cells whose boxes do not overlap the object.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from tinyjax.detectors.boxes import center_size, iou, wasserstein_similarity
from tinyjax.detectors.grid import Grid

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
    cell, eligible = candidate_cells(truth, grid)
    eligible &= valid[:, None]
    g = truth.shape[0]

    overlap = iou(boxes[cell], truth[:, None])  # [G, levels * WINDOW^2]
    similarity = wasserstein_similarity(boxes[cell], truth[:, None])
    blended = (1 - WASSERSTEIN_WEIGHT) * overlap + WASSERSTEIN_WEIGHT * similarity
    metric = scores[cell, labels[:, None]] ** ALPHA * blended**BETA
    metric = jnp.where(eligible, metric, -1.0)

    best, index = lax.top_k(metric, MAX_POSITIVES)  # [G, P]
    cell = jnp.take_along_axis(cell, index, 1)
    overlap = jnp.take_along_axis(overlap, index, 1)
    num_positives = jnp.clip(jnp.where(best >= 0, overlap, 0).sum(1), 2, MAX_POSITIVES)
    positive = (best >= 0) & (jnp.arange(MAX_POSITIVES) < jnp.floor(num_positives)[:, None])

    # If a cell is positive for several objects, the highest metric wins, then the lowest index.
    n, object_ = grid.cell_strides.shape[0], jnp.broadcast_to(jnp.arange(g)[:, None], cell.shape)
    metric = jnp.where(positive, best, -1.0)
    highest = jnp.full(n, -1.0).at[cell].max(metric)
    positive &= metric == highest[cell]
    first = jnp.full(n, g).at[cell].min(jnp.where(positive, object_, g))
    positive &= object_ == first[cell]

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
