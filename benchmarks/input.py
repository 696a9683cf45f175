"""Images a second from JPEG files to batches, against torch's DataLoader and against what decoding
alone takes.

python -m benchmarks.input [--rounds 3]

The files are made for the purpose: as large as ImageNet's are on average, in pixels and in bytes.
"""

import argparse
import os
import statistics
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import contest, rivals

FILES, SHAPE = 256, (375, 500)
SIDE, BATCH, BATCHES = 224, 64, 40  # of a view; of a call: many more than are decoded ahead


def make_files(folder: Path) -> int:
    """Photos of two classes; returns their mean size in bytes."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for k in range(FILES):
        rng = np.random.default_rng(k)
        waves = sum(np.sin(x * a + y * b + c) for a, b, c in rng.uniform(-0.3, 0.3, (20, 3)))
        noise = rng.normal(0, 9, (*SHAPE, 3))
        pixels = np.clip(127 + 20 * waves[..., None] + noise, 0, 255).astype(np.uint8)
        place = folder / "train" / f"class{k % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{k}.jpg", quality=90)
    return sum(file.stat().st_size for file in folder.rglob("*.jpg")) // FILES


def ours(folder: str, workers: int) -> Callable[[], Any]:
    """A call that takes batches as a run does that leaves its set on disk."""
    from tinyjax.config.defaults import classifier
    from tinyjax.data import classification, streaming
    from tinyjax.tasks import classify

    config = classifier()
    config.crop_size = (SIDE, SIDE)
    config.augment.update({"area": 0.08, "aspect": 0.5754})
    split = classification.load(folder, "train", (256, 256), stream=True)
    element = classify.element(split, config)
    rows = streaming.batches(element, FILES, BATCH, 0, workers=workers)
    return lambda: [next(rows) for _ in range(BATCHES)]


def decoding(folder: str) -> Callable[[], Any]:
    """A call that decodes as many files, whole and in a thread for each core, and does no more."""
    files = sorted(Path(folder).rglob("*.jpg"))

    def decode(i):
        return np.asarray(Image.open(files[i % FILES]))

    pool = ThreadPoolExecutor(os.cpu_count())
    return lambda: [*pool.map(decode, range(BATCH * BATCHES))]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    print(contest.machine("grain", "pillow", *rivals.TORCH))
    cores = os.cpu_count() or 1
    with TemporaryDirectory() as folder:
        size = make_files(Path(folder))
        print(
            f"JPEG of {SHAPE[1]} x {SHAPE[0]}, {size / 1024:.0f} KiB, to views of {SIDE} x {SIDE}"
        )
        print(f"{'':<26}{'images/s':>10}{'per core':>10}{'of decoding':>13}{'of torch':>10}")
        train = str(Path(folder) / "train")
        torch = partial(rivals.torch_loader, train, SIDE, BATCH, BATCHES)
        contestants: dict[str, contest.Contestant] = {
            "decoding alone": (decoding, (folder,)),
            "ours, threads": (ours, (folder, 0)),
            f"ours, {cores} workers": (ours, (folder, cores)),
            f"torch, {cores} workers": (torch, (cores,)),
        }
        times, _, absent = contest.race(contestants, options.rounds)
        rates = {
            name: BATCH * BATCHES / statistics.median(seconds) for name, seconds in times.items()
        }
        rival = rates.get(f"torch, {cores} workers")
        for name, rate in rates.items():
            share = f"{rate / rates['decoding alone']:.2f}"
            against = f"{rate / rival:.2f}" if rival else ""
            print(f"{name:<26}{rate:>10.0f}{rate / cores:>10.0f}{share:>13}{against:>10}")
        for line in absent:
            print(line)


if __name__ == "__main__":
    main()
