"""The YOLO layout: one text file per image, one line per object.

    data.yaml: names, and for each split the folder of its images, or a .txt that lists them
    images/<split>/<name>.jpg and labels/<split>/<name>.txt   or   <split>/images, <split>/labels

`yolo_labels` reads the lines; classes are counted from 0. An image without a text file has no
objects. Format: https://docs.ultralytics.com/datasets/detect.

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
    Listing,
    OnError,
    candidate_roots,
    explain_missing,
    list_files,
    list_folders,
    read_text,
    unknown_split,
    unread_hint,
    walk_files,
    warn_unread,
)
from tinyjax.data.layouts.yolo_labels import read_labels
from tinyjax.data.sources import AnyPath, read_bytes
from tinyjax.errors import UserError

YAML_NAMES = ("data.yaml", "dataset.yaml", "data.yml")
CLASSES = "classes.txt"
# Folders of classes.txt for a split; labelImg writes one next to the labels of each split.
CLASS_FOLDERS = ("", "labels")
SPLIT_CLASS_FOLDERS = ("{}", "labels/{}", "{}/labels", "images/{}")
SPLITS = ("train", "val", "valid", "test")
NULL = ("", "~", "null", "Null", "NULL")  # a field without a value


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
        f"{unread_hint(data_dir)}"
    )


def read_listing(root: AnyPath, split: str, on_error: OnError) -> Listing:
    """Read a split's text files; boxes are relative to the image.

    Raises UserError if no file lists the classes, if the split is unknown, or if a path in the yaml
    does not exist. Reported to `on_error`: a label file without image, and as `read_labels`.
    """
    if not (class_list := find_class_list(root)):
        raise UserError(f"{root}: no data.yaml and no classes.txt; one must name the classes")
    data_dir, class_file = class_list
    names = _class_names(class_file)
    keypoint_shape = _keypoint_shape(class_file)
    locations, missing = _locations(data_dir, class_file, split)
    if missing:
        raise UserError(
            f"{class_file}: {split}: {', '.join(missing)}: no trailing part of that path exists "
            f"next to the yaml, nor images/{split} or {split}/images"
        )
    if not locations:
        raise unknown_split(root, split, list_splits(root))
    all_images, all_labels = [], []
    for location in locations:
        images = _images(data_dir, class_file, location)
        label_files = _label_files(data_dir, location, [path for _, path in images])
        if images and not label_files:
            folder = data_dir / _label_folder(location)
            message = f"{folder}: no label files (*.txt) for the images in {data_dir / location}"
            raise UserError(message)
        if not _is_list(location):  # the images of a list share label folders with other splits
            warn_unread(data_dir / location)
            for path in sorted(label_files.keys() - {_label_path(path) for _, path in images}):
                name = PurePosixPath(path).name
                message = f"{label_files[path]}: no image {name} in {data_dir / location}"
                image = location + path.removeprefix(_label_folder(location)) + ".jpg"
                on_error("missing image", message + explain_missing(data_dir / image))
        all_images += images
        all_labels += [label_files.get(_label_path(path)) for _, path in images]
    labels = read_labels(all_labels, names, keypoint_shape, on_error)
    entries = [
        Entry(data_dir / path, {"file_name": name}, image_labels)
        for (name, path), image_labels in zip(all_images, labels, strict=True)
    ]
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
    """The names of classes 0, 1, ..

    Raises UserError if one is missing or given twice, or if the yaml's nc is another number.
    """
    if _is_yaml(file):
        names = _parse(file).get("names")
        if isinstance(names, dict) and set(names) == set(map(str, range(len(names)))):
            names = [names[str(i)] for i in range(len(names))]
    else:
        names = read_text(file).rstrip().splitlines()
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise UserError(f"{file}: names: {names!r}; give the classes, a list or 0: name, 1: name")
    names = [name.strip() for name in names]
    for i, name in enumerate(names):
        if not name:
            raise UserError(f"{file}: class {i} has no name; give each class a name")
        if (first := names.index(name)) < i:
            raise UserError(f"{file}: classes {first} and {i} are both {name!r}; rename one")
    count = _parse(file).get("nc", "") if _is_yaml(file) else ""
    if count not in (*NULL, str(len(names))):
        raise UserError(f"{file}: nc is {count}, but names has {len(names)}; correct one of them")
    return tuple(names)


def _keypoint_shape(class_file: AnyPath) -> tuple[int, int] | None:
    """(n, d) of kpt_shape, n key points of d numbers; None if the yaml has none."""
    shape = _parse(class_file).get("kpt_shape", "") if _is_yaml(class_file) else ""
    match shape:
        case [str(points), "2" | "3" as size] if points.isdecimal() and int(points) > 0:
            return int(points), int(size)
        case str() if shape in NULL:
            return None
    raise UserError(
        f"{class_file}: kpt_shape: {shape!r}; give [number of key points, 2 or 3 numbers each]"
    )


# ---- paths


def _yaml_splits(class_file: AnyPath) -> dict[str, list[str]]:
    """The paths in the yaml, by split."""
    return {split: paths for split in SPLITS if (paths := _strings(class_file, split))}


def _strings(class_file: AnyPath, field: str) -> list[str]:
    value = _parse(class_file).get(field, "") if _is_yaml(class_file) else ""
    return [str(v) for v in (value if isinstance(value, list) else [value]) if v not in NULL]


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


# ---- yaml


class _TextLoader(yaml.SafeLoader):
    """Keeps scalars as they are written: the classes no, 010 and null are not False, 8 and None."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (pyyaml's)
        "<": yaml.SafeLoader.yaml_implicit_resolvers["<"]  # the key << merges mappings
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        if repeated := [key for key in keys if keys.count(key) > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{repeated[0]}: given twice")
        return super().construct_mapping(node, deep)


def _parse(file: AnyPath) -> dict[str, Any]:
    """The fields of a yaml; values are text, lists or dicts of text."""
    try:
        document = yaml.load(read_bytes(file), _TextLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(document, dict):
        raise UserError(f"{file}: not a data.yaml: no fields; it needs names")
    return document


def _is_yaml(file: AnyPath) -> bool:
    return not file.name.endswith(".txt")
