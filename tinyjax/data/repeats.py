"""Repeat factor sampling: an epoch has images with rare classes several times (Gupta et al., LVIS,
arXiv 1908.03195). The rounding is ours: Detectron2 draws each image's repeats independently, so
that its epochs differ in length.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


def repeat_factors(labels: Sequence[np.ndarray], threshold: float) -> np.ndarray:
    """Return how often an epoch has each image on average: float64 [N], at least 1.

    It is the maximum of max(1, sqrt(threshold / f)) over the image's classes, where f is the
    fraction of images with the class; 1 for an image without objects.

    labels: for each image the classes of its objects.
    """
    image = np.repeat(np.arange(len(labels)), [len(row) for row in labels])
    label = np.concatenate([np.zeros(0, np.int64), *labels]).astype(np.int64)
    image, label = np.unique(np.stack([image, label]), axis=1)
    fraction = np.bincount(label) / len(labels)
    factors = np.ones(len(labels))
    np.maximum.at(factors, image, np.sqrt(threshold / fraction[label]))
    return factors


def repeat_indices(factors: np.ndarray, offset: float) -> np.ndarray:
    """Return the images of an epoch in ascending order: int64 [L].

    Image i occurs floor(C_i + offset) - floor(C_{i-1} + offset) times, with the cumulative sum C of
    the factors. Over offsets in [0, 1) the mean is `factors[i]`, and L differs from the sum of all
    factors by less than 1.
    """
    ends = np.floor(np.cumsum(factors) + offset).astype(np.int64)
    return np.repeat(np.arange(len(factors)), np.diff(ends, prepend=0))


def draw_repeats(labels: Sequence[np.ndarray], seed: int, threshold: float) -> np.ndarray:
    """Return the images of a member's epochs, see `repeat_indices`; each at least once.

    Its offset depends on the seed alone. A threshold of 0 gives each image once.
    """
    offset = np.random.default_rng((seed, zlib.crc32(b"repeats"))).random()
    return repeat_indices(repeat_factors(labels, threshold), offset)


@dataclass(frozen=True)
class RepeatedSource:
    """The samples of an epoch, for `streaming.batches`."""

    source: Callable[[int, np.random.Generator], dict[str, Any]]
    indices: np.ndarray  # int64 [L], sample numbers of `source`

    def __call__(self, i: int, rng: np.random.Generator) -> dict[str, Any]:
        return self.source(int(self.indices[i]), rng)
