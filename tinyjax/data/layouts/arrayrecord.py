"""The ArrayRecord layout: a set converted once by `python -m tinyjax.prepare SOURCE --to DIR`.

A TensorFlow Datasets builder writes it and reads it, without TensorFlow: images are kept as the
files they were, byte for byte, boxes as float64 in their pixels, so nothing is lost or rounded.
"""

import io
import json
import logging
import os
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tinyjax.data.images import Place, content, in_pixels, shape_of
from tinyjax.data.layouts.listing import Entry, Label, Listing, Refuse, homes, no_split
from tinyjax.errors import UserError
from tinyjax.run import progress

INFO = "dataset_info.json"


class Stored(NamedTuple):
    """An image that is not a file of its own; in the rest it is used like a path."""

    name: str
    data: bytes

    def is_file(self) -> bool:
        return True

    def read_bytes(self) -> bytes:
        return self.data

    def __str__(self) -> str:
        return self.name


class Record(NamedTuple):
    """An image in a set that is left on disk, read when it is asked for."""

    rows: Any  # of `as_data_source`
    number: int

    @property
    def name(self) -> str:
        return f"{self.number:08}"

    def is_file(self) -> bool:
        return True

    def read_bytes(self) -> bytes:
        return bytes(self.rows[self.number]["image"])

    def __str__(self) -> str:
        return f"record {self.name}"


def numbers(rows: Any, folder: Path, split: str) -> np.ndarray:
    """The labels of a split whose images are left on disk: int32 [N].

    Records are only read whole, so this takes minutes for a million of them; it is done once and
    kept in `folder`, or where that may not be written in the temporary folder.
    """
    name = f"tinyjax-labels-{split}-{len(rows)}.npy"
    kept = [folder / name, Path(gettempdir()) / f"{zlib.crc32(str(folder).encode()):08x}-{name}"]
    for file in kept:
        if file.exists():
            return np.load(file)
    bar = progress.progress_bar(range(len(rows)), unit="record", desc=f"labels of {split}, once")
    found = np.array([rows[k]["label"] for k in bar], np.int32)
    for file in kept:
        temporary = file.with_name(f".{os.getpid()}-{name}")
        try:
            np.save(temporary, found)
            os.replace(temporary, file)
            break
        except OSError:
            continue
    return found


def splits(root: Place) -> list[str]:
    """The names of the splits that are there."""
    if (home := _find(root)) is None:
        return []
    try:
        document = json.loads(content(home / INFO))
        return sorted(str(split["name"]) for split in document["splits"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{home / INFO}: not as prepare wrote it ({error}); prepare it anew"
        ) from error


def listing(root: Place, split: str, refuse: Refuse) -> Listing:
    """The split as it was when it was prepared.

    Raises UserError for an unknown split, a zip, and files that prepare did not write.
    """
    home = _find(root)
    if home is None:
        raise UserError(f"{root}: no prepared set here (no {INFO})")
    if not isinstance(home, Path):
        raise UserError(f"{root}: ArrayRecord files cannot be read from a zip; unpack it")
    if split not in splits(root):
        raise no_split(root, split, splits(root))
    tfds = import_tfds()
    try:
        builder = tfds.builder_from_directory(home)
        rows = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        names = builder.info.features["objects"]["category"].names
        marks = builder.info.metadata
        ignored, groups = (frozenset(json.loads(marks[name])) for name in ("ignored", "groups"))
        entries = [_entry(row, names) for row in rows]
    except Exception as error:  # whatever a damaged file leads the libraries to
        raise UserError(
            f"{home}: split {split!r} cannot be read ({error}); prepare it anew"
        ) from error
    return Listing(f"{home}, split {split!r}", entries, tuple(names), ignored, groups)


def write(listings: Mapping[str, Listing], folder: Path) -> Path:
    """Write splits into `folder`; returns the folder of the files themselves.

    All splits must have the same categories; the images of their entries must be readable.
    """
    tfds = import_tfds()
    first, *_ = listings.values()
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, None)),
            "info": tfds.features.Text(),  # json: file name, and what else the source said
            "objects": tfds.features.Sequence(
                {
                    "box": tfds.features.Tensor(shape=(4,), dtype=np.float64),  # xyxy, pixels
                    "category": tfds.features.ClassLabel(names=first.categories),
                    "ignore": np.bool_,
                    "area": np.float64,  # px^2; NaN: that of the box
                }
            ),
        }
    )

    class Detection(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore
        VERSION = tfds.core.Version("1.0.0")
        # Nothing is downloaded; to find that out TFDS would import a package it does not require.
        url_infos: ClassVar[dict] = {}

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=features,
                metadata=tfds.core.MetadataDict(
                    ignored=json.dumps(sorted(first.ignored)),
                    groups=json.dumps(sorted(first.groups)),
                ),
            )

        def _split_generators(self, _):
            return {name: _rows(listed) for name, listed in listings.items()}

        def _generate_examples(self):
            raise NotImplementedError  # the splits are generators already

    builder = Detection(data_dir=folder, file_format="array_record")
    with TemporaryDirectory() as nothing_to_download:
        builder.download_and_prepare(download_dir=nothing_to_download)
    return Path(builder.data_path)


def _rows(listed: Listing) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, entry in enumerate(listed.entries):
        data = entry.place.read_bytes()
        boxes = [label.box for label in entry.labels]
        if listed.relative:
            boxes = [in_pixels(box, shape_of(data)) for box in boxes]
        objects = [
            {
                "box": np.array(box, np.float64),
                "category": label.category,
                "ignore": label.ignore,
                "area": np.float64(np.nan if label.area is None else label.area),
            }
            for label, box in zip(entry.labels, boxes, strict=True)
        ]
        yield (
            number,
            {"image": io.BytesIO(data), "info": json.dumps(entry.info), "objects": objects},
        )


def _entry(row: dict[str, Any], names: list[str]) -> Entry:
    info = json.loads(row["info"])
    objects = row["objects"]
    labels = [
        Label(
            f"{info['file_name']}: object {number}",
            names[category],
            (*box.tolist(),),
            bool(ignore),
            None if np.isnan(area) else float(area),
        )
        for number, (box, category, ignore, area) in enumerate(
            zip(*(objects[name] for name in ("box", "category", "ignore", "area")), strict=True), 1
        )
    ]
    return Entry(Stored(info["file_name"], bytes(row["image"])), info, labels)


def _find(root: Place) -> Place | None:
    return next((home for home in homes(root) if (home / INFO).is_file()), None)


def import_tfds():
    """TensorFlow Datasets, whose import takes seconds; its chatter off."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    logging.getLogger("absl").setLevel(logging.ERROR)
    return tfds
