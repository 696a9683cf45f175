"""The YOLO layout: a text file for every image, a line for every object.

    data.yaml: names, and for each split the folder of its images
    images/<split>/<name>.jpg and labels/<split>/<name>.txt   or   <split>/images, <split>/labels

A line is "class x y w h", centre and size in parts of the image's width and height, classes counted
from 0; or "class x1 y1 x2 y2 x3 y3 ..", a polygon, of which the enclosing box is taken. An image
without a text file has no objects. Format: https://docs.ultralytics.com/datasets/detect.
"""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import yaml

from tinyjax.data.images import Place, content
from tinyjax.data.listing import (
    Entry,
    Label,
    Listing,
    Refuse,
    files,
    folders,
    homes,
    image_files,
    inside,
    no_split,
    stem,
    text,
)
from tinyjax.errors import UserError

LISTS = ("data.yaml", "dataset.yaml", "data.yml", "classes.txt")
SPLITS = ("train", "val", "valid", "test")


def splits(root: Place) -> list[str]:
    """The names of the splits that are there."""
    if not (found := find_list(root)):
        return []
    home, file = found
    said = [name for name in SPLITS if name in _parse(file)] if _is_yaml(file) else []
    here = [d.name for at in (home, home / "images") if at.is_dir() for d in folders(at)]
    names = said or [name for name in here if name not in ("images", "labels")]
    return [n for n in names if any(map(image_files, _folders(home, file, n)))]


def listing(root: Place, split: str, refuse: Refuse) -> Listing:
    """The split as its text files have it; boxes are relative to the image.

    Raises UserError if there is no list of classes, or no such split. Refused, one by one: a line
    that is none, or whose class is none of the list.
    """
    if not (found := find_list(root)):
        raise UserError(f"{root}: no data.yaml and no classes.txt; one must name the classes")
    home, file = found
    names, pose = _names(file), _is_yaml(file) and "kpt_shape" in _parse(file)
    entries = []
    for folder in _folders(home, file, split) or _missing(root, split):
        images = image_files(folder)
        labels = _labels_of(folder, home)
        texts = {stem(f): f for f in files(labels, ".txt")}
        if images and not texts.keys() - {"classes"}:
            raise UserError(f"{labels}: no label files (*.txt) for the images in {folder}")
        for name in sorted(texts.keys() - {stem(f) for f in images} - {"classes"}):
            refuse("missing image", f"{texts[name]}: no image {name} in {folder}")
        for image in images:
            file_of_it = texts.get(stem(image))
            rows = _labels(file_of_it, names, pose, refuse) if file_of_it else []
            entries.append(Entry(image, {"file_name": image.name}, rows))
    return Listing(str(file), entries, names, relative=True)


def find_list(root: Place) -> tuple[Place, Place] | None:
    """The folder that the layout starts from, and the file in it that names the classes."""
    for home in homes(root):
        for name in LISTS:
            if (home / name).is_file():
                return home, home / name
    return None


def _folders(home: Place, file: Place, split: str) -> list[Place]:
    """Where the images of a split are: as the yaml says, or by the two customs."""
    document = _parse(file) if _is_yaml(file) else {}
    said = document.get(split) or []
    named = [str(s) for s in (said if isinstance(said, list) else [said])]
    base = str(document.get("path") or ".")
    candidates = []
    for name in named:
        if name.endswith(".txt"):
            raise UserError(f"{file}: {split}: {name}: lists of images are not read; give a folder")
        # Roboflow writes ../train/images for what stands beside the yaml; `path` is often of
        # another machine. So: what is really there, beside the yaml.
        own = name.removeprefix("../").removeprefix("./")
        for path in (own, f"{PurePosixPath(base).name}/{own}"):
            if (folder := inside(home, path, str(file))).is_dir():
                candidates.append(folder)
                break
    if candidates:
        return [d / "images" if (d / "images").is_dir() else d for d in candidates]
    by_custom = (home / "images" / split, home / split / "images", home / split)
    return [d for d in by_custom if d.is_dir()][:1]


def _missing(root: Place, split: str) -> Sequence[Place]:
    raise no_split(root, split, splits(root))


def _labels_of(folder: Place, home: Place) -> Place:
    """images/train -> labels/train, train/images -> train/labels; else beside the images."""
    parts = list(PurePosixPath(str(folder)).relative_to(PurePosixPath(str(home))).parts)
    if "images" not in parts:
        return folder
    last = len(parts) - 1 - parts[::-1].index("images")
    return home / "/".join([*parts[:last], "labels", *parts[last + 1 :]])


def _labels(file: Place, names: tuple[str, ...], pose: bool, refuse: Refuse) -> list[Label]:
    labels = []
    try:
        lines = text(file).splitlines()
    except UserError as error:
        refuse("bad label file", str(error))
        return []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}: line {number}"
        try:
            label, *values = map(float, line.split())
        except ValueError:
            refuse("bad label", f"{where}: {line!r}; give numbers: class x y width height")
            continue
        if pose:
            values = values[:4]  # the key points stand behind the box
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            refuse("bad label", f"{where}: {1 + len(values)} numbers; give class x y width height")
        elif label not in range(len(names)):
            message = f"{where}: class {line.split()[0]}; there are 0 to {len(names) - 1}"
            refuse("unknown category", message)
        elif len(values) == 4 and max(values) > 2:
            message = f"{where}: {line!r} is in pixels; give parts of the image's width and height"
            refuse("bad box", message)
        else:
            labels.append(Label(where, names[int(label)], _box(values)))
    return labels


def _box(values: list[float]) -> tuple[float, float, float, float]:
    if len(values) > 4:
        x, y = values[::2], values[1::2]
        return min(x), min(y), max(x), max(y)
    x1, y1, w, h = values
    return x1 - w / 2, y1 - h / 2, x1 + w / 2, y1 + h / 2


def _names(file: Place) -> tuple[str, ...]:
    if not _is_yaml(file):
        names: Any = [line.strip() for line in text(file).splitlines()]
        names = [name for name in names if name]
    else:
        names = _parse(file).get("names")
        if isinstance(names, dict) and set(names) == set(range(len(names))):
            names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{file}: names: {names!r}; give the classes, a list or 0: name, 1: name")
    return tuple(map(str, names))


def _parse(file: Place) -> dict[str, Any]:
    try:
        document = yaml.safe_load(content(file))
    except (yaml.YAMLError, ValueError) as error:
        raise UserError(f"{file}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(document, dict):
        raise UserError(f"{file}: not a data.yaml: no fields; it needs names")
    return document


def _is_yaml(file: Place) -> bool:
    return not file.name.endswith(".txt")
