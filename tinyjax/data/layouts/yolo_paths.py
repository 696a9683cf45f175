"""Paths of the YOLO layout: the images of a split, and their label files; see `yolo`.

`fields` are those of the yaml or of Darknet's obj.data: paths of each split, and "path", which
precedes them. A `location` is a path from `data_dir` to a folder of images, or to a .txt that lists
images.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tinyjax.data.images import SUFFIXES
from tinyjax.data.layouts.listing import (
    SPLIT_ALIASES,
    UNSPLIT,
    list_files,
    list_folders,
    list_images,
    parent,
    path_key,
    read_text,
    walk_files,
)
from tinyjax.data.sources import AnyPath

CLASSES = "classes.txt"
NULL = ("", "~", "null", "Null", "NULL")  # a field without a value
SPLITS = ("train", "val", "valid", "test")
DARKNET_FOLDER = re.compile(r"obj_(\w+)_data")

PathFields = Mapping[str, list[str]]


def as_strings(value: Any) -> list[str]:
    """A field of a yaml as a list; empty if it has no value."""
    return [str(v) for v in (value if isinstance(value, list) else [value]) if v not in NULL]


def find_locations(
    data_dir: AnyPath, fields: PathFields, split: str
) -> tuple[list[str], list[str]]:
    """The locations of a split's images, and the paths of `fields` that do not exist.

    If none of these paths exists, the location is the split's default folder.
    """
    values = fields.get(split, [])
    others = [
        _path_parts(value)
        for name in SPLITS
        for value in fields.get(name, [])
        if value not in values
    ]

    def is_location(path: AnyPath) -> bool:
        return path.is_dir() or (is_list(path.name) and path.is_file())

    base = "".join(fields.get("path", []))
    tails = {value: _existing_tail(data_dir, base, value, is_location, others) for value in values}
    if any(tail is not None for tail in tails.values()):
        existing = [tail for tail in tails.values() if tail is not None]
        locations = [f"{p}/images" if (data_dir / p / "images").is_dir() else p for p in existing]
        return locations, [value for value, tail in tails.items() if tail is None]
    alias = SPLIT_ALIASES.get(split, split)
    folder = default_folder(data_dir, split)
    if folder is None and not fields.get(alias):
        folder = default_folder(data_dir, alias)
    return ([], values) if folder is None else ([folder], [])


def _existing_tail(
    data_dir: AnyPath,
    base: str,
    value: str,
    accept: Callable[[AnyPath], bool],
    others: Iterable[tuple[str, ...]] = (),
) -> str | None:
    """The longest tail of `base`/`value` whose path from `data_dir` is accepted.

    A tail shared with one of `others`, the paths of other splits, does not count: it would not
    distinguish the splits.
    """
    if value in (".", "./"):
        return ""
    parts = _path_parts(value)
    full = _path_parts(base) + parts
    for length in range(len(full), 0, -1):
        tail = full[-length:]
        if length < len(parts) and any(other[-length:] == tail for other in others):
            return None
        if accept(data_dir / "/".join(tail)):
            return "/".join(tail)
    return None


def _path_parts(path: str) -> tuple[str, ...]:
    """D:\\a\\b, /a/b, ../a/b -> (a, b)"""
    without_drive = re.sub(r"^[A-Za-z]:", "", path.replace("\\", "/"))
    return tuple(part for part in without_drive.split("/") if part not in ("", ".", ".."))


def default_folder(data_dir: AnyPath, split: str) -> str | None:
    """The conventional folder of a split's images; None if none has images."""
    for folder in (f"images/{split}", f"{split}/images", split, f"obj_{split}_data"):
        if walk_files(data_dir / folder, SUFFIXES):
            return folder
    if split == UNSPLIT:
        return next((one for one in ("images", "") if list_images(data_dir / one)), None)
    return None


def folder_names(data_dir: AnyPath) -> list[str]:
    """The possible names of splits, from the folders that exist."""
    parents = (folder for folder in (data_dir, data_dir / "images") if folder.is_dir())
    folders = (folder.name for parent in parents for folder in list_folders(parent))
    names = dict.fromkeys(DARKNET_FOLDER.sub(r"\1", name) for name in folders)
    return [name for name in names if name not in ("images", "labels")]


def split_images(
    data_dir: AnyPath, fields: PathFields, split: str
) -> dict[str, list[tuple[str, str]]]:
    """Location -> (file name, path from `data_dir`) of a split's images; no empty locations."""
    locations, _ = find_locations(data_dir, fields, split)
    images = {location: list_location(data_dir, fields, location) for location in locations}
    return {location: pairs for location, pairs in images.items() if pairs}


def list_location(data_dir: AnyPath, fields: PathFields, location: str) -> list[tuple[str, str]]:
    """(file name, path from `data_dir`) of a location's images, including subfolders."""
    if not is_list(location):
        return [
            (path, _join(location, path)) for path, _ in walk_files(data_dir / location, SUFFIXES)
        ]
    lines = [line.strip() for line in read_text(data_dir / location).splitlines() if line.strip()]
    base = "".join(fields.get("path", []))
    paths = [_listed_image(data_dir, base, line) for line in lines]
    return [(path, path) for path in paths]


def _listed_image(data_dir: AnyPath, base: str, line: str) -> str:
    """The path from `data_dir` of a listed image; in an existing folder if the image is missing."""

    def is_in_folder(path: AnyPath) -> bool:
        folder = parent(path)
        return folder.is_dir() and str(folder) != str(data_dir)

    for accept in (lambda path: path.is_file(), is_in_folder):
        if tail := _existing_tail(data_dir, base, line, accept):
            return tail
    return "/".join(_path_parts(line))


def label_files(data_dir: AnyPath, location: str, images: list[str]) -> dict[str, AnyPath]:
    """The label files of a location, by the `path_key` of their path from `data_dir`."""
    if is_list(location):
        folders = dict.fromkeys(label_folder(path.rpartition("/")[0]) for path in images)
        files = [(_join(d, f.name), f) for d in folders for f in list_files(data_dir / d, ".txt")]
    else:
        folder = label_folder(location)
        files = [(_join(folder, path), f) for path, f in walk_files(data_dir / folder, ".txt")]
    return {path_key(path): f for path, f in files if f.name != CLASSES}


def label_folder(folder: str) -> str:
    """images/train -> labels/train, train/images -> train/labels; else the images' folder."""
    before, images, after = f"/{folder}/".rpartition("/images/")
    return f"{before}/labels/{after}".strip("/") if images else folder


def label_path(image: str) -> str:
    """The `path_key` of an image's label file."""
    folder, _, name = image.rpartition("/")
    return path_key(_join(label_folder(folder), name))


def _join(folder: str, path: str) -> str:
    return f"{folder}/{path}" if folder else path


def is_list(location: str) -> bool:
    """Return whether a location is a .txt that lists images."""
    return location.endswith(".txt")
