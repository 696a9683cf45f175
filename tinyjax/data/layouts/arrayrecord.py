"""The ArrayRecord layout: a set converted once by `python -m tinyjax.prepare SOURCE --to DIR`.

A TensorFlow Datasets builder writes and reads it, without TensorFlow. Image files are stored byte
for byte and boxes as float64 in pixels, so nothing is lost or rounded.
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

from tinyjax.data.images import image_shape, relative_to_pixels
from tinyjax.data.layouts.listing import (
    Entry,
    Label,
    Listing,
    OnError,
    candidate_roots,
    unknown_split,
)
from tinyjax.data.sources import AnyPath, read_bytes
from tinyjax.errors import UserError
from tinyjax.run import progress

INFO_FILE = "dataset_info.json"


class ImageBytes(NamedTuple):
    """An encoded image in memory, with the interface of a path."""

    name: str
    data: bytes

    def is_file(self) -> bool:
        return True

    def read_bytes(self) -> bytes:
        return self.data

    def __str__(self) -> str:
        return self.name


class RecordImage(NamedTuple):
    """An image of a prepared set on disk, read on access."""

    rows: Any  # as returned by `as_data_source`
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


def load_labels(rows: Any, folder: Path, split: str) -> np.ndarray:
    """The labels of a split whose images stay on disk: int32 [N].

    Records can only be read with their images, so a million take minutes. The result is
    cached in `folder`, or in the temporary folder if `folder` is not writable.
    """
    name = f"tinyjax-labels-{split}-{len(rows)}.npy"
    caches = [folder / name, Path(gettempdir()) / f"{zlib.crc32(str(folder).encode()):08x}-{name}"]
    for file in caches:
        if file.exists():
            return np.load(file)
    bar = progress.progress_bar(range(len(rows)), unit="record", desc=f"labels of {split}, cached")
    labels = np.array([rows[k]["label"] for k in bar], np.int32)
    for file in caches:
        temporary = file.with_name(f".{os.getpid()}-{name}")
        try:
            np.save(temporary, labels)
            os.replace(temporary, file)
            break
        except OSError:
            continue
    return labels


def list_splits(root: AnyPath) -> list[str]:
    """The names of the splits that exist."""
    if (data_dir := _find_root(root)) is None:
        return []
    try:
        document = json.loads(read_bytes(data_dir / INFO_FILE))
        return sorted(str(split["name"]) for split in document["splits"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{data_dir / INFO_FILE}: not a file that prepare wrote ({error}); prepare it again"
        ) from error


def read_listing(root: AnyPath, split: str, on_error: OnError) -> Listing:
    """Read a prepared split.

    Raises UserError for an unknown split, a zip, and files that prepare did not write.
    """
    data_dir = _find_root(root)
    if data_dir is None:
        raise UserError(f"{root}: no prepared set in this folder (no {INFO_FILE})")
    if not isinstance(data_dir, Path):
        raise UserError(f"{root}: ArrayRecord files cannot be read from a zip; unpack it")
    if split not in list_splits(root):
        raise unknown_split(root, split, list_splits(root))
    tfds = import_tfds()
    try:
        builder = tfds.builder_from_directory(data_dir)
        rows = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        names = builder.info.features["objects"]["category"].names
        metadata = builder.info.metadata
        ignored, groups = (frozenset(json.loads(metadata[name])) for name in ("ignored", "groups"))
        frequencies = json.loads(metadata.get("frequencies", "{}"))
        entries = [_make_entry(row, names) for row in rows]
    except Exception as error:  # the libraries raise many types for damaged files
        raise UserError(
            f"{data_dir}: split {split!r} cannot be read ({error}); prepare it again"
        ) from error
    source = f"{data_dir}, split {split!r}"
    return Listing(source, entries, tuple(names), ignored, groups, frequencies=frequencies)


def write(listings: Mapping[str, Listing], folder: Path) -> Path:
    """Write splits into `folder` and return the subfolder that holds the files.

    All splits must have the same categories, and their images must be readable.
    """
    tfds = import_tfds()
    first, *_ = listings.values()
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, None)),
            "info": tfds.features.Text(),  # json: file name, other fields of the source
            "objects": tfds.features.Sequence(
                {
                    "box": tfds.features.Tensor(shape=(4,), dtype=np.float64),  # xyxy, pixels
                    "category": tfds.features.ClassLabel(names=first.categories),
                    "ignore": np.bool_,
                    "area": np.float64,  # px^2; NaN: the box's area
                }
            ),
        }
    )

    class Detection(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore
        VERSION = tfds.core.Version("1.0.0")
        # Without it, TFDS checks for downloads with a package that it does not install.
        url_infos: ClassVar[dict] = {}

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=features,
                metadata=tfds.core.MetadataDict(
                    ignored=json.dumps(sorted(first.ignored)),
                    groups=json.dumps(sorted(first.groups)),
                    frequencies=json.dumps(dict(first.frequencies)),
                ),
            )

        def _split_generators(self, _):
            return {name: _generate_rows(listing) for name, listing in listings.items()}

        def _generate_examples(self):
            raise NotImplementedError  # not called: `_split_generators` returns generators

    builder = Detection(data_dir=folder, file_format="array_record")
    with TemporaryDirectory() as empty:
        builder.download_and_prepare(download_dir=empty)
    return Path(builder.data_path)


def _generate_rows(listing: Listing) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, entry in enumerate(listing.entries):
        data = entry.file.read_bytes()
        boxes = [label.box for label in entry.labels]
        if listing.relative and boxes:
            shape = image_shape(entry.file)
            boxes = [relative_to_pixels(box, shape) for box in boxes]
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


def _make_entry(row: dict[str, Any], names: list[str]) -> Entry:
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
    return Entry(ImageBytes(info["file_name"], bytes(row["image"])), info, labels)


def _find_root(root: AnyPath) -> AnyPath | None:
    return next(
        (folder for folder in candidate_roots(root) if (folder / INFO_FILE).is_file()), None
    )


def import_tfds():
    """The module of TensorFlow Datasets, with its output silenced; the import takes seconds."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    logging.getLogger("absl").setLevel(logging.ERROR)
    return tfds
