"""Images per second from JPEG files to batches, compared with torch's DataLoader and with decoding
alone.

python -m benchmarks.input [--rounds 3]

The generated files have the average size of ImageNet's, in pixels and in bytes.
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

from benchmarks import timing, torch_calls

FILES, SHAPE = 256, (375, 500)  # height, width
SIDE = 224  # height and width of a view
BATCH, BATCHES = 64, 40  # per call; many more batches than are decoded ahead


def make_files(folder: Path) -> int:
    """Write photos of two classes; return their mean size in bytes."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for k in range(FILES):
        rng = np.random.default_rng(k)
        waves = sum(np.sin(x * a + y * b + c) for a, b, c in rng.uniform(-0.3, 0.3, (20, 3)))
        noise = rng.normal(0, 9, (*SHAPE, 3))
        pixels = np.clip(127 + 20 * waves[..., None] + noise, 0, 255).astype(np.uint8)
        class_folder = folder / "train" / f"class{k % 2}"
        class_folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(class_folder / f"{k}.jpg", quality=90)
    return sum(file.stat().st_size for file in folder.rglob("*.jpg")) // FILES


def tinyjax_loader(folder: str, workers: int) -> Callable[[], Any]:
    """Build a call that takes batches as a run with `data.stream` does."""
    from tinyjax.config.defaults import classifier
    from tinyjax.data import classification, streaming
    from tinyjax.data.options import ClassificationOptions
    from tinyjax.tasks import classify

    config = classifier()
    config.crop_size = (SIDE, SIDE)
    config.augment.update({"area": 0.08, "aspect": 0.5754})
    options = ClassificationOptions(source=folder, split="train", size=(256, 256), stream=True)
    split = classification.load(options)
    source = classify.stream_source(split, config)
    iterator = streaming.batches(source, FILES, BATCH, 0, workers=workers)
    return lambda: [next(iterator) for _ in range(BATCHES)]


def decode_only(folder: str) -> Callable[[], Any]:
    """Build a call that decodes the same number of complete files, with one thread per core."""
    files = sorted(Path(folder).rglob("*.jpg"))

    def decode(i):
        return np.asarray(Image.open(files[i % FILES]))

    pool = ThreadPoolExecutor(os.cpu_count())
    return lambda: [*pool.map(decode, range(BATCH * BATCHES))]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(argv)
    print(timing.describe_machine("grain", "pillow", *torch_calls.PACKAGES))
    cores = os.cpu_count() or 1
    with TemporaryDirectory() as folder:
        size = make_files(Path(folder))
        print(
            f"JPEG of {SHAPE[1]} x {SHAPE[0]}, {size / 1024:.0f} KiB, to views of {SIDE} x {SIDE}"
        )
        print(f"{'':<26}{'images/s':>10}{'per core':>10}{'/ decoding':>13}{'/ torch':>10}")
        train = str(Path(folder) / "train")
        torch = partial(torch_calls.torch_loader, train, SIDE, BATCH, BATCHES)
        candidates: dict[str, timing.Candidate] = {
            "decoding alone": (decode_only, (folder,)),
            "tinyjax, threads": (tinyjax_loader, (folder, 0)),
            f"tinyjax, {cores} workers": (tinyjax_loader, (folder, cores)),
            f"torch, {cores} workers": (torch, (cores,)),
        }
        seconds, _, unavailable = timing.compare(candidates, options.rounds)
        rates = {
            name: BATCH * BATCHES / statistics.median(times) for name, times in seconds.items()
        }
        torch_rate = rates.get(f"torch, {cores} workers")
        for name, rate in rates.items():
            to_decoding = f"{rate / rates['decoding alone']:.2f}"
            to_torch = f"{rate / torch_rate:.2f}" if torch_rate else ""
            print(f"{name:<26}{rate:>10.0f}{rate / cores:>10.0f}{to_decoding:>13}{to_torch:>10}")
        for line in unavailable:
            print(line)


if __name__ == "__main__":
    main()
