"""Recognize the layout of a data source, and report labels in more than one layout."""

import re
import zipfile
from collections.abc import Iterator
from importlib import import_module
from inspect import signature
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from tinyjax.data.images import SUFFIXES
from tinyjax.data.layouts import coco, voc, yolo
from tinyjax.data.layouts.catalog import DETECTION_SETS, PUBLISHED_SETS
from tinyjax.data.layouts.identity_images import modality_folders
from tinyjax.data.layouts.listing import (
    SPLIT_ALIASES,
    Entry,
    Listing,
    OnError,
    candidate_roots,
    explain_upper_case,
    list_files,
    list_folders,
    list_images,
    parent,
    raise_error,
    split_command,
    unread_hint,
    walk_files,
)
from tinyjax.data.layouts.published import published_layout, recognize, voc_first_pixel
from tinyjax.data.sources import AnyPath, read_bytes
from tinyjax.errors import UserError, shorten, suggest

LAYOUTS = ("arrayrecord", "voc", "yolo", "coco")
TITLES = {"arrayrecord": "ArrayRecord", "voc": "VOC", "yolo": "YOLO", "coco": "COCO"}
# Suffixes of the layouts with a label file per image; LabelMe is not read
LABEL_SUFFIXES = {"voc": ".xml", "yolo": ".txt", "LabelMe": ".json"}
IMAGE_FOLDERS = ("images", "JPEGImages")
LABEL_FOLDERS = ("labels", "Annotations", "annotations")
# What the json and xml files of tools contain whose own formats are not read
TOOL_MARKS = {
    "LabelMe": rb'"shapes"\s*:',
    "VGG Image Annotator (VIA)": rb'"(_via_img_metadata|regions)"\s*:',
    "Supervisely": rb'"classTitle"\s*:',
    "Label Studio": rb'"rectanglelabels"',
    "CVAT": rb"<annotations>",
}


def list_split(
    root: AnyPath,
    split: str,
    layout: str,
    first_pixel: int | None = None,
    on_error: OnError = raise_error,
) -> Listing:
    """The listing of a split, see `DetectionOptions`. Raises UserError if it has no images.

    "val" and "valid" are the same split if only one of them exists. An image without labels that
    has some in another layout is reported to `on_error` and left out.
    """
    module = find_layout(root, layout)
    if split in SPLIT_ALIASES and split not in (names := module.list_splits(root)):
        split = SPLIT_ALIASES[split] if SPLIT_ALIASES[split] in names else split
    extra = {}
    if "first_pixel" in signature(module.read_listing).parameters:
        extra["first_pixel"] = voc_first_pixel(root, layout) if first_pixel is None else first_pixel
    listing = module.read_listing(root, split, on_error, **extra)
    if not listing.entries:
        raise UserError(f"{listing.source}: split {split!r} has no images")
    if not any(entry.file.is_file() for entry in listing.entries) and (
        hint := explain_upper_case(root)
    ):
        raise UserError(f"{listing.entries[0].file}: no such image{hint}")
    if isinstance(module, ModuleType):  # a published set may have several layouts
        name = module.__name__.rpartition(".")[2]
        listing = _drop_labeled_elsewhere(root, name, listing, on_error)
    return listing


def find_layout(root: AnyPath, layout: str) -> Any:
    """The module that reads `layout`; for "auto" the recognized one.

    A label file as `root` decides: YOLO's yaml, or a COCO json. A published set that has several
    layouts is read by its own module.

    Raises UserError for an unknown layout; if none is recognized, where the message describes the
    problem of a near match; and if several are.
    """
    known = (*LAYOUTS, *DETECTION_SETS, "auto")
    if layout not in known:
        raise UserError(f"layout = {layout!r}: {suggest(layout, known)}")
    if root.is_file():
        return _import(_layout_of_file(root, layout))
    if published := published_layout(root, layout):
        return published
    if layout != "auto":
        return _import(layout)
    candidates, errors = [], []
    for name in LAYOUTS:
        try:
            candidates += [name] if _import(name).list_splits(root) else []
        except UserError as error:
            errors.append(error)
    if len(candidates) > 1:  # images and a class list alone do not make a format
        labeled = [n for n in candidates if n not in LABEL_SUFFIXES or _import(n).has_labels(root)]
        candidates = labeled or candidates[:1]
    if len(candidates) > 1:
        return _choose(root, candidates)
    if candidates:
        return _import(candidates[0])
    raise errors[0] if errors else UserError(_explain_unknown(root))


def _import(name: str) -> Any:
    return import_module(f"tinyjax.data.layouts.{name}")


def _layout_of_file(file: AnyPath, layout: str) -> str:
    name = "coco" if file.name.lower().endswith(".json") else "yolo"
    if layout not in ("auto", name):
        raise UserError(f"{file}: a file of {TITLES[name]}, but format = {layout!r}; give {name!r}")
    return name


def _choose(root: AnyPath, names: list[str]) -> Any:
    """The module of a published set's layout; raises UserError if the set is not published."""
    if (name := recognize(root)) and PUBLISHED_SETS[name].layout in names:
        return _import(PUBLISHED_SETS[name].layout)
    files = {name: _example_files(root, name) for name in names}
    layouts = " and ".join(
        f"{TITLES[name]} ({len(paths)} file{'s' * (len(paths) != 1)}, such as {(*paths, '')[0]})"
        for name, paths in files.items()
    )
    sources = []
    if isinstance(root, Path):  # a file in a zip cannot be a source
        sources += [str(root / path) for path in files.get("coco", [])[:1]]
        if "yolo" in names and (class_list := yolo.find_class_list(root)):
            sources += [str(class_list[1])] if yolo.is_yaml(class_list[1]) else []
    given = f", or give {' or '.join(sources)} as the source" if sources else ""
    raise UserError(
        f"{root}: labels in {len(names)} formats: {layouts}; choose one with data.format = "
        f"{' or '.join(names)} (prepare: --format){given}"
    )


def _example_files(root: AnyPath, layout: str) -> list[str]:
    """Paths of the files with labels in this layout."""
    if layout in LABEL_SUFFIXES:
        stems = {PurePosixPath(path).stem for path, _ in walk_files(root, SUFFIXES)}
        paths = [path for path, _ in walk_files(root, LABEL_SUFFIXES[layout])]
        return [path for path in paths if PurePosixPath(path).stem in stems] or paths
    if layout == "coco":
        splits = coco.list_splits(root)
        paths = [path for path, _ in walk_files(root, ".json")]
        return [path for path in paths if any(split in path for split in splits)]
    return [path for path, _ in walk_files(root, "dataset_info.json")]


# ---- labels in another layout


def _drop_labeled_elsewhere(
    root: AnyPath, layout: str, listing: Listing, on_error: OnError
) -> Listing:
    """The listing without images that have labels only in another layout; these are reported."""
    unlabeled = [entry for entry in listing.entries if not entry.labels]
    if layout == "arrayrecord" or not unlabeled:
        return listing
    base = root
    if root.is_file():
        base = coco.set_folder(root) if layout == "coco" else parent(root)
    others = _coco_files(base) if layout != "coco" else {}
    for name in LABEL_SUFFIXES.keys() - {layout}:
        others |= _label_files(base, name, unlabeled)
    dropped = {str(entry.file) for entry in unlabeled} & others.keys()
    for name in sorted(dropped):
        on_error(
            "labels in another format",
            f"{name}: has no {TITLES[layout]} labels, but {others[name]} has some "
            f"({len(dropped)} of {len(listing.entries)} images in {listing.source}); convert all "
            "labels to one format, or delete that file",
        )
    return listing._replace(entries=[e for e in listing.entries if str(e.file) not in dropped])


def _coco_files(base: AnyPath) -> dict[str, str]:
    """Image -> the COCO json that has objects in it."""
    files = {}
    for split in coco.list_splits(base):
        try:
            listing = coco.read_listing(base, split, lambda *_: None)
        except UserError:  # not of this layout
            continue
        for entry in listing.entries:
            if any(not label.ignore for label in entry.labels):
                files[str(entry.file)] = listing.source
    return files


def _label_files(base: AnyPath, layout: str, entries: list[Entry]) -> dict[str, str]:
    """Image -> its label file in a layout with a file per image, if that has objects."""
    folders: dict[str, dict[str, AnyPath]] = {}
    files = {}
    for entry in entries:
        path = (
            entry.file.at
            if isinstance(entry.file, zipfile.Path)
            else (PurePosixPath(str(entry.file)).relative_to(str(base)).as_posix())
        )
        for folder, stem in label_paths(path):
            if folder not in folders:
                candidates = list_files(base / folder, LABEL_SUFFIXES[layout])
                folders[folder] = {PurePosixPath(file.name).stem: file for file in candidates}
            if stem in folders[folder] and _has_objects(folders[folder][stem], layout):
                files[str(entry.file)] = str(folders[folder][stem])
    return files


def _has_objects(file: AnyPath, layout: str) -> bool:
    if layout == "voc":
        annotation = voc.read_xml(file)
        return not isinstance(annotation, UserError) and not all(
            label.ignore for label in annotation.labels
        )
    mark = yolo.LABEL_LINE if layout == "yolo" else re.compile(TOOL_MARKS[layout])
    return bool(mark.search(read_bytes(file)))


def label_paths(image: str) -> Iterator[tuple[str, str]]:
    """(folder, stem) of the label files that tools write for an image: next to it, or in a folder
    of labels that replaces the folder of images.
    """
    *folders, name = image.split("/")
    stem = PurePosixPath(name).stem
    yield "/".join(folders), stem
    for k in reversed(range(len(folders))):
        if folders[k] in IMAGE_FOLDERS:
            for label_folder in LABEL_FOLDERS:
                yield "/".join([*folders[:k], label_folder, *folders[k + 1 :]]), stem
                if folders[k + 1 :]:
                    yield "/".join([*folders[:k], label_folder]), stem
            return


# ---- no layout


def _explain_unknown(root: AnyPath) -> str:
    """A message about a folder in no known layout."""
    hint = explain_upper_case(root)
    for name in ("voc", "yolo"):
        if message := _import(name).explain_mismatch(root):
            return message + hint
    candidates = [*candidate_roots(root)]
    if zips := [file for folder in candidates for file in list_files(folder, ".zip")]:
        return f"{zips[0]}: a zip within {root}; give the inner zip as the source"
    for folder in candidates:
        for file in list_files(folder, (".json", ".xml"))[:3]:
            content = read_bytes(file)
            if tool := next((t for t, mark in TOOL_MARKS.items() if re.search(mark, content)), ""):
                return (
                    f"{file}: a file of {tool}, which is not read; export or convert the set to "
                    "COCO, YOLO or Pascal VOC, see docs/data.md"
                )
    if any(len(modality_folders(folder)) == 2 for folder in candidates):
        return (
            f"{root}: images of two modalities, which are checked when training starts: "
            f"python -m tinyjax.train --config configs/toplight/own.py:source={root}; "
            "see docs/recognition.md"
        )
    if classes := next(filter(None, map(class_folders, candidates)), []):
        names = shorten(folder.name for folder in classes)
        hint += (
            f"; if {names} are classes: for classification give data.format = folder, and divide "
            f"a set without splits by {split_command(root)} --format folder"
        )
    return (
        f"{root}: no known layout: COCO has annotations/*.json, YOLO a data.yaml, VOC "
        f"Annotations/*.xml and ImageSets/Main/*.txt; see docs/data.md{hint}{unread_hint(root)}"
    )


def class_folders(data_dir: AnyPath) -> list[AnyPath]:
    """The subfolders with images, if there are two or more."""
    folders = [folder for folder in list_folders(data_dir) if list_images(folder)]
    return folders if len(folders) > 1 else []
