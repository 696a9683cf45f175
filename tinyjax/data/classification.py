"""Classification data: images that each show one thing.

    <split>/<class>/<name>.jpg      a folder or a .zip; folders in a class's are looked into, too

or a set that TensorFlow Datasets has prepared as ArrayRecord, with features "image" and "label".
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tinyjax.data import images
from tinyjax.data.arrayrecord import Stored, import_tfds
from tinyjax.data.files import ahead, pair
from tinyjax.data.images import PERCENTILES, SUFFIXES, Bytes, Place, Rule, opened
from tinyjax.data.listing import Refuse, folders, homes, image_files, no_split, refuse, walk
from tinyjax.data.records import Labelled
from tinyjax.errors import UserError, suggest


class Item(NamedTuple):
    place: Bytes
    name: str  # "<class>/<path>"
    label: str


def load(
    source: str | Path,
    split: str,
    size: tuple[int, int],
    classes: Sequence[str] = (),
    layout: str = "folder",
    fit: str = "resize",
    channels: int = 3,
    range16: Rule = PERCENTILES,
    refuse: Refuse = refuse,
) -> Labelled:
    """Load one split whole into memory, in order of class and file name.

    Args:
        source: "folder": a folder or a .zip; "tfds": the folder of a prepared version, the one
            with dataset_info.json in it.
        size: (H, W) in pixels that every image is brought to, by the rule `fit`, see `images.fit`.
        classes: names in the order of the labels; by default all that the split has, by name. An
            image of another class is left out.
        channels: 1 or 3. range16: how deep pixels come to 8 bits, see `images.to_uint8`.
        refuse: called with kind and message of every image that cannot be read, which is left out
            if it returns.

    Raises UserError for: a missing source, split or class; a class without an image, an image that
    cannot be read.
    """
    size = pair(size) or (0, 0)
    listed = {"folder": _folder, "tfds": _prepared}
    if layout not in listed:
        raise UserError(f"layout = {layout!r}: {suggest(layout, listed)}")
    with opened(source) as root:
        items = listed[layout](root, split)
        there = sorted({item.label for item in items})
        for name in classes:
            if name not in there:
                raise UserError(
                    f"{source}, split {split!r}: no class {name!r}; {suggest(name, there)}"
                )
        classes = tuple(classes) or tuple(there)
        number = {name: k for k, name in enumerate(classes)}
        wanted = [item for item in items if item.label in number]
        pixels, labels, names = [], [], []
        decode = partial(_decode, channels=channels, range16=range16, size=size, fit=fit)
        for item, image in ahead(decode, wanted):
            if isinstance(image, UserError):
                refuse("unreadable image", str(image))
                continue
            pixels.append(image)
            labels.append(number[item.label])
            names.append(item.name)
    if not pixels:
        raise UserError(f"{source}: no image of split {split!r} can be used")
    left_out = len(items) - len(wanted)
    return Labelled(np.stack(pixels), np.array(labels, np.int32), tuple(names), classes, left_out)


def _decode(item: Item, channels, range16, size, fit) -> tuple[Item, np.ndarray | UserError]:
    try:
        image = images.read(item.place, channels, range16)
        return item, images.fit(image, size, fit)[0]
    except UserError as error:
        return item, error


def _folder(root: Place, split: str) -> list[Item]:
    def places() -> Iterator[Place]:
        return (folder for home in homes(root) for folder in folders(home))

    # Images right in the classes' folders come first: archives wrap a split in one of its name.
    for images_in in (image_files, partial(walk, suffix=SUFFIXES)):
        for folder in places():
            if folder.name == split and any(map(images_in, folders(folder))):
                return [
                    Item(file, f"{own.name}/{path}", own.name)
                    for own in folders(folder)
                    for path, file in walk(own, SUFFIXES)
                ]
    known = [folder.name for folder in places() if any(map(image_files, folders(folder)))]
    raise no_split(root, split, known)


def _prepared(root: Place, split: str) -> list[Item]:
    tfds = import_tfds()
    try:
        builder = tfds.builder_from_directory(root)
        names = builder.info.features["label"].names
        rows = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        items = [
            Item(Stored(f"{k:08}", bytes(row["image"])), f"{k:08}", names[row["label"]])
            for k, row in enumerate(rows)
        ]
    except Exception as error:  # whatever a damaged or foreign folder leads the library to
        raise UserError(
            f"{root}: split {split!r} cannot be read ({error}); give the folder of a prepared "
            "version with features image and label, written as array_record"
        ) from error
    return sorted(items, key=lambda item: (item.label, item.name))
