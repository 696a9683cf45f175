"""Data sets too large for memory: images stay on disk and are decoded a few batches ahead.

The order of the data is a function of seed and step, independent of the number of threads or
workers, as for data in memory.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyjax.data.sources import ImageFile

PREFETCH_BATCHES = 4
MAX_TRIES = 10  # of `random_region`, as in torchvision

Shape = tuple[int, int]
Region = tuple[int, int, int, int]  # top, left, height, width


@dataclass(frozen=True)
class Images:
    """Images that are decoded when indexed, with the interface of an array uint8 [N, H, W, C]."""

    read: Callable[[int], np.ndarray]
    shape: tuple[int, int, int, int]
    files: Sequence[ImageFile]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """One image [H, W, C], or for an index [n] several, [n, H, W, C]."""
        if np.ndim(index) == 0:
            return self.read(int(index))
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow releases the GIL
            return np.stack([*pool.map(self.read, np.asarray(index).tolist())])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.read(i) for i in range(len(self)))


def batches(
    source: Callable[[int, np.random.Generator], dict[str, Any]],
    n: int,
    batch_size: int,
    seed: int,
    start: int = 0,
    workers: int = 0,
    rows: Sequence[int] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of steps `start`, `start` + 1, ..: arrays [B, ...], consecutive slices of one
    shuffle per epoch. No sample is dropped.

    Args:
        source: (sample number, generator) -> sample. The generator depends only on the position in
            the data.
        n: number of samples in the data set.
        workers: processes that decode; 0: threads of this process, at most `PREFETCH_BATCHES`.
        rows: the rows of each batch to return, in this order; None: all.
    """
    import grain
    from absl import flags

    from tinyjax.data.batch_rows import BatchRows

    order = grain.MapDataset.range(n).seed(seed).shuffle().repeat()
    samples = order.random_map(source)
    rows = range(batch_size) if rows is None else rows
    dataset = BatchRows(samples, batch_size, rows).batch(len(rows))
    # Each thread makes full batches; at most PREFETCH_BATCHES are buffered.
    threads = min(PREFETCH_BATCHES, os.cpu_count() or 1)
    iterator = dataset[start:].to_iter_dataset(grain.ReadOptions(threads, PREFETCH_BATCHES))
    if workers:
        flags.FLAGS.mark_as_parsed()  # grain reads absl flags, which only an absl app parses
        iterator = iterator.mp_prefetch(grain.MultiprocessingOptions(workers, 1))
    return iter(iterator)


def random_region(shape: Shape, area: float, aspect: float, rng: np.random.Generator) -> Region:
    """A random region of an image of `shape` (h, w), as in torchvision's RandomResizedCrop.

    area: the smallest fraction of the image. aspect: log of the largest over the smallest
    width / height; log(16 / 9) for 3/4 to 4/3. If none of `MAX_TRIES` regions fits: the largest
    central one within the range of aspects.
    """
    h, w = shape
    for _ in range(MAX_TRIES):
        pixels = h * w * rng.uniform(area, 1)
        ratio = math.exp(aspect / 2 * rng.uniform(-1, 1))
        width, height = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < width <= w and 0 < height <= h:
            top, left = int(rng.integers(h - height + 1)), int(rng.integers(w - width + 1))
            return top, left, height, width
    max_ratio = math.exp(aspect / 2)
    height, width = min(h, round(w * max_ratio)), min(w, round(h * max_ratio))
    return (h - height) // 2, (w - width) // 2, height, width
