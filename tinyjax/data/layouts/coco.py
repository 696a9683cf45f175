"""The COCO layout: all labels of a split in one json, images in a folder beside it.

    annotations/instances_<split>.json   or   annotations/<split>.json, <split>.json
    images/<file_name>                   or   images/<split>/, <split>/, beside the json

    <split>/_annotations.coco.json       as Roboflow exports it, the images beside it

Format: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014,
https://cocodataset.org/#format-data.
"""

import json
import re
from collections import defaultdict
from typing import Any

from tinyjax.data.images import Place, content
from tinyjax.data.layouts.listing import (
    Entry,
    Label,
    Listing,
    Refuse,
    files,
    folders,
    homes,
    inside,
    no_split,
)
from tinyjax.errors import UserError

JSON = (
    "annotations/instances_{}.json",
    "annotations/{}.json",
    "{}/_annotations.coco.json",
    "instances_{}.json",
    "{}.json",
)
IMAGES = ("images/{}", "images", "{}", "annotations")
FIELDS = {
    "images": ("id", "file_name"),
    "categories": ("id", "name"),
    "annotations": ("id", "image_id", "category_id", "bbox"),
}


def splits(root: Place) -> list[str]:
    """The names of the splits that are there."""
    for home in homes(root):
        jsons = [f for at in (home, home / "annotations") for f in files(at, ".json")]
        there = [d.name for d in folders(home) if (d / "_annotations.coco.json").is_file()]
        # Beside instances_*.json stand captions_*.json and the like.
        named = [f.name for f in jsons if f.name.startswith("instances_")]
        if found := named or there or [f.name for f in jsons if _is_coco(f)]:
            return sorted({re.sub(r"^instances_|\.json$", "", name) for name in found})
    return []


def listing(root: Place, split: str, refuse: Refuse) -> Listing:
    """The split as its json has it.

    Don't-care are the categories that carry `"ignore": 1`, and boxes with `iscrowd` or `ignore` 1.
    A group is a category without any annotation that others name as their supercategory: Roboflow
    writes one with id 0.

    Raises UserError for a file that is not COCO. Refused, one by one: an annotation of an unknown
    image or category, or whose bbox is not four numbers.
    """
    file, home = _find(root, split)
    document = _parse(file)
    names = {category["id"]: str(category["name"]) for category in document["categories"]}
    known = {info["id"] for info in document["images"]}
    labels = defaultdict(list)
    for annotation in document["annotations"]:
        where = f"{file}: annotation {annotation['id']}"
        image, category = annotation["image_id"], annotation["category_id"]
        if image not in known:
            refuse("unknown image", f"{where}: image_id {image} is none of the images")
        elif category not in names:
            ids = ", ".join(map(str, names))
            refuse("unknown category", f"{where}: category_id {category}; known: {ids}")
        else:
            try:
                x, y, w, h = map(float, annotation["bbox"])
                area = annotation.get("area")
                area = None if area is None else float(area)
            except (TypeError, ValueError):
                bbox = annotation["bbox"]
                message = f"{where}: bbox {bbox}; give four numbers x, y, width, height"
                refuse("bad box", message)
                continue
            ignore = bool(annotation.get("iscrowd") or annotation.get("ignore"))
            box = (x, y, x + w, y + h)
            labels[image].append(Label(where, names[category], box, ignore, area))
    folder = _images(home, file, split, document["images"])
    entries = [
        Entry(inside(folder, str(info["file_name"]), str(file)), info, labels[info["id"]])
        for info in document["images"]
    ]
    ignored = (str(c["name"]) for c in document["categories"] if c.get("ignore"))
    every = tuple(dict.fromkeys(names.values()))
    return Listing(str(file), entries, every, frozenset(ignored), _groups(document))


def _find(root: Place, split: str) -> tuple[Place, Place]:
    """The json of a split, and the folder that its layout starts from."""
    for home in homes(root):
        for pattern in JSON:
            if (file := home / pattern.format(split)).is_file():
                return file, home
    raise no_split(root, split, splits(root))


def _images(home: Place, file: Place, split: str, infos: list[dict[str, Any]]) -> Place:
    """Where the images are: the first folder that has the first of them that is anywhere."""
    named = [home / pattern.format(split) for pattern in IMAGES]
    places = [place for place in named if place.is_dir()] + [home]
    for info in infos[:100]:  # a few may be missing
        for place in places:
            if inside(place, str(info["file_name"]), str(file)).is_file():
                return place
    return places[0]


def _groups(document: dict[str, Any]) -> frozenset[str]:
    used = {annotation["category_id"] for annotation in document["annotations"]}
    groups: set[str] = set()
    rest: set[str] = set()
    for category in document["categories"]:
        others = (c for c in document["categories"] if c is not category)
        named = any(c.get("supercategory") == category["name"] for c in others)
        (groups if named and category["id"] not in used else rest).add(str(category["name"]))
    return frozenset(groups - rest)  # a group and its only category may share a name


def _is_coco(file: Place) -> bool:
    try:
        _parse(file)
    except UserError:
        return False
    return True


def _parse(file: Place) -> dict[str, Any]:
    try:
        document = json.loads(content(file))
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
                    row[key] = int(row[key])  # 7.0, as pandas leaves it
                if key.endswith("id") and not isinstance(row[key], int | str):
                    raise UserError(f"{file}: {key} {row[key]!r} in {field!r}; give an integer")
    for field in ("images", "categories"):
        if len({row["id"] for row in document[field]}) < len(document[field]):
            raise UserError(f"{file}: two {field} share an id; give each its own")
    return document
