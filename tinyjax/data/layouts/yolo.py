"""The YOLO layout: one text file per image, one line per object.

    data.yaml: names, and for each split the folder of its images, or a .txt that lists them
    images/<split>/<name>.jpg and labels/<split>/<name>.txt   or   <split>/images, <split>/labels

    classes.txt: names, one per line, instead of a yaml, as labelImg and Label Studio write it
    obj.names: names; obj.data: the lists of images; obj_<split>_data: images and text files, as
    Darknet and CVAT's YOLO 1.1 have them

Without folders or lists of splits, the images in images/ or in the root are the split "all".

A line is "class x y w h", center and size as fractions of the image's width and height, classes
counted from 0; or "class x1 y1 x2 y2 x3 y3 ..", a polygon, whose enclosing box is used. An image
without a text file has no objects. Format: https://docs.ultralytics.com/datasets/detect.

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
    Label,
    Listing,
    OnError,
    candidate_roots,
    list_files,
    parent,
    read_text,
    unknown_split,
    walk_files,
)
from tinyjax.data.layouts.yolo_paths import (
    CLASSES,
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
    split is unknown, or if a path in the yaml does not exist. Reported to `on_error`: an invalid
    line, a class number that is not listed, a label file without image.
    """
    if not (class_list := find_class_list(root)):
        raise UserError(f"{root}: no data.yaml and no classes.txt; one must name the classes")
    data_dir, class_file = class_list
    names = _class_names(class_file)
    if not root.is_file():  # a yaml that is the source decides
        _check_class_files(data_dir, class_file)
    pose = is_yaml(class_file) and "kpt_shape" in _parse(class_file)
    fields = _path_fields(class_file)
    locations, missing = find_locations(data_dir, fields, split)
    if missing:
        raise UserError(
            f"{class_file}: {split}: {', '.join(missing)}: no trailing part of that path exists "
            f"next to the yaml, nor images/{split} or {split}/images"
        )
    if not locations:
        raise unknown_split(root, split, list_splits(root))
    entries = []
    for location in locations:
        images = list_location(data_dir, fields, location)
        files = label_files(data_dir, location, [path for _, path in images])
        if images and not files:
            folder = data_dir / label_folder(location)
            message = f"{folder}: no label files (*.txt) for the images in {data_dir / location}"
            raise UserError(message)
        if not is_list(location):  # the images of a list share label folders with other splits
            for path in sorted(files.keys() - {label_path(path) for _, path in images}):
                name = PurePosixPath(path).name
                message = f"{files[path]}: no image {name} in {data_dir / location}"
                on_error("missing image", message)
        for name, path in images:
            label_file = files.get(label_path(path))
            labels = _read_labels(label_file, names, pose, on_error) if label_file else []
            entries.append(Entry(data_dir / path, {"file_name": name}, labels))
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
    names = _class_names(class_file)
    for file in (data_dir / folder / CLASSES for folder in CLASS_FOLDERS):
        if file.is_file() and (others := _class_names(file))[: len(names)] != names[: len(others)]:
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
    longest = max(files, key=lambda file: len(_class_names(file)))
    for file in files:
        if (names := _class_names(file)) != _class_names(longest)[: len(names)]:
            raise UserError(f"{file}: other classes than in {longest}; make the two lists the same")
    return longest


def _class_names(file: AnyPath) -> tuple[str, ...]:
    if not is_yaml(file):
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


def _path_fields(class_file: AnyPath) -> PathFields:
    """The fields of the yaml, or of Darknet's obj.data, as lists."""
    fields = _parse(class_file) if is_yaml(class_file) else _darknet_fields(class_file)
    return {str(name): as_strings(value) for name, value in fields.items()}


def _darknet_fields(class_file: AnyPath) -> dict[str, str]:
    """The lines "field = value" of obj.data next to obj.names; without it, the existing lists."""
    folder = parent(class_file)
    if not class_file.name.endswith(".names"):
        return {}
    if files := list_files(folder, ".data"):
        pairs = (line.partition("=") for line in read_text(files[0]).splitlines())
        return {field.strip(): value.strip() for field, _, value in pairs}
    return {split: f"{split}.txt" for split in SPLITS if (folder / f"{split}.txt").is_file()}


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


def is_yaml(file: AnyPath) -> bool:
    """Return whether the file that names the classes is a yaml."""
    return file.name.lower().endswith(YAML_SUFFIXES)
