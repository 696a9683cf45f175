"""The YOLO layout: one text file per image, one line per object.

    data.yaml: names, and for each split the folder of its images, or a .txt that lists them
    images/<split>/<name>.jpg and labels/<split>/<name>.txt   or   <split>/images, <split>/labels

A line is "class x y w h", center and size as fractions of the image's width and height, classes
counted from 0; or "class x1 y1 x2 y2 x3 y3 ..", a polygon, whose enclosing box is used. An image
without a text file has no objects. Format: https://docs.ultralytics.com/datasets/detect.

The paths in a yaml are often those of another machine. Therefore only the tail of a path is used:
its longest trailing part that exists next to the yaml. Nothing outside that folder is read.

Terms in this module: `data_dir` is the folder of the yaml, or of images and labels; `class_file`
names the classes: the yaml, or a classes.txt; a `location` is a path from `data_dir` to a folder of
images, or to a .txt that lists images.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any

import yaml

from tinyjax.data.images import SUFFIXES
from tinyjax.data.layouts.listing import (
    SPLIT_ALIASES,
    Entry,
    Label,
    Listing,
    OnError,
    candidate_roots,
    list_files,
    list_folders,
    read_text,
    unknown_split,
    walk_files,
)
from tinyjax.data.sources import AnyPath, read_bytes
from tinyjax.errors import UserError

YAML_NAMES = ("data.yaml", "dataset.yaml", "data.yml")
CLASSES = "classes.txt"
# Folders of classes.txt for a split; labelImg writes one next to the labels of each split.
CLASS_FOLDERS = ("", "labels")
SPLIT_CLASS_FOLDERS = ("{}", "labels/{}", "{}/labels", "images/{}")
SPLITS = ("train", "val", "valid", "test")


def list_splits(root: AnyPath) -> list[str]:
    """The names of the splits that exist."""
    if not (class_list := find_class_list(root)):
        return []
    data_dir, class_file = class_list
    names = _yaml_splits(class_file) or _folder_names(data_dir)
    return [
        name
        for name in names
        if any(
            _images(data_dir, class_file, location)
            for location in _locations(data_dir, class_file, name)[0]
        )
    ]


def explain_mismatch(root: AnyPath) -> str:
    """Why a set that resembles YOLO cannot be read as YOLO; "" if it does not resemble YOLO."""
    for data_dir in candidate_roots(root):
        if len(yamls := _yamls_with_names(data_dir)) > 1:
            names = ", ".join(file.name for file in yamls)
            message = f"{data_dir}: {names} all have names; keep one of them"
            return f"{message}, or rename it to data.yaml"
    if not (class_list := find_class_list(root)):
        return ""
    data_dir, class_file = class_list
    missing = [
        f"{split}: {path}"
        for split in _yaml_splits(class_file)
        for path in _locations(data_dir, class_file, split)[1]
    ]
    return (
        f"{class_file}: no images next to it{''.join(f'; {text}' for text in missing)}; "
        "put them into images/train and images/val, or train/images and val/images"
    )


def read_listing(root: AnyPath, split: str, on_error: OnError) -> Listing:
    """Read a split's text files; boxes are relative to the image.

    Raises UserError if no file lists the classes, if the split is unknown, or if a path in the yaml
    does not exist. Reported to `on_error`: an invalid line, a class number that is not listed, a
    label file without image.
    """
    if not (class_list := find_class_list(root)):
        raise UserError(f"{root}: no data.yaml and no classes.txt; one must name the classes")
    data_dir, class_file = class_list
    names = _class_names(class_file)
    pose = _is_yaml(class_file) and "kpt_shape" in _parse(class_file)
    locations, missing = _locations(data_dir, class_file, split)
    if missing:
        raise UserError(
            f"{class_file}: {split}: {', '.join(missing)}: no trailing part of that path exists "
            f"next to the yaml, nor images/{split} or {split}/images"
        )
    if not locations:
        raise unknown_split(root, split, list_splits(root))
    entries = []
    for location in locations:
        images = _images(data_dir, class_file, location)
        label_files = _label_files(data_dir, location, [path for _, path in images])
        if images and not label_files:
            folder = data_dir / _label_folder(location)
            message = f"{folder}: no label files (*.txt) for the images in {data_dir / location}"
            raise UserError(message)
        if not _is_list(location):  # the images of a list share label folders with other splits
            for path in sorted(label_files.keys() - {_label_path(path) for _, path in images}):
                name = PurePosixPath(path).name
                message = f"{label_files[path]}: no image {name} in {data_dir / location}"
                on_error("missing image", message)
        for name, path in images:
            label_file = label_files.get(_label_path(path))
            labels = _read_labels(label_file, names, pose, on_error) if label_file else []
            entries.append(Entry(data_dir / path, {"file_name": name}, labels))
    return Listing(str(class_file), entries, names, relative=True)


# ---- classes


def find_class_list(root: AnyPath) -> tuple[AnyPath, AnyPath] | None:
    """The `data_dir`, and the file that names the classes.

    Raises UserError if several classes.txt of a set number the classes differently.
    """
    for data_dir in candidate_roots(root):
        for name in YAML_NAMES:
            if (data_dir / name).is_file():
                return data_dir, data_dir / name
        if len(yamls := _yamls_with_names(data_dir)) == 1:
            return data_dir, yamls[0]
    for folders in (CLASS_FOLDERS, SPLIT_CLASS_FOLDERS):
        for data_dir in candidate_roots(root):
            candidates = [
                (data_dir / folder.format(split) / CLASSES, split)
                for split in _folder_names(data_dir)
                for folder in folders
            ]
            files = [
                f for f, split in candidates if f.is_file() and _default_folder(data_dir, split)
            ]
            if files:
                return data_dir, _longest_list(files)
    return None


def _yamls_with_names(data_dir: AnyPath) -> list[AnyPath]:
    """The yaml files in a folder that name classes; none if a file of `YAML_NAMES` exists."""
    if any((data_dir / name).is_file() for name in YAML_NAMES):
        return []
    yamls = []
    for file in list_files(data_dir, (".yaml", ".yml")):
        try:
            yamls += [file] if "names" in _parse(file) else []
        except UserError:  # an unrelated yaml
            continue
    return yamls


def _longest_list(files: list[AnyPath]) -> AnyPath:
    """The longest of several classes.txt: labelImg writes one per folder and appends new classes.

    Raises UserError if another one is not a prefix of it.
    """
    longest = max(files, key=lambda file: len(_class_names(file)))
    for file in files:
        if (names := _class_names(file)) != _class_names(longest)[: len(names)]:
            raise UserError(f"{file}: other classes than in {longest}; make the two lists the same")
    return longest


def _class_names(file: AnyPath) -> tuple[str, ...]:
    if not _is_yaml(file):
        names: Any = [line.strip() for line in read_text(file).splitlines()]
        names = [name for name in names if name]
    else:
        names = _parse(file).get("names")
        if isinstance(names, dict) and set(names) == set(range(len(names))):
            names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{file}: names: {names!r}; give the classes, a list or 0: name, 1: name")
    return tuple(map(str, names))


# ---- paths


def _yaml_splits(class_file: AnyPath) -> dict[str, list[str]]:
    """The paths in the yaml, by split."""
    return {split: paths for split in SPLITS if (paths := _strings(class_file, split))}


def _strings(class_file: AnyPath, field: str) -> list[str]:
    value = _parse(class_file).get(field) if _is_yaml(class_file) else None
    return [str(v) for v in value] if isinstance(value, list) else [str(value)] if value else []


def _locations(data_dir: AnyPath, class_file: AnyPath, split: str) -> tuple[list[str], list[str]]:
    """The locations of a split's images, and the yaml's paths that do not exist.

    If none of the yaml's paths exists, the location is the split's default folder.
    """
    yaml_splits = _yaml_splits(class_file)
    values = _strings(class_file, split)
    others = [_path_parts(v) for vs in yaml_splits.values() for v in vs if v not in values]

    def is_location(path: AnyPath) -> bool:
        return path.is_dir() or (_is_list(path.name) and path.is_file())

    base = "".join(_strings(class_file, "path"))
    tails = {value: _existing_tail(data_dir, base, value, is_location, others) for value in values}
    if any(tail is not None for tail in tails.values()):
        existing = [tail for tail in tails.values() if tail is not None]
        locations = [f"{p}/images" if (data_dir / p / "images").is_dir() else p for p in existing]
        return locations, [value for value, tail in tails.items() if tail is None]
    alias = SPLIT_ALIASES.get(split, split)
    folder = _default_folder(data_dir, split)
    if not folder and alias not in yaml_splits:
        folder = _default_folder(data_dir, alias)
    return ([folder], []) if folder else ([], values)


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


def _default_folder(data_dir: AnyPath, split: str) -> str:
    """The conventional folder of a split's images; "" if none has images."""
    folders = (f"images/{split}", f"{split}/images", split)
    return next((folder for folder in folders if walk_files(data_dir / folder, SUFFIXES)), "")


def _folder_names(data_dir: AnyPath) -> list[str]:
    """The possible names of splits, from the folders that exist."""
    parents = (folder for folder in (data_dir, data_dir / "images") if folder.is_dir())
    names = dict.fromkeys(folder.name for parent in parents for folder in list_folders(parent))
    return [name for name in names if name not in ("images", "labels")]


def _images(data_dir: AnyPath, class_file: AnyPath, location: str) -> list[tuple[str, str]]:
    """(file name, path from `data_dir`) of a location's images, including subfolders."""
    if not _is_list(location):
        return [
            (path, _join(location, path)) for path, _ in walk_files(data_dir / location, SUFFIXES)
        ]
    lines = [line.strip() for line in read_text(data_dir / location).splitlines() if line.strip()]
    base = "".join(_strings(class_file, "path"))
    tails = [_existing_tail(data_dir, base, line, lambda path: path.is_file()) for line in lines]
    paths = [tail or "/".join(_path_parts(line)) for tail, line in zip(tails, lines, strict=True)]
    return [(path, path) for path in paths]


def _label_files(data_dir: AnyPath, location: str, images: list[str]) -> dict[str, AnyPath]:
    """The label files of a location, by their path from `data_dir` without suffix."""
    if _is_list(location):
        folders = dict.fromkeys(_label_folder(path.rpartition("/")[0]) for path in images)
        files = [(_join(d, f.name), f) for d in folders for f in list_files(data_dir / d, ".txt")]
    else:
        folder = _label_folder(location)
        files = [(_join(folder, path), f) for path, f in walk_files(data_dir / folder, ".txt")]
    return {_without_suffix(path): f for path, f in files if f.name != CLASSES}


def _label_folder(folder: str) -> str:
    """images/train -> labels/train, train/images -> train/labels; else the images' folder."""
    before, images, after = f"/{folder}/".rpartition("/images/")
    return f"{before}/labels/{after}".strip("/") if images else folder


def _label_path(image: str) -> str:
    folder, _, name = image.rpartition("/")
    return _without_suffix(_join(_label_folder(folder), name))


def _without_suffix(path: str) -> str:
    return path.rpartition(".")[0]


def _join(folder: str, path: str) -> str:
    return f"{folder}/{path}" if folder else path


def _is_list(location: str) -> bool:
    return location.endswith(".txt")


# ---- content


def _read_labels(
    file: AnyPath, names: tuple[str, ...], pose: bool, on_error: OnError
) -> list[Label]:
    labels = []
    try:
        lines = read_text(file).splitlines()
    except UserError as error:
        on_error("bad label file", str(error))
        return []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        source = f"{file}: line {number}"
        try:
            label, *values = map(float, line.split())
        except ValueError:
            on_error("bad label", f"{source}: {line!r}; give numbers: class x y width height")
            continue
        if pose:
            values = values[:4]  # the rest are keypoints
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            message = f"{source}: {1 + len(values)} numbers; give class x y width height"
            on_error("bad label", message)
        elif label not in range(len(names)):
            message = f"{source}: class {line.split()[0]}; give 0 to {len(names) - 1}"
            on_error("unknown category", message)
        elif len(values) == 4 and max(values) > 2:
            message = f"{source}: {line!r} is in pixels; give fractions of the image's size"
            on_error("bad box", message)
        else:
            labels.append(Label(source, names[int(label)], _box(values)))
    return labels


def _box(values: list[float]) -> tuple[float, float, float, float]:
    if len(values) > 4:
        x, y = values[::2], values[1::2]
        return min(x), min(y), max(x), max(y)
    cx, cy, w, h = values
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


def _parse(file: AnyPath) -> dict[str, Any]:
    try:
        document = yaml.safe_load(read_bytes(file))
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{file}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(document, dict):
        raise UserError(f"{file}: not a data.yaml: no fields; it needs names")
    return document


def _is_yaml(file: AnyPath) -> bool:
    return not file.name.endswith(".txt")
