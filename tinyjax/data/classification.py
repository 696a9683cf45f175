"""Classification data: images with one label each.

    <split>/<class>/<name>.jpg      a folder or a .zip; subfolders of a class are included

or lists of images, as in DomainNet, where the classes are folder names:

    <split>.txt                     lines of "<path> <number>", paths relative to the list

or a TensorFlow Datasets set, prepared as ArrayRecord, with features "image" and "label".
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from tinyjax.data import images, streaming
from tinyjax.data.images import SUFFIXES, Range16
from tinyjax.data.layouts.arrayrecord import ImageBytes, RecordImage, import_tfds, load_labels
from tinyjax.data.layouts.listing import (
    OnError,
    candidate_roots,
    describe_unread,
    list_files,
    list_folders,
    list_images,
    list_unread,
    read_text,
    split_command,
    unknown_split,
    walk_files,
    warn_unread,
)
from tinyjax.data.layouts.selection import take_evenly
from tinyjax.data.options import ClassificationOptions, parse_size
from tinyjax.data.prefetch import map_ahead
from tinyjax.data.records import ClassificationSplit
from tinyjax.data.sources import AnyPath, ImageFile, open_source
from tinyjax.errors import UserError, shorten, suggest

LIST_LINE = re.compile(r"\s*(.+?)(?:\s+(\d+))?\s*")  # of a list: <path> <number>


class ImageItem(NamedTuple):
    file: ImageFile
    name: str  # "<class>/<path>"
    label: str


class NamedFile(Protocol):
    """What decoding needs of an item."""

    @property
    def file(self) -> ImageFile: ...
    @property
    def name(self) -> str: ...


Item = TypeVar("Item", bound=NamedFile)


def load(options: ClassificationOptions) -> ClassificationSplit:
    """Load one split, in order of class and file name.

    With `stream` its images stay on disk, and one that cannot be read raises UserError on access.

    Raises UserError for: a missing source, split or class; a class without images; an image that
    cannot be read.
    """
    source, split = options.source, options.split
    if (size := parse_size(options.size)) is None:
        raise UserError("size = None: give data.common.size, (height, width) in pixels")
    images.check_options(options.channels, options.range16, options.fit)
    layouts: dict[str, Callable[[AnyPath, str], list[ImageItem]]] = {
        "folder": partial(_items_from_folder, classes=options.classes),
        "list": _items_from_list,
        "tfds": partial(_items_from_tfds, stream=options.stream),
    }
    if options.layout not in layouts:
        raise UserError(f"layout = {options.layout!r}: {suggest(options.layout, layouts)}")
    with open_source(source) as root:
        options.check_streamable(root)
        items = layouts[options.layout](root, split)
        labels = sorted({item.label for item in items})
        for name in options.classes:
            if name not in labels:
                raise UserError(
                    f"{source}, split {split!r}: no class {name!r}; {suggest(name, labels)}"
                )
        classes = tuple(options.classes) or tuple(labels)
        class_ids = {name: k for k, name in enumerate(classes)}
        in_classes = [item for item in items if item.label in class_ids]
        selected = take_evenly(in_classes, options.limit, lambda item: item.name)
        decode = partial(
            decode_item,
            channels=options.channels,
            range16=options.range16,
            size=size,
            fit=options.fit,
            corruption=options.corruption,
        )
        pixels: Any
        if options.stream:
            shape = (len(selected), *size, options.channels)
            files = [item.file for item in selected]
            pixels = streaming.Images(ImageReader(selected, decode), shape, files)
        else:
            pixels, selected = decode_items(selected, decode, options.on_error)
    if not selected:
        raise UserError(f"{source}: split {split!r} has no valid images")
    return ClassificationSplit(
        inputs={"image": pixels},
        labels=np.array([class_ids[item.label] for item in selected], np.int32),
        names=tuple(item.name for item in selected),
        classes=classes,
        left_out=len(items) - len(in_classes),
    )


# ---- images


def decode_items(
    items: Sequence[Item], decode: Any, on_error: OnError
) -> tuple[np.ndarray, list[Item]]:
    """The readable images, uint8 [N, H, W, C], and their items."""
    pixels, readable = [], []
    for item, image in map_ahead(decode, items):
        if isinstance(image, UserError):
            on_error("unreadable image", str(image))
            continue
        pixels.append(image)
        readable.append(item)
    return np.stack(pixels) if pixels else np.zeros(0), readable


def decode_item(
    item: Item,
    channels: int,
    range16: Range16,
    size: tuple[int, int],
    fit: str,
    corruption: tuple[str, int] | None = None,
) -> tuple[Item, np.ndarray | UserError]:
    """The item, and its image as uint8 [H, W, C] or the error."""
    try:
        image = images.read_image(item.file, channels, range16)
        if corruption:
            from tinyjax.data.corruptions.corrupt import corrupt  # imports scipy

            image = corrupt(image, *corruption, item.name)
        return item, images.fit_image(image, size, fit)[0]
    except UserError as error:
        return item, error


@dataclass(frozen=True)
class ImageReader:
    """Reads an image of a streamed split by its index."""

    items: Sequence[Any]  # with the fields of `NamedFile`
    decode: partial

    def __call__(self, i: int) -> np.ndarray:
        _, image = self.decode(self.items[i])
        if isinstance(image, UserError):
            raise image
        return image


@dataclass(frozen=True)
class ViewSource:
    """Samples of a streamed split, for `streaming.batches`: random views, cropped on decoding."""

    items: list[ImageItem]
    labels: np.ndarray
    rarity: np.ndarray
    size: tuple[int, int]
    channels: int
    range16: Range16
    area: float
    aspect: float

    def __call__(self, i: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        region = partial(streaming.random_region, area=self.area, aspect=self.aspect, rng=rng)
        file = self.items[i].file
        image = images.read_region(file, self.size, region, self.channels, self.range16)
        return {"image": image, "labels": self.labels[i], "rarity": self.rarity[i]}


def make_view_source(
    split: ClassificationSplit,
    rarity: np.ndarray,
    size: tuple[int, int],
    area: float,
    aspect: float,
) -> ViewSource:
    """Return the random views of a streamed split, see `streaming.random_region`.

    rarity: float32 [N], for the loss, see `tasks.classify`. size: (h, w) of a view.
    """
    reader = split.inputs["image"].read
    options = reader.decode.keywords
    channels, range16 = options["channels"], options["range16"]
    return ViewSource(reader.items, split.labels, rarity, size, channels, range16, area, aspect)


# ---- layouts


def _items_from_list(root: AnyPath, split: str) -> list[ImageItem]:
    lists = {
        file.name.removesuffix(".txt"): (data_dir, file)
        for data_dir in candidate_roots(root)
        for file in list_files(data_dir, ".txt")
    }
    if split not in lists:
        raise unknown_split(root, split, [*lists])
    (data_dir, file), items = lists[split], []
    pairs: dict[str, str] = {}  # class -> number, and number -> class
    for position, line in enumerate(read_text(file).splitlines(), start=1):
        if not line.strip():
            continue
        path, number = _parse_list_line(line)
        if len(path.parts) < 2:
            raise UserError(
                f"{file}, line {position}: {line!r}: give <path with a folder> <number>"
            )
        *_, label, name = path.parts
        for one, other in (("class " + label, number), ("number " + number, label)):
            if number and pairs.setdefault(one, other) != other:
                raise UserError(
                    f"{file}, line {position}: {one} has {other}, but {pairs[one]} before; the "
                    "class is the name of the image's folder, and each class has one number"
                )
        items.append(ImageItem(data_dir / str(path), f"{label}/{name}", label))
    return items


def _parse_list_line(line: str) -> tuple[PurePosixPath, str]:
    """The path and the number of a list's line; the number is "" if there is none."""
    match = LIST_LINE.fullmatch(line)
    path, number = match.groups(default="") if match else ("", "")
    return PurePosixPath(path.replace("\\", "/")), number


def _items_from_folder(root: AnyPath, split: str, classes: Sequence[str]) -> list[ImageItem]:
    def candidates() -> Iterator[AnyPath]:
        return (folder for data_dir in candidate_roots(root) for folder in list_folders(data_dir))

    # Prefer a folder whose class folders contain images directly: archives often wrap a split in a
    # folder of the same name.
    for has_images in (list_images, partial(walk_files, suffix=SUFFIXES)):
        for folder in candidates():
            if folder.name == split and any(map(has_images, list_folders(folder))):
                return [
                    ImageItem(file, f"{class_folder.name}/{path}", class_folder.name)
                    for class_folder in list_folders(folder)
                    for path, file in _class_images(class_folder, classes)
                ]
    known = [folder.name for folder in candidates() if any(map(list_images, list_folders(folder)))]
    if not known and (folders := [folder.name for folder in candidates() if list_images(folder)]):
        raise UserError(
            f"{root}: folders of classes ({shorten(folders)}) without splits; divide them: "
            f"{split_command(root)} --format folder, then give data.format = list"
        )
    raise unknown_split(root, split, known, " --format folder")


def _class_images(folder: AnyPath, classes: Sequence[str]) -> list[tuple[str, AnyPath]]:
    """(path, file) of a class's images. Raises UserError if none is of a type that is read."""
    files = walk_files(folder, SUFFIXES)
    if not classes or folder.name in classes:
        if not files and (unread := describe_unread(list_unread(folder))):
            raise UserError(
                f"{folder}: only {unread}, or name the other classes in data.common.classes"
            )
        warn_unread(folder)
    return files


def _items_from_tfds(root: AnyPath, split: str, stream: bool) -> list[ImageItem]:
    tfds = import_tfds()
    try:
        builder = tfds.builder_from_directory(root)
        names = builder.info.features["label"].names
        rows = builder.as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        if stream:
            labels = [names[label] for label in load_labels(rows, Path(str(root)), split)]
            items = [
                ImageItem(RecordImage(rows, k), f"{k:08}", label) for k, label in enumerate(labels)
            ]
        else:
            items = []
            for k, row in enumerate(rows):
                name = f"{k:08}"
                file = ImageBytes(name, bytes(row["image"]))
                items.append(ImageItem(file, name, names[row["label"]]))
    except Exception as error:  # the library raises many types for other or damaged folders
        raise UserError(
            f"{root}: split {split!r} cannot be read ({error}); give the folder of a prepared "
            "version with features image and label, written as array_record"
        ) from error
    return sorted(items, key=lambda item: (item.label, item.name))
