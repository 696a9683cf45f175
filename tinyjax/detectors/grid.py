"""The grid cells of a detector, with all levels on one axis, the finest level first."""

from typing import NamedTuple

import numpy as np


class Grid(NamedTuple):
    """Static geometry of N cells, N = sum of h * w over levels.

    The arrays are numpy arrays, so they are constants in compiled programs.
    """

    strides: tuple[int, ...]  # of each level
    shapes: tuple[tuple[int, int], ...]  # (h, w) of each level
    level_starts: tuple[int, ...]  # index of each level's first cell
    cell_centers: np.ndarray  # float32 [N, 2] (x, y), pixels
    cell_strides: np.ndarray  # float32 [N], pixels


def make_grid(height: int, width: int, strides: tuple[int, ...]) -> Grid:
    """Return the cells for inputs of `height` x `width` pixels.

    A level of stride s has ceil(height / s) x ceil(width / s) cells.
    """
    shapes = tuple((-(-height // s), -(-width // s)) for s in strides)
    centers = []
    for s, (h, w) in zip(strides, shapes, strict=True):
        y, x = np.mgrid[:h, :w]
        centers.append((np.stack([x, y], -1).reshape(-1, 2) + 0.5) * s)
    counts = [h * w for h, w in shapes]
    return Grid(
        tuple(strides),
        shapes,
        tuple(int(n) for n in np.cumsum([0, *counts[:-1]])),
        np.concatenate(centers).astype(np.float32),
        np.repeat(strides, counts).astype(np.float32),
    )
