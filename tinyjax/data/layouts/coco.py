"""The COCO layout: all labels of a split in one json file, images in a folder next to it.

    annotations/instances_<split>.json   or   annotations/<split>.json, <split>.json
    images/<file_name>                   or   images/<split>/, <split>/, the json's folder

    <split>/_annotations.coco.json       as Roboflow exports it, with the images in that folder

Format: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014,
https://cocodataset.org/#format-data.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from tinyjax.data.layouts.listing import (
    Entry,
    Label,
    Listing,
    OnError,
    candidate_roots,
    join_inside,
    list_files,
    list_folders,
    parent,
    unknown_split,
)
from tinyjax.data.sources import AnyPath, read_bytes
from tinyjax.errors import UserError

JSON_PATHS = (
    "annotations/instances_{}.json",
    "annotations/{}.json",
    "{}/_annotations.coco.json",
    "instances_{}.json",
    "{}.json",
)
ROBOFLOW_JSON = "_annotations.coco.json"
IMAGE_FOLDERS = ("images/{}", "images", "{}", "annotations")
FIELDS = {
    "images": ("id", "file_name"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
}


def list_splits(root: AnyPath) -> list[str]:
    """The names of the splits that exist."""
    given = [split_name(root)] if root.is_file() else []
    if given and not root.name.startswith("instances_"):
        _parse(root)  # raises UserError for another json
    for data_dir in _candidates(root):
        jsons = [f for d in (data_dir, data_dir / "annotations") for f in list_files(d, ".json")]
        # The folder of instances_*.json may also contain captions_*.json and others.
        instances = [f.name for f in jsons if f.name.startswith("instances_")]
        roboflow = [d.name for d in list_folders(data_dir) if (d / ROBOFLOW_JSON).is_file()]
        if names := instances or roboflow or [f.name for f in jsons if _is_coco(f)]:
            return sorted({*given, *(re.sub(r"^instances_|\.json$", "", name) for name in names)})
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
    return re.sub(r"^instances_|\.json$", "", file.name)


def read_listing(root: AnyPath, split: str, on_error: OnError) -> Listing:
    """Read a split's json.

    Categories with `"ignore": 1` and boxes with `iscrowd` or `ignore` 1 are ignored. A group is a
    category without annotations that is the supercategory of others: Roboflow writes one with id 0.

    Raises UserError for a file that is not COCO. Reported to `on_error`: an annotation of an
    unknown image or category, or whose bbox is not four numbers.
    """
    file, data_dir = find_json(root, split)
    document = _parse(file)
    names = {category["id"]: str(category["name"]) for category in document["categories"]}
    image_ids = {info["id"] for info in document["images"]}
    labels = defaultdict(list)
    for annotation in document["annotations"]:
        source = f"{file}: annotation {annotation['id']}"
        image, category = annotation["image_id"], annotation["category_id"]
        if image not in image_ids:
            message = f"{source}: image_id {image} is not the id of an image"
            on_error("unknown image", message)
        elif category not in names:
            ids = ", ".join(map(str, names))
            on_error("unknown category", f"{source}: category_id {category}; known: {ids}")
        else:
            try:
                x, y, w, h = map(float, annotation["bbox"])
                area = annotation.get("area")
                area = None if area is None else float(area)
            except (TypeError, ValueError):
                bbox = annotation["bbox"]
                message = f"{source}: bbox {bbox}; give four numbers x, y, width, height"
                on_error("bad box", message)
                continue
            ignore = bool(annotation.get("iscrowd") or annotation.get("ignore"))
            box = (x, y, x + w, y + h)
            labels[image].append(Label(source, names[category], box, ignore, area))
    folder = _image_folder(data_dir, file, split, document["images"])
    entries = [
        Entry(join_inside(folder, str(info["file_name"]), str(file)), info, labels[info["id"]])
        for info in document["images"]
    ]
    ignored = (str(c["name"]) for c in document["categories"] if c.get("ignore"))
    categories = tuple(dict.fromkeys(names.values()))
    return Listing(str(file), entries, categories, frozenset(ignored), _groups(document))


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


def _image_folder(
    data_dir: AnyPath, file: AnyPath, split: str, infos: list[dict[str, Any]]
) -> AnyPath:
    """The folder of the images: the first one in which an image of the json exists."""
    candidates = [data_dir / pattern.format(split) for pattern in IMAGE_FOLDERS]
    folders = [folder for folder in candidates if folder.is_dir()] + [data_dir]
    for info in infos[:100]:  # a few may be missing
        for folder in folders:
            if join_inside(folder, str(info["file_name"]), str(file)).is_file():
                return folder
    return folders[0]


def _groups(document: dict[str, Any]) -> frozenset[str]:
    used = {annotation["category_id"] for annotation in document["annotations"]}
    groups: set[str] = set()
    rest: set[str] = set()
    for category in document["categories"]:
        others = (c for c in document["categories"] if c is not category)
        is_parent = any(c.get("supercategory") == category["name"] for c in others)
        (groups if is_parent and category["id"] not in used else rest).add(str(category["name"]))
    return frozenset(groups - rest)  # a group and its only category may share a name


def _is_coco(file: AnyPath) -> bool:
    try:
        _parse(file)
    except UserError:
        return False
    return True


def _parse(file: AnyPath) -> dict[str, Any]:
    try:
        document = json.loads(read_bytes(file))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON ({error})") from error
    for field, keys in FIELDS.items():
        rows = document.get(field) if isinstance(document, dict) else None
        if not isinstance(rows, list):
            raise UserError(
                f"{file}: not COCO: no list {field!r}; a COCO detection file has "
                f"the lists {', '.join(FIELDS)}"
            )
        for row in rows:
            for key in keys:
                if not isinstance(row, dict) or key not in row:
                    raise UserError(
                        f"{file}: not COCO: an entry of {field!r} has no {key!r}: {row}"
                    )
                if isinstance(row[key], float) and row[key].is_integer() and key.endswith("id"):
                    row[key] = int(row[key])  # pandas writes 7.0
                if key.endswith("id") and not isinstance(row[key], int | str):
                    raise UserError(f"{file}: {key} {row[key]!r} in {field!r}; give an integer")
    for field in ("images", "categories"):
        if len({row["id"] for row in document[field]}) < len(document[field]):
            raise UserError(f"{file}: two {field} share an id; give each its own")
    return document
