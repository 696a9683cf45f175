"""Assignment of objects to grid cells, within a fixed window of cells around each object.

Task-aligned assignment (TOOD, arXiv 2108.07755, eq. 5) with the dynamic number of positives of OTA
(arXiv 2107.08430, section 2.5). Only K x K candidates per level are considered instead of all
cells, so shapes are fixed and an image has G x 50 pairs instead of G x 6400. Cells within one
stride of an object's center are always candidates: a 5-pixel object may contain no cell center.
The Wasserstein similarity ranks cells whose boxes do not overlap the object.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from tinyjax.detectors.boxes import center_size, iou, wasserstein_similarity
from tinyjax.detectors.grid import Grid

WINDOW = 5  # cells per side, at each level
POSITIVES = 9  # maximum number per object
ALPHA, BETA = 1.0, 4.0  # exponents of the class score and of the overlap
BLEND = 0.5  # weight of the Wasserstein similarity in the overlap that ranks candidates


class Assignment(NamedTuple):
    """P = `POSITIVES` candidate pairs for each of G objects of one image."""

    cell: Array  # int32 [G, P] index into the grid
    keep: Array  # bool [G, P] whether the pair is a positive
    target: Array  # float32 [G, P] quality in [0, 1] that the class score should reach


def assign(
    scores: Array, boxes: Array, truth: Array, labels: Array, valid: Array, grid: Grid
) -> Assignment:
    """Positives of one image. Not differentiable: pass values under `stop_gradient`.

    Args:
        scores: [N, C] class probabilities of all cells.
        boxes: [N, 4] decoded boxes, xyxy pixels.
        truth: [G, 4] objects, xyxy pixels, padded.
        labels: int [G] classes of the objects.
        valid: bool [G], False for padding.
        grid: geometry of the N cells.

    Returns:
        The assignment. A cell is assigned to at most one object; ties go to the lower object index.
    """
    cell, eligible = candidates(truth, grid)
    eligible &= valid[:, None]
    g = truth.shape[0]

    overlap = iou(boxes[cell], truth[:, None])  # [G, W]
    similarity = wasserstein_similarity(boxes[cell], truth[:, None])
    blended = (1 - BLEND) * overlap + BLEND * similarity
    metric = scores[cell, labels[:, None]] ** ALPHA * blended**BETA
    metric = jnp.where(eligible, metric, -1.0)

    best, slot = lax.top_k(metric, POSITIVES)  # [G, P]
    cell = jnp.take_along_axis(cell, slot, 1)
    overlap = jnp.take_along_axis(overlap, slot, 1)
    positives = jnp.clip(jnp.where(best >= 0, overlap, 0).sum(1), 2, POSITIVES)
    keep = (best >= 0) & (jnp.arange(POSITIVES) < jnp.floor(positives)[:, None])

    # A cell that several objects claim goes to the highest metric, then to the lowest index.
    n, index = grid.stride.shape[0], jnp.broadcast_to(jnp.arange(g)[:, None], cell.shape)
    claimed = jnp.where(keep, best, -1.0)
    winner = jnp.full(n, -1.0).at[cell].max(claimed)
    keep &= claimed == winner[cell]
    first = jnp.full(n, g).at[cell].min(jnp.where(keep, index, g))
    keep &= index == first[cell]

    # Targets are proportional to the metric; an object's best cell has its best overlap as target.
    strength = jnp.where(keep, best, 0)
    quality = jnp.where(keep, overlap, 0)
    scale = quality.max(1, keepdims=True) / jnp.maximum(strength.max(1, keepdims=True), 1e-30)
    return Assignment(cell, keep, jnp.clip(strength * scale, 0, 1))


def candidates(truth: Array, grid: Grid) -> tuple[Array, Array]:
    """The window of cells around each object at each level.

    Args:
        truth: [G, 4] xyxy pixels.

    Returns:
        cell: int32 [G, levels * WINDOW^2] indices into the grid, clipped into the map.
        eligible: bool [G, levels * WINDOW^2], whether the cell is inside the map and, per axis,
            within max(half side, one stride) of the object's center.
    """
    center, size = center_size(truth)
    dy, dx = (d.reshape(-1) - WINDOW // 2 for d in np.mgrid[:WINDOW, :WINDOW])
    cells, eligible = [], []
    for stride, start, (h, w) in zip(grid.strides, grid.starts, grid.shapes, strict=True):
        middle = jnp.floor(center / stride).astype(jnp.int32)
        x, y = middle[:, :1] + dx, middle[:, 1:] + dy  # [G, WINDOW^2]
        inside = (x >= 0) & (x < w) & (y >= 0) & (y < h)
        distance = jnp.abs((jnp.stack([x, y], -1) + 0.5) * stride - center[:, None])
        near = (distance <= jnp.maximum(size / 2, stride)[:, None]).all(-1)
        cells.append(start + jnp.clip(y, 0, h - 1) * w + jnp.clip(x, 0, w - 1))
        eligible.append(inside & near)
    return jnp.concatenate(cells, 1), jnp.concatenate(eligible, 1)
