"""Where the published sets of `published.SETS` stand on disk: read, looked over, and mended.

LLVIP and FLIR aligned keep one xml for two images, FLIR ADAS a json in each folder (v1 before 1.3:
one for each image), HIT-UAV a json that is not quite COCO, KAIST what `kaist` says; the others are
read as the layout that they are in.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from tinyjax.data.images import Bytes, Place, content, in_pixels, opened, shape_of
from tinyjax.data.layouts import coco, kaist, voc
from tinyjax.data.layouts.catalog import SETS, Part
from tinyjax.data.layouts.listing import (
    Entry,
    Label,
    Listing,
    Refuse,
    files,
    homes,
    image_files,
    inside,
    no_split,
    stem,
    text,
)
from tinyjax.errors import UserError, shorten, suggest

log = logging.getLogger("tinyjax")

FLIR_NAMES = {1: "person", 2: "bicycle", 3: "car", 18: "dog", 91: "other vehicle"}  # readme of v1


class Layout(NamedTuple):
    """What a module of a layout has, for one published set."""

    splits: Any  # (root) -> names
    listing: Any  # (root, split, refuse) -> Listing


def published(root: Place, layout: str) -> Layout | None:
    """The layout of the published set of that name; for "auto" of one that stands in `root` in a
    layout of its own.
    """
    name = recognized(root) if layout == "auto" else layout
    if name not in SETS or (layout == "auto" and SETS[name].layout != "own"):
        return None
    return Layout(partial(splits, name=name), partial(listing, name=name))


def recognized(root: Place) -> str:
    """The published set that stands in `root` or below, by files that only it has; or ""."""
    for home in homes(root):
        for name, one in SETS.items():
            parts = [Part((one.sign,))] if one.sign else [*one.parts.values()]
            if one.layout == "voc" and home.name != one.folder:
                continue
            if any(_at(home, part) and not _lacking(home, part) for part in parts):
                return name
            if name == "kaist" and (home / "images" / "set00").is_dir():
                return name
    return ""


def splits(root: Place, name: str) -> list[str]:
    """The splits that are there. Raises UserError if nothing of the set is."""
    home = _home(root, name)
    if name == "kaist":
        return kaist.splits(home)
    return [split for split, part in SETS[name].parts.items() if _at(home, part)]


def listing(root: Place, split: str, refuse: Refuse, name: str) -> Listing:
    """A split of a published set. Boxes without area are left out of sets that are known to have
    some, and it is said once how many.

    Raises UserError for what is not there, a split without labels, and as the set's layout does.
    """
    one, home = SETS[name], _home(root, name)
    if split in one.unlabeled:
        raise UserError(f"{one.title}: {split}: {one.unlabeled[split]}")
    if split in one.parts and (wrong := _standing(home, name, [split])):
        raise UserError("; ".join(wrong))
    at = _at(home, one.parts[split]) if split in one.parts else ""
    if not at and name != "kaist":
        raise no_split(home, split, splits(root, name))
    listed = _read(home, name, split, at, refuse)
    if one.no_area:
        kept = mended(listed, min_area=0)
        count = sum(len(entry.labels) for entry in listed.entries)
        if left := count - sum(len(entry.labels) for entry in kept.entries):
            _say(f"{one.title}, {split}: {left} boxes without area left out")
        listed = kept
    order = {category: k for k, category in enumerate(one.classes)}
    unscored = {c for c in listed.categories if order and c not in order}
    return listed._replace(
        categories=tuple(sorted(listed.categories, key=lambda c: order.get(c, len(order)))),
        ignored=listed.ignored | {*one.ignore_classes} & {*listed.categories},
        groups=listed.groups | unscored,
    )


def stands(source: str | Path, split: str, name: str) -> None:
    """Raises UserError if a split of a published set, or what it needs, is not there."""
    with opened(source) as root:
        home = _home(root, name)
        if split in SETS[name].parts and (wrong := _standing(home, name, [split])):
            raise UserError("; ".join(wrong))


def report(name: str, counts: Mapping[str, int], wrong: Iterable[str]) -> list[str]:
    """What there is to know of a set, and what `looked` found: images against those published, and
    what is missing.
    """
    one = SETS[name]
    lines = [f"{one.title} ({name})", f"  terms: {one.terms}", f"  cite: {one.cite}"]
    lines += [f"  known: {one.faults}"] if one.faults else []
    for split, count in counts.items():
        published = one.parts[split].images if split in one.parts else 0
        expected = f"{published:,}" if published else "unknown"
        lines.append(f"  {split}: {count:,} images, published {expected}")
    return [*lines, *(f"  {text}" for text in wrong)]


def mended(
    listed: Listing,
    empty: str = "keep",
    min_area: float | None = None,
    min_height: Mapping[str, float] | None = None,
    small: str = "drop",
) -> Listing:
    """The listing without images or boxes that a protocol leaves out.

    Args:
        empty: "drop" leaves out images without a box; "keep" keeps them.
        min_area: px^2 in the file; boxes of no more than that are left out.
        min_height: category -> px in the file; boxes of it that are no higher are `small`.
        small: "drop" leaves these out, so that they become background; "ignore_classes" makes them
            don't-care.

    Raises UserError for other words, and a category that is not there.
    """
    for field, value, known in (
        ("empty", empty, ("keep", "drop")),
        ("small", small, ("drop", "ignore_classes")),
    ):
        if value not in known:
            raise UserError(f"{field} = {value!r}: {suggest(value, known)}")
    heights = dict(min_height or {})
    for category, least in (*heights.items(), ("min_area", min_area or 0)):
        if not isinstance(least, int | float):
            raise UserError(f"{category} = {least!r}: give pixels, a number")
    for category in heights:
        if category not in listed.categories:
            near = suggest(category, listed.categories)
            raise UserError(f"{listed.where}: min_height: no category {category!r}; {near}")
    entries = [entry for entry in listed.entries if entry.labels or empty == "keep"]
    if min_area is None and not heights:
        return listed._replace(entries=entries)

    def kept(entry: Entry) -> Iterable[Label]:
        shape = shape_of(content(entry.place)) if listed.relative and entry.labels else (1, 1)
        for label in entry.labels:
            x1, y1, x2, y2 = in_pixels(label.box, shape) if listed.relative else label.box
            if min_area is not None and max(x2 - x1, 0) * max(y2 - y1, 0) <= min_area:
                continue
            if y2 - y1 > heights.get(label.category, -1):
                yield label
            elif small == "ignore_classes":
                yield label._replace(ignore=True)

    return listed._replace(entries=[e._replace(labels=[*kept(e)]) for e in entries])


@lru_cache(maxsize=1000)
def _say(message: str) -> None:
    log.warning(message)


def _home(root: Place, name: str) -> Place:
    """The folder that the set's own paths start from. Raises UserError if it is not there."""
    one = SETS[name]
    places = [*homes(root)] if one.layout == "voc" else homes(root)
    if one.layout == "voc":  # several stand in one VOCdevkit
        places = sorted(places, key=lambda home: home.name != one.folder)
    for home in places:
        if any(_at(home, part) for part in one.parts.values()):
            return home
        if name == "kaist" and kaist.splits(home):
            return home
    at = next(iter(one.parts.values())).at[0]
    raise UserError(
        f"{root}: no {one.title} here; unpack {one.archive} so that {one.folder}/{at} exists"
    )


def _there(home: Place, path: str) -> bool:
    folder, glob, ending = path.partition("/*")
    place = home / folder
    if not glob:
        return place.is_file() or place.is_dir()
    return bool(files(place, ending)) if ending else place.is_dir()


def _at(home: Place, part: Part) -> str:
    return next((path for path in part.at if _there(home, path)), "")


def _lacking(home: Place, part: Part) -> list[str]:
    return [path for path in part.needs if not _there(home, path)]


def _standing(home: Place, name: str, names: Iterable[str]) -> list[str]:
    """What of these splits does not stand in `home`, each once."""
    one = SETS[name]
    wrong: dict[str, None] = {}
    for part in (one.parts[split] for split in names):
        for path in ([] if _at(home, part) else [part.at[0]]) + _lacking(home, part):
            there = f"unpack {one.archive} so that {one.folder}/{path} exists"
            wrong[f"{one.title}: {path.partition('/*')[0]} is not there; {there}"] = None
    return [*wrong]


def looked(root: Place, name: str) -> tuple[dict[str, int], list[str]]:
    """Images of every split that is there; and what of a set is not where it should be, in plain
    words: folders, files, and images that its labels name.
    """
    one = SETS[name]
    try:
        home = _home(root, name)
    except UserError as error:
        return {}, [str(error)]
    wrong, counts = _standing(home, name, one.parts), {}
    for split in splits(root, name):
        if split in one.parts and _lacking(home, one.parts[split]):
            continue
        try:
            named = _images(root, name, split)
        except UserError as error:
            wrong.append(str(error))
            continue
        absent = [place for place in named if not place.is_file()]
        counts[split] = len(named) - len(absent)
        if absent:
            wrong.append(
                f"{one.title}: {split}: {len(absent):,} of {len(named):,} images that its labels "
                f"name are missing: {shorten(str(place) for place in absent)}"
            )
    return counts, wrong


def _images(root: Place, name: str, split: str) -> list[Bytes]:
    if SETS[name].layout != "list":
        return [one.place for one in listing(root, split, lambda *_: None, name).entries]
    home = _home(root, name)
    lines = text(home / SETS[name].parts[split].at[0]).splitlines()
    return [home / (line.rpartition(" ")[0] or line) for line in lines if line.strip()]


def _read(home: Place, name: str, split: str, at: str, refuse: Refuse) -> Listing:
    folder, _, file = at.rpartition("/")
    if name == "kaist":
        return kaist.listing(home, split, refuse)
    if name == "llvip":
        images = image_files(home / folder)
        return _pairs(home, home / folder, [(image, stem(image)) for image in images], refuse)
    if name == "flir_aligned":
        return _flir_aligned(home, split, at, refuse)
    if at.endswith("/Annotations"):
        return _flir_v1(home / at, home / folder / "PreviewData", refuse)
    if name.startswith("flir_adas"):
        return coco.listing(home / folder, file.removesuffix(".json"), refuse)
    if at.startswith("normal_json"):
        return _hit_uav(home / at, home / "normal_json" / split, refuse)
    if name == "hit_uav":
        return voc.listing(home / "normal_xml", split, refuse, first_pixel=0)
    module = {"coco": coco, "voc": voc}[SETS[name].layout]
    return module.listing(home, split, refuse)


def _pairs(
    home: Place, where: Place, pairs: Iterable[tuple[Place, str]], refuse: Refuse
) -> Listing:
    """Images and the names of their xml files, whose corners are used as they are written."""
    xmls = {stem(file): file for file in files(home / "Annotations", ".xml")}
    read = {name: voc.read_xml(file, first_pixel=0) for name, file in xmls.items()}
    entries = []
    for image, name in pairs:
        if name not in read:
            refuse("missing label file", f"{home / 'Annotations'}/{name}.xml: no such file")
        elif isinstance(one := read[name], UserError):
            refuse("bad label file", str(one))
        else:
            entries.append(Entry(image, {"file_name": image.name, **one.size}, one.labels))
    found = [one for one in read.values() if not isinstance(one, UserError)]
    categories = {label.category for one in found for label in one.labels}
    return Listing(str(where), entries, tuple(sorted(categories)))


def _flir_aligned(home: Place, split: str, at: str, refuse: Refuse) -> Listing:
    """Lines of the lists are FLIR_00002_PreviewData, the thermal image's name, or without it."""
    names = [f"{line.removesuffix('_PreviewData')}_" for line in text(home / at).split()]
    ending = "RGB.jpg" if split.startswith("rgb/") else "PreviewData.jpeg"
    pairs = [
        (inside(home / "JPEGImages", f"{name}{ending}", at), f"{name}PreviewData") for name in names
    ]
    return _pairs(home, home / at, pairs, refuse)


def _flir_v1(folder: Place, images: Place, refuse: Refuse) -> Listing:
    """The first release: for each image a json with "annotation", a list of bbox x, y, w, h and
    category_id.
    """
    entries = []
    for file in files(folder, ".json"):
        image = f"{stem(file)}.jpeg"
        try:
            rows = json.loads(content(file))["annotation"]
            labels = [_label(row, FLIR_NAMES, f"{file}: {k}") for k, row in enumerate(rows, 1)]
        except (KeyError, TypeError, ValueError) as error:
            refuse("bad label file", f"{file}: not as FLIR's ({type(error).__name__}: {error})")
            continue
        entries.append(Entry(images / image, {"file_name": image}, labels))
    return Listing(str(folder), entries, tuple(FLIR_NAMES.values()))


def _hit_uav(file: Place, images: Place, refuse: Refuse) -> Listing:
    """HIT-UAV's json: COCO's, but for "annotation" and "filename"."""
    try:
        document = json.loads(content(file))
        names = {int(one["id"]): str(one["name"]) for one in document["categories"]}
        labels = defaultdict(list)
        for row in document["annotation"]:
            labels[row["image_id"]].append(_label(row, names, f"{file}: annotation {row['id']}"))
        entries = [
            Entry(
                inside(images, info["filename"], str(file)),
                {**info, "file_name": info["filename"]},
                labels[info["id"]],
            )
            for info in document["images"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file}: not HIT-UAV's ({type(error).__name__}: {error}); it has the lists images, "
            "categories and annotation"
        ) from error
    return Listing(str(file), entries, tuple(names.values()))


def _label(row: Mapping[str, Any], names: Mapping[int, str], where: str) -> Label:
    x, y, w, h = map(float, row["bbox"])
    return Label(where, names[int(row["category_id"])], (x, y, x + w, y + h))
