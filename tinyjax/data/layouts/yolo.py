"""The YOLO layout: one text file per image, one line per object.

    data.yaml: names, and for each split the folder of its images, or a .txt that lists them
    images/<split>/<name>.jpg and labels/<split>/<name>.txt   or   <split>/images, <split>/labels

    classes.txt: names, one per line, instead of a yaml, as labelImg and Label Studio write it
    obj.names: names; obj.data: the lists of images; obj_<split>_data: images and text files, as
    Darknet and CVAT's YOLO 1.1 have them

Without folders or lists of splits, the images in images/ or in the root are the split "all".

`yolo_labels` reads the lines; classes are counted from 0. An image without a text file has no
objects. Format: https://docs.ultralytics.com/datasets/detect.

The paths in a yaml are often those of another machine. Therefore only the tail of a path is used:
its longest trailing part that exists next to the yaml. Nothing outside that folder is read.

Terms in this module: `data_dir` is the folder of the yaml, or of images and labels; `class_file`
names the classes: the yaml, a classes.txt or obj.names; `yolo_paths` explains the other terms.
"""

import re
from pathlib import PurePosixPath
from typing import Any

import yaml

from tinyjax.data.images import SUFFIXES
from tinyjax.data.layouts.listing import (
    UNSPLIT,
    Entry,
    Listing,
    OnError,
    candidate_roots,
    explain_missing,
    list_files,
    parent,
    read_text,
    unknown_split,
    unread_hint,
    walk_files,
    warn_unread,
)
from tinyjax.data.layouts.yolo_labels import read_labels
from tinyjax.data.layouts.yolo_paths import (
    CLASSES,
    NULL,
    SPLITS,
    PathFields,
    as_strings,
    default_folder,
    find_locations,
    folder_names,
    is_list,
    label_files,
    label_folder,
    label_path,
    list_location,
    split_images,
)
from tinyjax.data.sources import AnyPath, read_bytes
from tinyjax.errors import UserError

YAML_NAMES = ("data.yaml", "dataset.yaml", "data.yml")
YAML_SUFFIXES = (".yaml", ".yml")
DARKNET_NAMES = "obj.names"
# Folders of classes.txt for a split; labelImg writes one next to the labels of each split.
CLASS_FOLDERS = ("", "labels")
SPLIT_CLASS_FOLDERS = ("{}", "labels/{}", "{}/labels", "images/{}")
LABEL_LINE = re.compile(rb"^\s*\d+(\s+-?[\d.]+(e-?\d+)?){4,}\s*$", re.MULTILINE)


def list_splits(root: AnyPath) -> list[str]:
    """The names of the splits that exist."""
    if not (class_list := find_class_list(root)):
        return []
    data_dir, class_file = class_list
    fields = _path_fields(class_file)
    names = [split for split in SPLITS if fields.get(split)] or folder_names(data_dir)
    existing = [name for name in names if split_images(data_dir, fields, name)]
    return existing or ([UNSPLIT] if split_images(data_dir, fields, UNSPLIT) else [])


def has_labels(root: AnyPath) -> bool:
    """Return whether an image of a split has a label file."""
    if not (class_list := find_class_list(root)):
        return False
    data_dir, class_file = class_list
    fields = _path_fields(class_file)
    for split in list_splits(root):
        for location, images in split_images(data_dir, fields, split).items():
            paths = [path for _, path in images]
            if label_files(data_dir, location, paths).keys() & {*map(label_path, paths)}:
                return True
    return False


def explain_mismatch(root: AnyPath) -> str:
    """Why a set that resembles YOLO cannot be read as YOLO; "" if it does not resemble YOLO."""
    for data_dir in candidate_roots(root):
        if len(yamls := _yamls_with_names(data_dir)) > 1:
            names = ", ".join(file.name for file in yamls)
            message = f"{data_dir}: {names} all have names; keep one of them"
            return f"{message}, rename it to data.yaml, or give it as the source"
    if not (class_list := find_class_list(root)):
        return _explain_missing_names(root)
    data_dir, class_file = class_list
    fields = _path_fields(class_file)
    missing = [
        f"{split}: {path}"
        for split in SPLITS
        if fields.get(split)
        for path in find_locations(data_dir, fields, split)[1]
    ]
    return (
        f"{class_file}: no images next to it{''.join(f'; {text}' for text in missing)}; "
        "put them into images/train and images/val, or train/images and val/images"
        f"{unread_hint(data_dir)}"
    )


def _explain_missing_names(root: AnyPath) -> str:
    """A message if images have YOLO's label files, but no file names the classes; else ""."""
    labels = label_files(root, "", [])
    for path in (label_path(image) for image, _ in walk_files(root, SUFFIXES)):
        if path in labels and LABEL_LINE.search(read_bytes(labels[path])):
            return (
                f"{labels[path]}: a YOLO label file, but no file names the classes; write "
                f"{parent(labels[path]) / CLASSES} with one class per line, in order of their "
                "numbers"
            )
    return ""


def read_listing(root: AnyPath, split: str, on_error: OnError) -> Listing:
    """Read a split's text files; boxes are relative to the image.

    Raises UserError if no file lists the classes, if two files number them differently, if the
    split is unknown, or if a path in the yaml does not exist. Reported to `on_error`: a label file
    without image, and as `read_labels`.
    """
    if not (class_list := find_class_list(root)):
        raise UserError(f"{root}: no data.yaml and no classes.txt; one must name the classes")
    data_dir, class_file = class_list
    names = class_names(class_file)
    if not root.is_file():  # a yaml that is the source decides
        _check_class_files(data_dir, class_file)
    fields = _path_fields(class_file)
    locations, missing = find_locations(data_dir, fields, split)
    if missing:
        raise UserError(
            f"{class_file}: {split}: {', '.join(missing)}: no trailing part of that path exists "
            f"next to the yaml, nor images/{split} or {split}/images"
        )
    if not locations:
        raise unknown_split(root, split, list_splits(root))
    rows: dict[str, tuple[str, AnyPath | None]] = {}  # a list may name an image twice
    for location in locations:
        images = list_location(data_dir, fields, location)
        files = label_files(data_dir, location, [path for _, path in images])
        if images and not files:
            folder = data_dir / label_folder(location)
            message = f"{folder}: no label files (*.txt) for the images in {data_dir / location}"
            raise UserError(message)
        if not is_list(location):  # the images of a list share label folders with other splits
            warn_unread(data_dir / location)
            for path in sorted(files.keys() - {label_path(path) for _, path in images}):
                name = PurePosixPath(path).name
                message = f"{files[path]}: no image {name} in {data_dir / location}"
                image = location + path.removeprefix(label_folder(location)) + ".jpg"
                on_error("missing image", message + explain_missing(data_dir / image))
        for name, path in images:
            rows.setdefault(path, (name, files.get(label_path(path))))
    label_paths = [label_file for _, label_file in rows.values()]
    labels = read_labels(label_paths, names, keypoint_shape(class_file), on_error)
    entries = [
        Entry(data_dir / path, {"file_name": name}, image_labels)
        for (path, (name, _)), image_labels in zip(rows.items(), labels, strict=True)
        if image_labels is not None
    ]
    return Listing(str(class_file), entries, names, relative=True)


# ---- classes


def find_class_list(root: AnyPath) -> tuple[AnyPath, AnyPath] | None:
    """The `data_dir`, and the file that names the classes.

    Raises UserError if several classes.txt of a set number the classes differently.
    """
    if root.is_file():  # the yaml is the source
        return parent(root), root
    for data_dir in candidate_roots(root):
        for name in YAML_NAMES:
            if (data_dir / name).is_file():
                return data_dir, data_dir / name
        if len(yamls := _yamls_with_names(data_dir)) == 1:
            return data_dir, yamls[0]
    for folders in (CLASS_FOLDERS, SPLIT_CLASS_FOLDERS):
        for data_dir in candidate_roots(root):
            files = [
                file
                for split in folder_names(data_dir)
                for folder in folders
                if (file := data_dir / folder.format(split) / CLASSES).is_file()
                and default_folder(data_dir, split) is not None
            ]
            if files:
                return data_dir, _longest_list(files)
    for data_dir in candidate_roots(root):
        files = [file for name in CLASS_FOLDERS if (file := data_dir / name / CLASSES).is_file()]
        if files and default_folder(data_dir, UNSPLIT) is not None:
            return data_dir, _longest_list(files)
        if (file := data_dir / DARKNET_NAMES).is_file():
            return data_dir, file
    return None


def _check_class_files(data_dir: AnyPath, class_file: AnyPath) -> None:
    """Raise UserError if a yaml and a classes.txt number the classes differently."""
    names = class_names(class_file)
    for file in (data_dir / folder / CLASSES for folder in CLASS_FOLDERS):
        if file.is_file() and (others := class_names(file))[: len(names)] != names[: len(others)]:
            raise UserError(
                f"{file}: {', '.join(others)}; but {class_file}: {', '.join(names)}; correct one "
                "of them, or give the yaml as the source"
            )


def _yamls_with_names(data_dir: AnyPath) -> list[AnyPath]:
    """The yaml files in a folder that name classes; none if a file of `YAML_NAMES` exists."""
    if any((data_dir / name).is_file() for name in YAML_NAMES):
        return []
    yamls = []
    for file in list_files(data_dir, YAML_SUFFIXES):
        try:
            yamls += [file] if "names" in _parse(file) else []
        except UserError:  # an unrelated yaml
            continue
    return yamls


def _longest_list(files: list[AnyPath]) -> AnyPath:
    """The longest of several classes.txt: labelImg writes one per folder and appends new classes.

    Raises UserError if another one is not a prefix of it.
    """
    longest = max(files, key=lambda file: len(class_names(file)))
    for file in files:
        if (names := class_names(file)) != class_names(longest)[: len(names)]:
            raise UserError(f"{file}: other classes than in {longest}; make the two lists the same")
    return longest


def class_names(file: AnyPath) -> tuple[str, ...]:
    """The names of classes 0, 1, ..

    Raises UserError if one is missing or given twice, or if the yaml's nc is another number.
    """
    if is_yaml(file):
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
    count = _parse(file).get("nc", "") if is_yaml(file) else ""
    if count not in (*NULL, str(len(names))):
        raise UserError(f"{file}: nc is {count}, but names has {len(names)}; correct one of them")
    return tuple(names)


def keypoint_shape(class_file: AnyPath) -> tuple[int, int] | None:
    """(n, d) of kpt_shape, n key points of d numbers; None if the yaml has none."""
    shape = _parse(class_file).get("kpt_shape", "") if is_yaml(class_file) else ""
    match shape:
        case [str(points), "2" | "3" as size] if points.isdecimal() and int(points) > 0:
            return int(points), int(size)
        case str() if shape in NULL:
            return None
    raise UserError(
        f"{class_file}: kpt_shape: {shape!r}; give [number of key points, 2 or 3 numbers each]"
    )


# ---- paths


def _path_fields(class_file: AnyPath) -> PathFields:
    """The fields of the yaml, or of Darknet's obj.data, as lists."""
    fields = _parse(class_file) if is_yaml(class_file) else _darknet_fields(class_file)
    return {name: as_strings(value) for name, value in fields.items()}


def _darknet_fields(class_file: AnyPath) -> dict[str, str]:
    """The lines "field = value" of obj.data next to obj.names; without it, the existing lists."""
    folder = parent(class_file)
    if not class_file.name.endswith(".names"):
        return {}
    if files := list_files(folder, ".data"):
        pairs = (line.partition("=") for line in read_text(files[0]).splitlines())
        return {field.strip(): value.strip() for field, _, value in pairs}
    return {split: f"{split}.txt" for split in SPLITS if (folder / f"{split}.txt").is_file()}


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


def is_yaml(file: AnyPath) -> bool:
    """Return whether the file that names the classes is a yaml."""
    return file.name.lower().endswith(YAML_SUFFIXES)
