"""Sets too large for memory: images stay on disk, and are decoded some batches before their step.

The order of the data is a function of seed and step alone, as that of a resident set is, whatever
number of threads or workers decodes.
"""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

AHEAD = 4  # batches that are decoded before they are asked for
TRIES = 10  # of `random_region`, as in torchvision

Shape = tuple[int, int]
Region = tuple[int, int, int, int]  # top, left, height, width


@dataclass(frozen=True)
class Images:
    """uint8 [N, H, W, C] as an array, but decoded when they are asked for."""

    read: Callable[[int], np.ndarray]
    shape: tuple[int, int, int, int]

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        """One image, or those of several rows [n] as [n, H, W, C]."""
        if np.ndim(rows) == 0:
            return self.read(int(rows))
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow works outside Python's lock
            return np.stack([*pool.map(self.read, np.asarray(rows).tolist())])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.read(i) for i in range(len(self)))


def batches(
    element: Callable[[int, np.random.Generator], dict[str, Any]],
    n: int,
    batch: int,
    seed: int,
    start: int = 0,
    workers: int = 0,
    rows: Sequence[int] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """The batches of steps `start`, `start` + 1, .., arrays [batch, ...]: consecutive pieces of one
    shuffle for each epoch, with no sample dropped.

    element: a sample by its number, with a generator of its own for this place of this epoch.
    workers: processes that decode; 0: threads of this one, at most `AHEAD`. rows: of each batch
    these alone, in this order.
    """
    import grain
    from absl import flags

    from tinyjax.data.batch_rows import Rows

    order = grain.MapDataset.range(n).seed(seed).shuffle().repeat()
    samples = order.random_map(element)
    rows = range(batch) if rows is None else rows
    whole = Rows(samples, batch, rows).batch(len(rows))
    # A thread makes a whole batch, of which no more than AHEAD are waited for.
    threads = min(AHEAD, os.cpu_count() or 1)
    found = whole[start:].to_iter_dataset(grain.ReadOptions(threads, AHEAD))
    if workers:
        flags.FLAGS.mark_as_parsed()  # Grain asks them, and fails where no absl app has parsed any
        found = found.mp_prefetch(grain.MultiprocessingOptions(workers, 1))
    return iter(found)


def random_region(shape: Shape, area: float, aspect: float, rng: np.random.Generator) -> Region:
    """A part of an image of `shape` (h, w), as torchvision's RandomResizedCrop draws it.

    area: smallest part of the image. aspect: log range of width over height, log(16 / 9) for 3/4 to
    4/3. After `TRIES` windows that do not fit: the central one of the nearest aspect.
    """
    h, w = shape
    for _ in range(TRIES):
        pixels = h * w * rng.uniform(area, 1)
        ratio = math.exp(aspect / 2 * rng.uniform(-1, 1))
        width, height = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < width <= w and 0 < height <= h:
            return (
                int(rng.integers(h - height + 1)),
                int(rng.integers(w - width + 1)),
                height,
                width,
            )
    most = math.exp(aspect / 2)
    height, width = min(h, round(w * most)), min(w, round(h * most))
    return (h - height) // 2, (w - width) // 2, height, width
