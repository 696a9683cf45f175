"""Classification data: images that each show one thing.

    <split>/<class>/<name>.jpg      a folder or a .zip; folders in a class's are looked into, too

or lists of images, as DomainNet has them, where the classes are folders' names:

    <split>.txt                     lines of "<path> <number>", paths from the list's folder on

or a set that TensorFlow Datasets has prepared as ArrayRecord, with features "image" and "label".
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from tinyjax.data import images, streaming
from tinyjax.data.detection import ahead, pair
from tinyjax.data.images import PERCENTILES, SUFFIXES, Bytes, Place, Rule, opened
from tinyjax.data.layouts.arrayrecord import Record, Stored, import_tfds, numbers
from tinyjax.data.layouts.listing import (
    Refuse,
    files,
    folders,
    homes,
    image_files,
    no_split,
    refuse,
    spread,
    walk,
)
from tinyjax.data.records import Labeled
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
    limit: int = 0,
    refuse: Refuse = refuse,
    stream: bool = False,
    corrupt: tuple[str, int] | None = None,
) -> Labeled:
    """Load one split whole into memory, in order of class and file name; or leave it on disk.

    Args:
        source: "folder", "list": a folder or a .zip; "tfds": the folder of a prepared version, the
            one with dataset_info.json in it.
        size: (H, W) in pixels that every image is brought to, by the rule `fit`, see `images.fit`.
        classes: names in the order of the labels; by default all that the split has, by name. An
            image of another class is left out.
        channels: 1 or 3. range16: how deep pixels come to 8 bits, see `images.to_uint8`.
        limit: at most so many images, evenly spread over classes and names; 0: all.
        refuse: called with kind and message of every image that cannot be read, which is left out
            if it returns.
        stream: images are a `disk.Images`; one that cannot be read raises when it is asked for.
        corrupt: kind and severity of a corruption of the image as it is in its file, see
            `corrupt.corrupt`.

    Raises UserError for: a missing source, split or class; a class without an image, an image that
    cannot be read.
    """
    size = pair(size) or (0, 0)
    listed: dict[str, Callable[[Place, str], list[Item]]] = {
        "folder": _folder,
        "list": _list,
        "tfds": partial(_prepared, stream=stream),
    }
    if layout not in listed:
        raise UserError(f"layout = {layout!r}: {suggest(layout, listed)}")
    with opened(source) as root:
        if stream and not isinstance(root, Path):
            raise UserError(f"{source}: images cannot be left in a zip (data.stream); unpack it")
        items = listed[layout](root, split)
        there = sorted({item.label for item in items})
        for name in classes:
            if name not in there:
                raise UserError(
                    f"{source}, split {split!r}: no class {name!r}; {suggest(name, there)}"
                )
        classes = tuple(classes) or tuple(there)
        number = {name: k for k, name in enumerate(classes)}
        known = [item for item in items if item.label in number]
        wanted = spread(known, limit, lambda item: item.name)
        decode = partial(
            _decode, channels=channels, range16=range16, size=size, fit=fit, corruption=corrupt
        )
        pixels: Any
        if stream:
            pixels, used = (
                streaming.Images(Read(wanted, decode), (len(wanted), *size, channels)),
                wanted,
            )
        else:
            pixels, used = _in_memory(wanted, decode, refuse)
    if not used:
        raise UserError(f"{source}: no image of split {split!r} can be used")
    labels = np.array([number[item.label] for item in used], np.int32)
    left_out = len(items) - len(known)
    return Labeled(pixels, labels, tuple(item.name for item in used), classes, left_out)


def _in_memory(items: list[Item], decode: Any, refuse: Refuse) -> tuple[np.ndarray, list[Item]]:
    pixels, used = [], []
    for item, image in ahead(decode, items):
        if isinstance(image, UserError):
            refuse("unreadable image", str(image))
            continue
        pixels.append(image)
        used.append(item)
    return np.stack(pixels) if pixels else np.zeros(0), used


def _decode(
    item: Item, channels, range16, size, fit, corruption: tuple[str, int] | None = None
) -> tuple[Item, np.ndarray | UserError]:
    try:
        image = images.read(item.place, channels, range16)
        if corruption:
            from tinyjax.data.corruptions.corrupt import (
                corrupt,  # with scipy, which nothing else here needs
            )

            image = corrupt(image, *corruption, item.name)
        return item, images.fit(image, size, fit)[0]
    except UserError as error:
        return item, error


@dataclass(frozen=True)
class Read:
    """An image of a split that is left on disk, by its number."""

    items: list[Item]
    decode: partial

    def __call__(self, i: int) -> np.ndarray:
        _, image = self.decode(self.items[i])
        if isinstance(image, UserError):
            raise image
        return image


@dataclass(frozen=True)
class Views:
    """Samples of a split that is left on disk, see `disk.batches`: random views, cut while they are
    decoded.
    """

    items: list[Item]
    labels: np.ndarray
    rarity: np.ndarray
    size: tuple[int, int]
    channels: int
    range16: Rule
    area: float
    aspect: float

    def __call__(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        region = partial(streaming.random_region, area=self.area, aspect=self.aspect, rng=rng)
        image = images.view(self.items[i].place, self.size, region, self.channels, self.range16)
        return {"images": image, "labels": self.labels[i], "rarity": self.rarity[i]}


def views(
    split: Labeled, rarity: np.ndarray, size: tuple[int, int], area: float, aspect: float
) -> Views:
    """Random views of a split that is left on disk, as `disk.random_region` draws them."""
    read = split.images.read  # type: ignore[attr-defined]
    known = read.decode.keywords
    channels, range16 = known["channels"], known["range16"]
    return Views(read.items, split.labels, rarity, size, channels, range16, area, aspect)


def _list(root: Place, split: str) -> list[Item]:
    found = {
        file.name.removesuffix(".txt"): (home, file)
        for home in homes(root)
        for file in files(home, ".txt")
    }
    if split not in found:
        raise no_split(root, split, [*found])
    (home, place), items = found[split], []
    for number, line in enumerate(images.content(place).decode().splitlines(), start=1):
        path = line.rpartition(" ")[0] or line
        *_, label, name = PurePosixPath(path).parts if "/" in path else ("", "")
        if not label:
            raise UserError(f"{place}, line {number}: {line!r}: give <path with a folder> <number>")
        items.append(Item(home / path, f"{label}/{name}", label))
    return items


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


def _prepared(root: Place, split: str, stream: bool) -> list[Item]:
    tfds = import_tfds()
    try:
        builder = tfds.builder_from_directory(root)
        names = builder.info.features["label"].names
        rows = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        if stream:
            labels = [names[label] for label in numbers(rows, Path(str(root)), split)]
            items = [Item(Record(rows, k), f"{k:08}", label) for k, label in enumerate(labels)]
        else:
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
