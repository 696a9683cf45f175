"""A record of what a split holds, and the differences between two records.

A run stores the record of its data, so that it is not resumed on other data.
"""

import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import numpy as np

from tinyjax.core import Split
from tinyjax.data.records import DetectionSplit, RecognitionSplit
from tinyjax.data.sources import ImageFile
from tinyjax.data.streaming import Images
from tinyjax.errors import shorten

MAX_LISTED = 20_000  # images; of a larger split only digests are stored
SHOWN_CLASSES = 10  # of each of two lists of classes in a message
THREADS = 16  # that ask for the sizes of files, which takes long on a network file system

Record = dict[str, Any]


def describe(split: Split) -> Record:
    """The record of a split, as JSON types.

    "images" is their number, "names" are their file names, "labels" the CRC-32 of each image's
    labels and boxes, in recognition also of its modality, camera and capture, and "pixels" that of
    its pixels. Of a streamed split, "pixels" are the sizes of the files in bytes, or 0 for records
    of an ArrayRecord file. The lists of a split of more than `MAX_LISTED` images are replaced by
    their SHA-256.
    """
    labels = [_crc(_label_arrays(split, i)) for i in range(len(split.names))]
    lists: dict[str, list[Any]] = {
        "names": [*split.names],
        "labels": labels,
        "pixels": _pixels(split),
    }
    listed = len(split.names) <= MAX_LISTED
    values = {name: rows if listed else _digest(rows) for name, rows in lists.items()}
    return {"images": len(split.names), **values}


def difference(recorded: Record, current: Record) -> str:
    """What differs between two records of a split, such as "images: 2 added (a.png, b.png), 1
    removed (c.png)"; "" if nothing does.
    """
    listed = isinstance(recorded["names"], list) and isinstance(current["names"], list)
    if recorded["names"] != current["names"]:
        if not listed:
            counts = f"{recorded['images']:,} images, now {current['images']:,}"
            return f"other images or another order ({counts})"
        before, now = (Counter[str](record["names"]) for record in (recorded, current))
        changes = {"added": now - before, "removed": before - now}
        texts = [
            f"{names.total()} {verb} ({shorten(names.elements())})"
            for verb, names in changes.items()
            if names
        ]
        return f"images: {', '.join(texts)}" if texts else "the same images in another order"
    changed = [name for name in ("labels", "pixels") if recorded[name] != current[name]]
    if not listed:
        return f"other {' and '.join(changed)}" if changed else ""
    return ", ".join(f"other {name} in {_changed(recorded, current, name)}" for name in changed)


def class_difference(recorded: Sequence[str], current: Sequence[str]) -> str:
    """How two lists of classes differ, such as "were person, car and are now car, person"; "" if
    they are equal.
    """
    if [*recorded] == [*current]:
        return ""
    if max(len(recorded), len(current)) <= SHOWN_CLASSES:
        return f"were {', '.join(recorded)} and are now {', '.join(current)}"
    pairs = enumerate(zip(recorded, current, strict=False))
    first = next((k for k, (a, b) in pairs if a != b), min(len(recorded), len(current)))
    before, now = (c[first] if first < len(c) else "none" for c in (recorded, current))
    counts = f"{len(recorded)} classes, now {len(current)}"
    return f"have changed ({counts}; number {first}, from 0, was {before} and is now {now})"


def _label_arrays(split: Split, i: int) -> tuple[np.ndarray, ...]:
    """The labels of image i, independent of the number of padding rows."""
    if isinstance(split, DetectionSplit):
        rows = split.valid[i] | split.ignore[i]
        return split.boxes[i][rows], split.labels[i][rows], split.ignore[i][rows]
    if isinstance(split, RecognitionSplit):
        arrays = (split.labels, split.inputs["modality"], split.cameras, split.captures)
        return tuple(array[i] for array in arrays)
    return (split.labels[i],)  # type: ignore[attr-defined]


def _pixels(split: Split) -> list[int]:
    images = next(iter(split.inputs.values()))
    if not isinstance(images, Images):
        return [_crc((image,)) for image in images]
    with ThreadPool(THREADS) as pool:
        return pool.map(_file_size, images.files, chunksize=64)


def _file_size(file: ImageFile) -> int:
    return file.stat().st_size if isinstance(file, Path) else 0


def _crc(arrays: Sequence[np.ndarray]) -> int:
    crc = 0
    for array in arrays:
        crc = zlib.crc32(array.tobytes(), crc)
    return crc


def _digest(rows: Sequence[Any]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _changed(recorded: Record, current: Record, name: str) -> str:
    rows = zip(recorded["names"], recorded[name], current[name], strict=True)
    names = [image for image, before, now in rows if before != now]
    return f"{len(names)} of {len(recorded['names'])} images ({shorten(names)})"
