"""The COCO layout: all labels of a split in one json file, images in a folder next to it.

    annotations/instances_<split>.json   or   annotations/<split>.json, <split>.json,
                                              annotations/person_keypoints_<split>.json
    images/<file_name>                   or   images/<split>/, <split>/, data/, the json's folder

    <split>/_annotations.coco.json       as Roboflow exports it, with the images in that folder
    annotations/lvis_v1_<split>.json     see `federated`

Format: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014,
https://cocodataset.org/#format-data.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from math import inf
from typing import Any

from tinyjax.data.layouts import federated
from tinyjax.data.layouts.coco_images import find_images
from tinyjax.data.layouts.listing import (
    Entry,
    Label,
    Listing,
    OnError,
    candidate_roots,
    list_files,
    list_folders,
    parent,
    raise_error,
    unknown_split,
)
from tinyjax.data.sources import AnyPath, read_bytes
from tinyjax.errors import UserError, shorten

# Prefixes of the files of COCO and LVIS that have boxes of objects
TASKS = ("instances_", "person_keypoints_", "lvis_v1_")
JSON_PATHS = (
    "annotations/instances_{}.json",
    "annotations/{}.json",
    "annotations/person_keypoints_{}.json",
    "annotations/lvis_v1_{}.json",
    "{}/_annotations.coco.json",
    "instances_{}.json",
    "{}.json",
    "person_keypoints_{}.json",
    "lvis_v1_{}.json",
)
ROBOFLOW_JSON = "_annotations.coco.json"
IMAGE_FOLDERS = ("images/{}", "images", "{}", "annotations", "data")  # data: FiftyOne
FIELDS = {
    "images": ("id", "file_name"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
}
MAX_SHOWN = 200  # characters of an invalid entry; a polygon may have thousands
INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
FALSE = ("", "0", "0.0", "false", "no", "none", "null")


def list_splits(root: AnyPath) -> list[str]:
    """The names of the splits that exist."""
    given = [split_name(root)] if root.is_file() else []
    if given and not root.name.startswith(TASKS):
        _parse(root)  # raises UserError for another json
    for data_dir in _candidates(root):
        jsons = [f for d in (data_dir, data_dir / "annotations") for f in list_files(d, ".json")]
        # The folder of instances_*.json may also contain captions_*.json and others.
        objects = [f for f in jsons if f.name.startswith(TASKS)]
        roboflow = [d / ROBOFLOW_JSON for d in list_folders(data_dir)]
        files = objects or [f for f in roboflow if f.is_file()] or [*filter(_is_coco, jsons)]
        if files:
            return sorted({*given, *map(split_name, files)})
    return given


def set_folder(file: AnyPath) -> AnyPath:
    """The folder of the set that a json belongs to, see `JSON_PATHS`."""
    folder = parent(file)
    return parent(folder) if folder.name == "annotations" or file.name == ROBOFLOW_JSON else folder


def _candidates(root: AnyPath) -> Iterable[AnyPath]:
    return [set_folder(root)] if root.is_file() else candidate_roots(root)


def split_name(file: AnyPath) -> str:
    """The split of a json, by its name."""
    if file.name == ROBOFLOW_JSON:
        return parent(file).name
    return _without_task(file.name.removesuffix(".json"))


def _without_task(stem: str) -> str:
    return re.sub(rf"^({'|'.join(TASKS)})", "", stem)


def read_listing(root: AnyPath, split: str, on_error: OnError) -> Listing:
    """Read a split's json.

    Categories with `"ignore": 1` and boxes with `iscrowd` or `ignore` 1 are ignored. A group is a
    category without annotations that is the supercategory of others: Roboflow writes one with id 0.
    Numbers may be written as text. Federated labels are read as `federated` describes.

    Raises UserError for a file that is not COCO, or has an invalid category. Reported to
    `on_error`: an image or annotation without one of its `FIELDS`, an image file that is listed
    twice, an annotation of an unknown image or category, or whose bbox is not four numbers; a
    federated label of an unknown category.
    """
    file, data_dir = find_json(root, split)
    document = _parse(file)
    categories = _valid_rows(document, "categories", file, raise_error)
    infos = _valid_rows(document, "images", file, on_error)
    annotations = _valid_rows(document, "annotations", file, on_error)
    for field, rows in (("images", infos), ("categories", categories)):
        if len({row["id"] for row in rows}) < len(rows):
            raise UserError(f"{file}: two {field} share an id; give each its own")
    names = {category["id"]: str(category["name"]) for category in categories}
    labels = _read_labels(annotations, {info["id"] for info in infos}, names, file, on_error)
    infos = [
        federated.name_categories(
            info, names, as_id, lambda problem, message: on_error(problem, f"{file}: {message}")
        )
        for info in infos
    ]
    entries = _read_entries(data_dir, file, split, infos, labels, on_error)
    ignored = (names[category["id"]] for category in categories if _flag(category.get("ignore")))
    groups = _groups(categories, {annotation["category_id"] for annotation in annotations})
    unique_names = tuple(dict.fromkeys(names.values()))
    return Listing(
        str(file),
        entries,
        unique_names,
        frozenset(ignored),
        groups,
        frequencies=federated.frequencies(categories),
    )


def find_json(root: AnyPath, split: str) -> tuple[AnyPath, AnyPath]:
    """The json of a split, and the data set's root.

    Raises UserError if there is none, or if there are several with different content.
    """
    if root.is_file() and split == split_name(root):
        return root, set_folder(root)
    for data_dir in _candidates(root):
        paths = (data_dir / pattern.format(split) for pattern in JSON_PATHS)
        if files := [file for file in paths if file.is_file()]:
            for other in files[1:]:
                if read_bytes(other) != read_bytes(files[0]) and _is_coco(other):
                    raise UserError(
                        f"{files[0]} and {other} both have the split {split!r}; delete one, or "
                        "give one as the source"
                    )
            return files[0], data_dir
    raise unknown_split(root, split, list_splits(root))


# ---- images


def _read_entries(
    data_dir: AnyPath,
    file: AnyPath,
    split: str,
    infos: list[dict[str, Any]],
    labels: dict[Any, list[Label]],
    on_error: OnError,
) -> list[Entry]:
    """The images with their labels, without those whose file is listed twice: each entry may have
    a part of the labels, and the other objects would be background.
    """
    candidates = [data_dir / pattern.format(_without_task(split)) for pattern in IMAGE_FOLDERS]
    folders = [folder for folder in candidates if folder.is_dir()] + [data_dir]
    images = find_images(folders, [info["file_name"] for info in infos])
    entries = []
    for info in infos:
        name, image = images[info["file_name"]]
        if image is None:
            message = (
                f"file name {name!r} leaves the data set, and no trailing part of it exists in "
                f"{folders[0]}; give a path inside it"
            )
            on_error("missing image", f"{file}: {message}")
            continue
        fields = {**info, "file_name": name, **_sides(info)}
        entries.append(Entry(image, fields, labels[info["id"]]))
    ids = defaultdict(list)
    for entry in entries:
        ids[str(entry.file)].append(str(entry.info["id"]))
    for path, same in ids.items():
        if len(same) > 1:
            message = f"{path} is listed {len(same)} times, as the images with the ids"
            text = f"{file}: {message} {shorten(same)}; merge their annotations under one id"
            on_error("image listed twice", text)
    return [entry for entry in entries if len(ids[str(entry.file)]) == 1]


def _sides(info: dict[str, Any]) -> dict[str, float | None]:
    """Height and width in pixels as numbers; None where the file has no positive number."""
    sides = {side: _number(info[side]) for side in ("height", "width") if side in info}
    return {
        side: (int(value) if value.is_integer() else value) if value and 0 < value < inf else None
        for side, value in sides.items()
    }


# ---- annotations


def _read_labels(
    annotations: Iterable[dict[str, Any]],
    image_ids: set[Any],
    names: dict[Any, str],
    file: AnyPath,
    on_error: OnError,
) -> dict[Any, list[Label]]:
    """Image id -> its labels."""
    labels = defaultdict(list)
    for annotation in annotations:
        source = f"{file}: annotation {annotation['id']}"
        image, category = annotation["image_id"], annotation["category_id"]
        if image not in image_ids:
            on_error("unknown image", f"{source}: image_id {image} is not the id of an image")
        elif category not in names:
            ids = ", ".join(map(str, names))
            on_error("unknown category", f"{source}: category_id {category}; known: {ids}")
        elif (box := _read_box(annotation["bbox"])) is None:
            message = f"bbox {annotation['bbox']}; give four numbers x, y, width, height"
            on_error("bad box", f"{source}: {message}")
        else:
            ignore = _flag(annotation.get("iscrowd")) or _flag(annotation.get("ignore"))
            label = Label(source, names[category], box, ignore, _read_area(annotation))
            labels[image].append(label)
    return labels


def _read_box(bbox: Any) -> tuple[float, float, float, float] | None:
    """xyxy in pixels of the file; None if `bbox` is not a list of four numbers."""
    numbers = [_number(value) for value in bbox] if isinstance(bbox, list) else []
    if len(numbers) != 4 or None in numbers:
        return None
    x, y, w, h = (value for value in numbers if value is not None)
    return x, y, x + w, y + h


def _read_area(annotation: dict[str, Any]) -> float | None:
    """px^2; None if there is none, NaN if it is not a number."""
    if (area := annotation.get("area")) is None:
        return None
    number = _number(area)
    return float("nan") if number is None else number


def _groups(categories: list[dict[str, Any]], used: set[Any]) -> frozenset[str]:
    groups: set[str] = set()
    rest: set[str] = set()
    for category in categories:
        others = (c for c in categories if c is not category)
        is_parent = any(c.get("supercategory") == category["name"] for c in others)
        (groups if is_parent and category["id"] not in used else rest).add(str(category["name"]))
    return frozenset(groups - rest)  # a group and its only category may share a name


# ---- values as different tools write them


def _number(value: Any) -> float | None:
    """A number, also as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def as_id(value: Any) -> int | str | None:
    """An id; pandas writes 7.0, other tools "7". None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        return int(value) if INTEGER.fullmatch(value) else value
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _flag(value: Any) -> bool:
    """0 or 1, also as text."""
    return str(value).strip().lower() not in FALSE


# ---- the file


def _is_coco(file: AnyPath) -> bool:
    """Return whether the file has the lists of COCO, and boxes if it has annotations."""
    try:
        annotations = _parse(file)["annotations"]
    except UserError:
        return False
    return not annotations or any(isinstance(row, dict) and "bbox" in row for row in annotations)


def _parse(file: AnyPath) -> dict[str, Any]:
    """A file that has the lists of COCO; their rows are not checked."""
    try:
        document = json.loads(read_bytes(file))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON ({error})") from error
    for field in FIELDS:
        if not isinstance(document, dict) or not isinstance(document.get(field), list):
            raise UserError(
                f"{file}: not COCO: no list {field!r}; a COCO detection file has "
                f"the lists {', '.join(FIELDS)}"
            )
    return document


def _valid_rows(
    document: dict[str, Any], field: str, file: AnyPath, on_error: OnError
) -> list[dict[str, Any]]:
    """The rows of a list that have all `FIELDS`, with ids as `as_id` returns them."""
    rows = []
    for row in map(federated.add_file_name, document[field]):
        if problem := _missing_field(row, field):
            on_error(f"bad entry of {field}", f"{file}: {problem}")
        else:
            rows.append(row | {key: as_id(row[key]) for key in FIELDS[field] if key.endswith("id")})
    return rows


def _missing_field(row: Any, field: str) -> str:
    """A message about a field that is missing or cannot be used; else ""."""
    for key in FIELDS[field]:
        if not isinstance(row, dict) or row.get(key) in (None, ""):
            return f"an entry of {field!r} has no {key!r}: {str(row)[:MAX_SHOWN]}"
        if key.endswith("id") and as_id(row[key]) is None:
            return f"{key} {row[key]!r} in {field!r}; give an integer"
        if key.endswith("name") and not isinstance(row[key], str | int | float):
            return f"{key} {row[key]!r} in {field!r}; give a text"
    return ""
