"""Detection data in the COCO layout, from a folder or straight from a zip.

    <source>/images/<file_name>
    <source>/annotations/instances_<split>.json

or the same one folder down, as archives often have it. Format: Lin et al., "Microsoft COCO:
Common Objects in Context", ECCV 2014, https://cocodataset.org/#format-data.
"""

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tinyjax.data.images import PERCENTILES, Place, Rule, letterbox, opened, read
from tinyjax.data.records import Objects, Split, stack
from tinyjax.errors import UserError, suggest

DONTCARE, BACKGROUND = -1, -2  # what a category can be besides a class's label


def load(
    source: str | Path,
    split: str,
    classes: Sequence[str],
    dontcare: Sequence[str] = (),
    size: tuple[int, int] | None = None,
    channels: int = 1,
    range16: Rule = PERCENTILES,
) -> Split:
    """Load one split whole into memory.

    source: a folder or a .zip. classes: names of the scored categories, in the order of the
    labels. dontcare: names of categories that are neither objects nor background. size: (H, W) of
    the network's input, images are letterboxed to it; None if all images share one size, which is
    then kept. channels: 1 or 3. range16: how deep pixels come to 8 bits (`images.to_uint8`).

    Don't-care are, besides `dontcare`, the categories that carry `"ignore": 1` and the boxes of
    scored classes with `iscrowd` or `ignore` 1; all of them for every class. Every other category
    is background; each image's entry in `truth["images"]` counts them by name in "background"
    (`records.background` sums them) and keeps all fields of the source. Boxes that overhang the
    image are left as they are.

    Raises UserError for: a missing source, split, image or class; a file that is not COCO; images
    of differing size without `size`; an image whose size is not the json's; an empty box or one
    outside its image.
    """
    with opened(source) as root:
        home = _home(root, split)
        file = home / "annotations" / f"instances_{split}.json"
        document = _parse(file)
        roles = _roles(document["categories"], classes, dontcare, str(file))
        infos = document["images"]
        places = [home / "images" / str(info["file_name"]) for info in infos]
        missing = [str(place) for place in places if not place.is_file()]
        if missing:
            raise UserError(
                f"{missing[0]}: no such image ({len(missing)} of {len(infos)} images "
                f"that {file} names are not there)"
            )
        with ThreadPoolExecutor(2) as pool:  # Pillow decodes outside the interpreter's lock
            decoded = pool.map(lambda place: _fit(read(place, channels, range16), size), places)
            images, shapes, scale, offset = zip(*decoded, strict=True)

    sized = [_with_size(*row) for row in zip(infos, shapes, places, strict=True)]
    if size is None and len(set(shapes)) > 1:
        sizes = sorted(set(shapes))
        raise UserError(
            f"{file}: images of {len(sizes)} sizes, from {sizes[0]} to {sizes[-1]} "
            "(height, width); give size = (height, width) of the network's input"
        )
    objects, unused = _objects(sized, document["annotations"], roles, str(file))
    infos = [{**info, "background": count} for info, count in zip(sized, unused, strict=True)]
    return stack(images, objects, infos, classes, np.stack(scale), np.stack(offset))


def _fit(image: np.ndarray, size: tuple[int, int] | None) -> tuple[np.ndarray, tuple, Any, Any]:
    shape = image.shape[:2]
    fitted, scale, offset = letterbox(image, size or shape)
    return fitted, shape, scale, offset


def _with_size(info: dict[str, Any], shape: tuple[int, int], place: Place) -> dict[str, Any]:
    height, width = shape
    said = info.get("height", height), info.get("width", width)
    if said != shape:
        raise UserError(
            f"{place}: the image is {height} x {width} (height x width), but the json "
            f"says {said[0]} x {said[1]}; its boxes would not fit"
        )
    return {**info, "height": height, "width": width}


def _home(root: Place, split: str) -> Place:
    """The folder that holds annotations/ and images/: the root itself or one below it."""

    def candidates() -> Iterator[Place]:
        yield root
        yield from sorted((d for d in root.iterdir() if d.is_dir()), key=lambda d: d.name)

    splits = []
    for home in candidates():
        annotations = home / "annotations"
        if (annotations / f"instances_{split}.json").is_file():
            return home
        if annotations.is_dir():
            names = (re.fullmatch(r"instances_(.+)\.json", f.name) for f in annotations.iterdir())
            splits += sorted(name[1] for name in names if name)
    raise UserError(
        f"{root}: no annotations/instances_{split}.json; for split: {suggest(split, splits)}"
    )


def _parse(file: Place) -> dict[str, Any]:
    try:
        document = json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file}: not JSON ({error})") from error
    wanted = {
        "images": ("id", "file_name"),
        "categories": ("id", "name"),
        "annotations": ("id", "image_id", "category_id", "bbox"),
    }
    for field, keys in wanted.items():
        rows = document.get(field) if isinstance(document, dict) else None
        if not isinstance(rows, list):
            raise UserError(
                f"{file}: not COCO: no list {field!r}; a COCO detection file has "
                f"the lists {', '.join(wanted)}"
            )
        for row in rows:
            for key in keys:
                if not isinstance(row, dict) or key not in row:
                    raise UserError(
                        f"{file}: not COCO: an entry of {field!r} has no {key!r}: {row}"
                    )
    if not document["images"]:
        raise UserError(f"{file}: names no images")
    if len({info["id"] for info in document["images"]}) < len(document["images"]):
        raise UserError(f"{file}: two images share an id; give each its own")
    return document


def _roles(
    categories: list[dict[str, Any]], classes: Sequence[str], dontcare: Sequence[str], file: str
) -> dict[Any, tuple[int, str]]:
    """Category id -> (label, DONTCARE or BACKGROUND; name)."""
    known = [str(category["name"]) for category in categories]
    asked = [*classes, *dontcare]
    for name in asked:
        if name not in known:
            raise UserError(f"{file}: no category {name!r}; {suggest(name, known)}")
        if asked.count(name) > 1:
            raise UserError(f"{name!r} is named twice in classes and dontcare; name it once")
    roles = {}
    for category in categories:
        name = str(category["name"])
        if category.get("ignore") and name in classes:
            raise UserError(
                f'{file}: category {name!r} is marked "ignore": 1, so it cannot be '
                "one of classes; leave it out"
            )
        if category.get("ignore") or name in dontcare:
            role = DONTCARE
        else:
            role = list(classes).index(name) if name in classes else BACKGROUND
        roles[category["id"]] = role, name
    return roles


def _objects(
    images: list[dict[str, Any]],
    annotations: list[dict[str, Any]],
    roles: dict[Any, tuple[int, str]],
    file: str,
) -> tuple[list[Objects], list[dict[str, int]]]:
    """Per image: its objects, and how many of each background category it holds."""
    infos = {info["id"]: info for info in images}
    rows = defaultdict(list)
    unused: dict[Any, Counter[str]] = defaultdict(Counter)
    for annotation in annotations:
        where = f"{file}: annotation {annotation['id']}"
        image, category = annotation["image_id"], annotation["category_id"]
        if image not in infos:
            raise UserError(f"{where}: image_id {image} is none of the images")
        if category not in roles:
            raise UserError(f"{where}: category_id {category}; known: {', '.join(map(str, roles))}")
        role, name = roles[category]
        if role == BACKGROUND:
            unused[image][name] += 1
            continue
        box = _box(annotation["bbox"], infos[image], where)
        ignore = bool(role == DONTCARE or annotation.get("iscrowd") or annotation.get("ignore"))
        size = (box[2] - box[0]) * (box[3] - box[1])
        rows[image].append((box, max(role, 0), ignore, annotation.get("area", size)))

    def join(these: list[tuple]) -> Objects:
        boxes, labels, ignore, area = zip(*these, strict=True) if these else ((), (), (), ())
        return Objects(
            np.array(boxes, float).reshape(-1, 4),
            np.array(labels, np.int32),
            np.array(ignore, bool),
            np.array(area, float),
        )

    return [join(rows[i]) for i in infos], [dict(unused[i]) for i in infos]


def _box(bbox: Any, info: dict[str, Any], where: str) -> tuple[float, float, float, float]:
    try:
        x, y, w, h = map(float, bbox)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: bbox {bbox}; give four numbers x, y, width, height") from error
    if not (all(map(math.isfinite, (x, y, w, h))) and w > 0 and h > 0):
        raise UserError(f"{where}: bbox {bbox} is empty; width and height must be above 0")
    width, height = info["width"], info["height"]
    if x >= width or y >= height or x + w <= 0 or y + h <= 0:
        raise UserError(f"{where}: bbox {bbox} lies outside its image of {width} x {height} px")
    return x, y, x + w, y + h
