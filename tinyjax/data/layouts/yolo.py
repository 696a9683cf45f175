"""The YOLO layout: a text file for every image, a line for every object.

    data.yaml: names, and for each split the folder of its images, or a .txt that lists them
    images/<split>/<name>.jpg and labels/<split>/<name>.txt   or   <split>/images, <split>/labels

A line is "class x y w h", center and size in parts of the image's width and height, classes counted
from 0; or "class x1 y1 x2 y2 x3 y3 ..", a polygon, of which the enclosing box is taken. An image
without a text file has no objects. Format: https://docs.ultralytics.com/datasets/detect.

The paths in a yaml are often another machine's. So a path is read by its end: the longest that
stands beside the yaml is meant, and nothing outside is ever read.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath
from typing import Any

import yaml

from tinyjax.data.images import SUFFIXES, Place, content
from tinyjax.data.layouts.listing import (
    SAME_SPLIT,
    Entry,
    Label,
    Listing,
    Refuse,
    files,
    folders,
    homes,
    no_split,
    text,
    walk,
)
from tinyjax.errors import UserError

YAMLS = ("data.yaml", "dataset.yaml", "data.yml")
CLASSES = "classes.txt"
NEAR = ("", "labels")  # where it stands; labelImg leaves one beside the labels of every split
DEEP = ("{}", "labels/{}", "{}/labels", "images/{}")
SPLITS = ("train", "val", "valid", "test")


def splits(root: Place) -> list[str]:
    """The names of the splits that are there."""
    if not (found := find_list(root)):
        return []
    home, file = found
    names = _said(file) or _folder_names(home)
    return [n for n in names if any(_images(home, file, part) for part in _parts(home, file, n)[0])]


def almost(root: Place) -> str:
    """What keeps a set that looks like YOLO from being one; "" for all else."""
    for home in homes(root):
        if len(several := _with_names(home)) > 1:
            names = ", ".join(file.name for file in several)
            return f"{home}: {names} all have names; keep one of them, or call it data.yaml"
    if not (found := find_list(root)):
        return ""
    home, file = found
    lost = [f"{split}: {value}" for split in _said(file) for value in _parts(home, file, split)[1]]
    return (
        f"{file}: no images beside it{''.join(f'; {one}' for one in lost)}; "
        "put them into images/train and images/val, or train/images and val/images"
    )


def listing(root: Place, split: str, refuse: Refuse) -> Listing:
    """The split as its text files have it; boxes are relative to the image.

    Raises UserError if there is no list of classes, no such split, or a path that the yaml names is
    not there. Refused, one by one: a line that is none, or whose class is none of the list.
    """
    if not (found := find_list(root)):
        raise UserError(f"{root}: no data.yaml and no classes.txt; one must name the classes")
    home, file = found
    names, pose = _names(file), _is_yaml(file) and "kpt_shape" in _parse(file)
    parts, lost = _parts(home, file, split)
    if lost:
        raise UserError(
            f"{file}: {split}: {', '.join(lost)}: no end of that path stands beside the yaml, "
            f"nor images/{split} or {split}/images"
        )
    if not parts:
        raise no_split(root, split, splits(root))
    entries = []
    for part in parts:
        images = _images(home, file, part)
        texts = _texts(home, part, [path for _, path in images])
        if images and not texts:
            labels = home / _labels_of(part)
            raise UserError(f"{labels}: no label files (*.txt) for the images in {home / part}")
        if not _is_list(part):  # beside what a list names, other splits have their labels too
            for path in sorted(texts.keys() - {_label_of(path) for _, path in images}):
                message = f"{texts[path]}: no image {PurePosixPath(path).name} in {home / part}"
                refuse("missing image", message)
        for name, path in images:
            file_of_it = texts.get(_label_of(path))
            rows = _labels(file_of_it, names, pose, refuse) if file_of_it else []
            entries.append(Entry(home / path, {"file_name": name}, rows))
    return Listing(str(file), entries, names, relative=True)


def find_list(root: Place) -> tuple[Place, Place] | None:
    """The folder that the layout starts from, and the file that names the classes.

    Raises UserError if several classes.txt of a set number the classes differently.
    """
    for home in homes(root):
        for name in YAMLS:
            if (home / name).is_file():
                return home, home / name
        if len(found := _with_names(home)) == 1:
            return home, found[0]
    for places in (NEAR, DEEP):
        for home in homes(root):
            tried = [(home / p.format(s) / CLASSES, s) for s in _folder_names(home) for p in places]
            if found := [file for file, s in tried if file.is_file() and _custom(home, s)]:
                return home, _longest(found)
    return None


def _with_names(home: Place) -> list[Place]:
    """The yaml files in a folder that name classes, unless one has a name that is known."""
    if any((home / name).is_file() for name in YAMLS):
        return []
    found = []
    for file in files(home, (".yaml", ".yml")):
        try:
            found += [file] if "names" in _parse(file) else []
        except UserError:  # a yaml of something else
            continue
    return found


def _longest(lists: list[Place]) -> Place:
    """labelImg writes a list into every folder, and adds to it as classes come up."""
    longest = max(lists, key=lambda file: len(_names(file)))
    for file in lists:
        if (names := _names(file)) != _names(longest)[: len(names)]:
            raise UserError(f"{file}: other classes than in {longest}; make the two lists the same")
    return longest


def _said(file: Place) -> dict[str, list[str]]:
    """The paths that the yaml gives, by split."""
    return {split: paths for split in SPLITS if (paths := _strings(file, split))}


def _strings(file: Place, field: str) -> list[str]:
    value = _parse(file).get(field) if _is_yaml(file) else None
    return [str(v) for v in value] if isinstance(value, list) else [str(value)] if value else []


def _parts(home: Place, file: Place, split: str) -> tuple[list[str], list[str]]:
    """What a split is made of, and what the yaml names that is not there.

    That is, as paths from `home`: folders of images, or lists of them, as the yaml says, or if
    nothing of it is there the customary folder.
    """
    said = _said(file)
    values = _strings(file, split)
    others = [_steps(v) for vs in said.values() for v in vs if v not in values]

    def good(place: Place) -> bool:
        return place.is_dir() or (_is_list(place.name) and place.is_file())

    base = "".join(_strings(file, "path"))
    found = {value: _beside(home, base, value, good, others) for value in values}
    if any(part is not None for part in found.values()):
        there = [part for part in found.values() if part is not None]
        below = [f"{p}/images" if (home / p / "images").is_dir() else p for p in there]
        return below, [value for value, part in found.items() if part is None]
    same = SAME_SPLIT.get(split, split)
    custom = _custom(home, split) or (_custom(home, same) if same not in said else "")
    return ([custom], []) if custom else ([], values)


def _beside(
    home: Place,
    base: str,
    value: str,
    good: Callable[[Place], bool],
    others: Iterable[tuple[str, ...]] = (),
) -> str | None:
    """The longest end of `base`/`value` that is `good` in `home`, as a path from there.

    No end that one of `others` has too, the paths of other splits: it would not tell them apart.
    """
    if value in (".", "./"):
        return ""
    steps = _steps(value)
    whole = _steps(base) + steps
    for length in range(len(whole), 0, -1):
        end = whole[-length:]
        if length < len(steps) and any(other[-length:] == end for other in others):
            return None
        if good(home / "/".join(end)):
            return "/".join(end)
    return None


def _steps(path: str) -> tuple[str, ...]:
    """D:\\a\\b, /a/b, ../a/b -> (a, b)"""
    without_drive = re.sub(r"^[A-Za-z]:", "", path.replace("\\", "/"))
    return tuple(step for step in without_drive.split("/") if step not in ("", ".", ".."))


def _custom(home: Place, split: str) -> str:
    """The customary folder of a split's images, if it has any."""
    customs = (f"images/{split}", f"{split}/images", split)
    return next((part for part in customs if walk(home / part, SUFFIXES)), "")


def _folder_names(home: Place) -> list[str]:
    """What may be the names of splits, by the folders that are there."""
    places = (place for place in (home, home / "images") if place.is_dir())
    names = dict.fromkeys(folder.name for place in places for folder in folders(place))
    return [name for name in names if name not in ("images", "labels")]


def _images(home: Place, file: Place, part: str) -> list[tuple[str, str]]:
    """(file name, path from `home`) of the images in a folder and below, or of a list."""
    if not _is_list(part):
        return [(path, _join(part, path)) for path, _ in walk(home / part, SUFFIXES)]
    lines = [line.strip() for line in text(home / part).splitlines() if line.strip()]
    base = "".join(_strings(file, "path"))
    paths = [_beside(home, base, line, lambda place: place.is_file()) for line in lines]
    found = [path or "/".join(_steps(line)) for path, line in zip(paths, lines, strict=True)]
    return [(path, path) for path in found]


def _texts(home: Place, part: str, images: list[str]) -> dict[str, Place]:
    """The label files for images, by their path from `home` without the suffix."""
    if _is_list(part):
        places = dict.fromkeys(_labels_of(path.rpartition("/")[0]) for path in images)
        found = [(_join(p, f.name), f) for p in places for f in files(home / p, ".txt")]
    else:
        labels = _labels_of(part)
        found = [(_join(labels, path), f) for path, f in walk(home / labels, ".txt")]
    return {_without_suffix(path): f for path, f in found if f.name != CLASSES}


def _labels_of(folder: str) -> str:
    """images/train -> labels/train, train/images -> train/labels; else beside the images."""
    before, images, behind = f"/{folder}/".rpartition("/images/")
    return f"{before}/labels/{behind}".strip("/") if images else folder


def _label_of(image: str) -> str:
    folder, _, name = image.rpartition("/")
    return _without_suffix(_join(_labels_of(folder), name))


def _without_suffix(path: str) -> str:
    return path.rpartition(".")[0]


def _join(folder: str, path: str) -> str:
    return f"{folder}/{path}" if folder else path


def _is_list(part: str) -> bool:
    return part.endswith(".txt")


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
