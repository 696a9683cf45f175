"""Read the sets of `catalog.PUBLISHED_SETS` from disk, and check that their files exist.

In LLVIP and FLIR aligned two images share one xml. FLIR ADAS has one json per folder (v1 before
1.3: one per image), HIT-UAV a json that differs from COCO. `kaist` reads KAIST; each other set is
read by the module of its layout.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tinyjax.data.layouts import coco, kaist, voc
from tinyjax.data.layouts.catalog import PUBLISHED_SETS, SplitFiles
from tinyjax.data.layouts.listing import (
    Entry,
    Label,
    Listing,
    OnError,
    candidate_roots,
    join_inside,
    list_files,
    list_images,
    read_text,
    stem,
    unknown_split,
    warn_once,
)
from tinyjax.data.layouts.selection import apply_protocol
from tinyjax.data.sources import AnyPath, ImageFile, open_source, read_bytes
from tinyjax.errors import UserError, shorten

# readme of FLIR ADAS v1
FLIR_CATEGORIES = {1: "person", 2: "bicycle", 3: "car", 18: "dog", 91: "other vehicle"}


class PublishedLayout(NamedTuple):
    """The interface of a layout's module, for one published set."""

    list_splits: Any  # (root) -> names
    read_listing: Any  # (root, split, on_error) -> Listing


def published_layout(root: AnyPath, layout: str) -> PublishedLayout | None:
    """The layout of the published set `layout`; None for other layouts.

    For "auto": the layout of the set recognized in `root` if it is "special", else None.
    """
    name = recognize(root) if layout == "auto" else layout
    if name not in PUBLISHED_SETS:
        return None
    if layout == "auto" and PUBLISHED_SETS[name].layout != "special":
        return None
    return PublishedLayout(partial(list_splits, name=name), partial(read_listing, name=name))


def voc_first_pixel(root: AnyPath, layout: str) -> int | None:
    """The number of the first pixel in the published VOC set that `layout` reads; None if the files
    are to decide.

    Own data are often kept in folders with the devkit's names, VOC2007 and VOC2012, and its own
    files name their database: there, too, the files decide.
    """
    name = recognize(root) if layout in ("auto", "voc") else ""
    if name in ("", "voc2007", "voc2012") or PUBLISHED_SETS[name].layout != "voc":
        return None
    return 1


def recognize(root: AnyPath) -> str:
    """The name of the published set in `root` or below, by files that only it has; else ""."""
    for data_dir in candidate_roots(root):
        for name, published in PUBLISHED_SETS.items():
            if published.signature:
                splits = [SplitFiles((published.signature,))]
            else:
                splits = [*published.splits.values()]
            if published.layout == "voc" and data_dir.name != published.folder:
                continue
            if any(
                _find_path(data_dir, files) and not _missing_paths(data_dir, files)
                for files in splits
            ):
                return name
            if name == "kaist" and (data_dir / "images" / "set00").is_dir():
                return name
    return ""


def list_splits(root: AnyPath, name: str) -> list[str]:
    """The splits that exist. Raises UserError if none of the set's files exists."""
    data_dir = _find_root(root, name)
    if name == "kaist":
        return kaist.list_splits(data_dir)
    splits = PUBLISHED_SETS[name].splits
    return [split for split, files in splits.items() if _find_path(data_dir, files)]


def read_listing(root: AnyPath, split: str, on_error: OnError, name: str) -> Listing:
    """Read a split of a published set.

    With `drops_empty_boxes`, boxes without area are left out and their number is logged once.

    Raises UserError for missing files and for a split without labels, and as the layout's module.
    """
    published, data_dir = PUBLISHED_SETS[name], _find_root(root, name)
    if split in published.unlabeled:
        raise UserError(f"{published.title}: {split}: {published.unlabeled[split]}")
    if split in published.splits and (problems := _missing_path_messages(data_dir, name, [split])):
        raise UserError("; ".join(problems))
    path = _find_path(data_dir, published.splits[split]) if split in published.splits else ""
    if not path and name != "kaist":
        raise unknown_split(data_dir, split, list_splits(root, name))
    listing = _read_set(data_dir, name, split, path, on_error)
    if published.drops_empty_boxes:
        filtered = apply_protocol(listing, min_area=0)
        num_labels = sum(len(entry.labels) for entry in listing.entries)
        if dropped := num_labels - sum(len(entry.labels) for entry in filtered.entries):
            warn_once(f"{published.title}, {split}: {dropped} boxes without area left out")
        listing = filtered
    order = {category: k for k, category in enumerate(published.classes)}
    unscored = {c for c in listing.categories if order and c not in order}
    return listing._replace(
        categories=tuple(sorted(listing.categories, key=lambda c: order.get(c, len(order)))),
        ignored=listing.ignored | {*published.ignore_classes} & {*listing.categories},
        groups=listing.groups | unscored,
    )


# ---- checks


def check_files(source: str | Path, split: str, name: str) -> None:
    """Raise UserError if files of a split of a published set are missing."""
    with open_source(source) as root:
        data_dir = _find_root(root, name)
        known = split in PUBLISHED_SETS[name].splits
        if known and (problems := _missing_path_messages(data_dir, name, [split])):
            raise UserError("; ".join(problems))


def describe(name: str, counts: Mapping[str, int], problems: Iterable[str]) -> list[str]:
    """Lines about a set: terms, citation, known issues, image counts and what is missing.

    counts, problems: as `inspect_files` returns them.
    """
    published = PUBLISHED_SETS[name]
    lines = [
        f"{published.title} ({name})",
        f"  terms: {published.terms}",
        f"  cite: {published.citation}",
    ]
    lines += [f"  known issues: {published.known_issues}"] if published.known_issues else []
    for split, count in counts.items():
        official = published.splits[split].num_images if split in published.splits else 0
        expected = f"{official:,}" if official else "unknown"
        lines.append(f"  {split}: {count:,} images, published {expected}")
    return [*lines, *(f"  {problem}" for problem in problems)]


def inspect_files(root: AnyPath, name: str) -> tuple[dict[str, int], list[str]]:
    """The number of images of each split that exists, and messages about missing folders, files
    and labeled images.
    """
    published = PUBLISHED_SETS[name]
    try:
        data_dir = _find_root(root, name)
    except UserError as error:
        return {}, [str(error)]
    problems, counts = _missing_path_messages(data_dir, name, published.splits), {}
    for split in list_splits(root, name):
        if split in published.splits and _missing_paths(data_dir, published.splits[split]):
            continue
        try:
            images = _image_files(root, name, split)
        except UserError as error:
            problems.append(str(error))
            continue
        missing = [file for file in images if not file.is_file()]
        counts[split] = len(images) - len(missing)
        if missing:
            problems.append(
                f"{published.title}: {split}: {len(missing):,} of {len(images):,} labeled "
                f"images are missing: {shorten(str(file) for file in missing)}"
            )
    return counts, problems


def _find_root(root: AnyPath, name: str) -> AnyPath:
    """The folder that the set's paths start from. Raises UserError if it is not found."""
    published = PUBLISHED_SETS[name]
    candidates = [*candidate_roots(root)] if published.layout == "voc" else candidate_roots(root)
    if published.layout == "voc":  # a VOCdevkit may contain several sets
        candidates = sorted(candidates, key=lambda data_dir: data_dir.name != published.folder)
    for data_dir in candidates:
        if any(_find_path(data_dir, files) for files in published.splits.values()):
            return data_dir
        if name == "kaist" and kaist.list_splits(data_dir):
            return data_dir
    path = next(iter(published.splits.values())).paths[0]
    raise UserError(
        f"{root}: no {published.title} in this folder; unpack {published.archive} so that "
        f"{published.folder}/{path} exists"
    )


def _exists(data_dir: AnyPath, path: str) -> bool:
    folder, glob, suffix = path.partition("/*")
    target = data_dir / folder
    if not glob:
        return target.is_file() or target.is_dir()
    return bool(list_files(target, suffix)) if suffix else target.is_dir()


def _find_path(data_dir: AnyPath, files: SplitFiles) -> str:
    return next((path for path in files.paths if _exists(data_dir, path)), "")


def _missing_paths(data_dir: AnyPath, files: SplitFiles) -> list[str]:
    return [path for path in files.requires if not _exists(data_dir, path)]


def _missing_path_messages(data_dir: AnyPath, name: str, splits: Iterable[str]) -> list[str]:
    """A message for each missing path of these splits, without duplicates."""
    published = PUBLISHED_SETS[name]
    problems: dict[str, None] = {}
    for files in (published.splits[split] for split in splits):
        paths = [] if _find_path(data_dir, files) else [files.paths[0]]
        for path in paths + _missing_paths(data_dir, files):
            message = (
                f"{published.title}: {path.partition('/*')[0]} does not exist; unpack "
                f"{published.archive} so that {published.folder}/{path} exists"
            )
            problems[message] = None
    return [*problems]


def _image_files(root: AnyPath, name: str, split: str) -> list[ImageFile]:
    published = PUBLISHED_SETS[name]
    if published.layout != "list":
        return [entry.file for entry in read_listing(root, split, lambda *_: None, name).entries]
    data_dir = _find_root(root, name)
    lines = read_text(data_dir / published.splits[split].paths[0]).splitlines()
    return [data_dir / (line.rpartition(" ")[0] or line) for line in lines if line.strip()]


# ---- layouts of single sets


def _read_set(data_dir: AnyPath, name: str, split: str, path: str, on_error: OnError) -> Listing:
    folder, _, file = path.rpartition("/")
    if name == "kaist":
        return kaist.read_listing(data_dir, split, on_error)
    if name == "llvip":
        pairs = [(image, stem(image)) for image in list_images(data_dir / folder)]
        return _read_pairs(data_dir, data_dir / folder, pairs, on_error)
    if name == "flir_aligned":
        return _read_flir_aligned(data_dir, split, path, on_error)
    if path.endswith("/Annotations"):
        return _read_flir_v1(data_dir / path, data_dir / folder / "PreviewData", on_error)
    if name.startswith("flir_adas"):
        return coco.read_listing(data_dir / folder, file.removesuffix(".json"), on_error)
    if path.startswith("normal_json"):
        return _read_hit_uav(data_dir / path, data_dir / "normal_json" / split)
    if name == "hit_uav":
        return voc.read_listing(data_dir / "normal_xml", split, on_error, first_pixel=0)
    if PUBLISHED_SETS[name].layout == "voc":
        return voc.read_listing(data_dir, split, on_error, first_pixel=1)
    return coco.read_listing(data_dir, split, on_error)


def _read_pairs(
    data_dir: AnyPath, source: AnyPath, pairs: Iterable[tuple[AnyPath, str]], on_error: OnError
) -> Listing:
    """Read VOC xml files, whose corners are used as written. pairs: image, stem of its xml file."""
    xmls = {stem(file): file for file in list_files(data_dir / "Annotations", ".xml")}
    annotations = {name: voc.read_xml(file) for name, file in xmls.items()}
    entries = []
    for image, name in pairs:
        if name not in annotations:
            message = f"{data_dir / 'Annotations'}/{name}.xml: no such file"
            on_error("missing label file", message)
        elif isinstance(annotation := annotations[name], UserError):
            on_error("bad label file", str(annotation))
        else:
            info = {"file_name": image.name, **annotation.size}
            entries.append(Entry(image, info, annotation.labels))
    valid = [a for a in annotations.values() if not isinstance(a, UserError)]
    categories = {label.category for annotation in valid for label in annotation.labels}
    return Listing(str(source), entries, tuple(sorted(categories)))


def _read_flir_aligned(data_dir: AnyPath, split: str, path: str, on_error: OnError) -> Listing:
    """A line of a list is the stem of a thermal image, FLIR_00002_PreviewData, or FLIR_00002."""
    lines = read_text(data_dir / path).split()
    names = [f"{line.removesuffix('_PreviewData')}_" for line in lines]
    ending = "RGB.jpg" if split.startswith("rgb/") else "PreviewData.jpeg"
    pairs = [
        (join_inside(data_dir / "JPEGImages", f"{name}{ending}", path), f"{name}PreviewData")
        for name in names
    ]
    return _read_pairs(data_dir, data_dir / path, pairs, on_error)


def _read_flir_v1(folder: AnyPath, images: AnyPath, on_error: OnError) -> Listing:
    """The first release: for each image a json with "annotation", a list of bbox x, y, w, h and
    category_id.
    """
    entries = []
    for file in list_files(folder, ".json"):
        image = f"{stem(file)}.jpeg"
        try:
            rows = json.loads(read_bytes(file))["annotation"]
            labels = [_label(row, FLIR_CATEGORIES, f"{file}: {k}") for k, row in enumerate(rows, 1)]
        except (KeyError, TypeError, ValueError) as error:
            message = f"{file}: not a FLIR label file ({type(error).__name__}: {error})"
            on_error("bad label file", message)
            continue
        entries.append(Entry(images / image, {"file_name": image}, labels))
    return Listing(str(folder), entries, tuple(FLIR_CATEGORIES.values()))


def _read_hit_uav(file: AnyPath, images: AnyPath) -> Listing:
    """HIT-UAV's json: COCO with "annotation" and "filename" in place of the standard names."""
    try:
        document = json.loads(read_bytes(file))
        names = {int(row["id"]): str(row["name"]) for row in document["categories"]}
        labels = defaultdict(list)
        for row in document["annotation"]:
            labels[row["image_id"]].append(_label(row, names, f"{file}: annotation {row['id']}"))
        entries = [
            Entry(
                join_inside(images, info["filename"], str(file)),
                {**info, "file_name": info["filename"]},
                labels[info["id"]],
            )
            for info in document["images"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file}: not a HIT-UAV label file ({type(error).__name__}: {error}); it has the lists "
            "images, categories and annotation"
        ) from error
    return Listing(str(file), entries, tuple(names.values()))


def _label(row: Mapping[str, Any], names: Mapping[int, str], source: str) -> Label:
    x, y, w, h = map(float, row["bbox"])
    return Label(source, names[int(row["category_id"])], (x, y, x + w, y + h))
