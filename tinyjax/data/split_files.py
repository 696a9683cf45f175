"""Write the splits of a set next to its files, in the form that the set's layout reads.

    YOLO                 lists of images, and a yaml that names the lists
    VOC                  lists in ImageSets/Main
    COCO                 annotations/instances_<split>.json
    folders of classes   lists of "<path> <number>", read with data.format = "list"

Images are neither moved nor copied, and no existing file is overwritten.
"""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from tinyjax.data.images import SUFFIXES
from tinyjax.data.layouts import coco, voc, yolo
from tinyjax.data.layouts.listing import Entry, candidate_roots, walk_files
from tinyjax.data.layouts.recognition import class_folders, find_layout, list_split
from tinyjax.data.loading import CLASS_FOLDERS
from tinyjax.data.splitting import SPLITS, divide
from tinyjax.errors import UserError, shorten

Groups = Mapping[str, Sequence[Entry]]  # new split -> its images


class NewSplits(NamedTuple):
    """Splits that were written."""

    files: list[Path]
    source: Path  # of a config that reads them
    counts: dict[str, dict[str, int]]  # split -> category -> boxes, or class -> images
    num_images: dict[str, int]
    num_groups: int
    contiguous: bool  # see `splitting.divide`


def split_detection_set(
    root: Path, layout: str, fractions: Sequence[float], seed: int, first_pixel: int | None = None
) -> NewSplits:
    """Divide the images of the split "train", or all images of a set that has no such split.

    The new splits are train, val and, with a third fraction, test; their names start with "split_"
    if the set has one of them.

    Raises UserError if the set has a validation split, if a file to write exists, and as
    `list_split`.
    """
    module = find_layout(root, layout)
    writer = {yolo: _write_yolo, voc: _write_voc, coco: _write_coco}.get(module)
    if not writer:
        raise UserError(f"{root}: has splits of its own; --split divides sets in COCO, VOC or YOLO")
    existing = module.list_splits(root)
    sources = _splits_to_divide(root, existing)
    pairs = [
        (f"{name}/{entry.info['file_name']}", entry)
        for name in sources
        for entry in list_split(root, name, layout, first_pixel).entries
    ]
    division = divide([path for path, _ in pairs], fractions, seed)
    prefix = "split_" if {*SPLITS[: len(fractions)]} & {*existing} else ""
    groups = {
        prefix + split: [pairs[i][1] for i in np.flatnonzero(division.splits == k)]
        for k, split in enumerate(SPLITS[: len(fractions)])
    }
    files, source = writer(root, sources, groups)
    read_as = dict(zip(SPLITS if module is yolo else groups, groups.values(), strict=False))
    counts = {
        name: dict(Counter(label.category for entry in group for label in entry.labels))
        for name, group in read_as.items()
    }
    num_images = {name: len(group) for name, group in read_as.items()}
    return NewSplits(files, source, counts, num_images, division.num_groups, division.contiguous)


def _splits_to_divide(root: Path, existing: list[str]) -> list[str]:
    if root.is_file() and root.suffix.lower() == ".json":  # the json is the source
        return [coco.split_name(root)]
    if not existing:
        raise UserError(f"{root}: no images in this layout")
    if {"val", "valid", "split_val"} & {*existing}:
        raise UserError(f"{root}: already has the splits {', '.join(existing)}")
    return ["train"] if "train" in existing else [name for name in existing if name != "test"]


def _write_yolo(root: Path, sources: list[str], groups: Groups) -> tuple[list[Path], Path]:
    """In the yaml the splits are train, val and test, whatever the names of the lists."""
    data_dir, class_file = yolo.find_class_list(root) or (root, root)
    fields: dict[str, Any] = {"names": list(yolo.class_names(class_file))}
    if shape := yolo.keypoint_shape(class_file):
        fields["kpt_shape"] = list(shape)
    target = Path(str(data_dir)) / ("split.yaml" if yolo.is_yaml(class_file) else "data.yaml")
    texts = {}
    for split, (name, group) in zip(SPLITS, groups.items(), strict=False):
        fields[split] = f"{name}.txt"
        rows = [f"./{_relative(entry, data_dir)}\n" for entry in group]
        texts[target.parent / f"{name}.txt"] = "".join(rows)
    texts[target] = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    is_folder_read = target.name == "data.yaml" and not root.is_file()
    return _write_new(texts), root if is_folder_read else target


def _write_voc(root: Path, sources: list[str], groups: Groups) -> tuple[list[Path], Path]:
    data_dir, _ = voc.find_set(root)
    image_folder, xml_folder = voc.image_and_xml_folder(data_dir)
    texts, without_xml = {}, []
    for name, group in groups.items():
        rows = [_relative(entry, image_folder).rpartition(".")[0] for entry in group]
        without_xml += [row for row in rows if not (xml_folder / f"{row}.xml").is_file()]
        texts[Path(str(data_dir)) / voc.LISTS / f"{name}.txt"] = "".join(f"{r}\n" for r in rows)
    if without_xml:
        raise UserError(
            f"{xml_folder}: no xml for {len(without_xml)} images, which lists require: "
            f"{shorten(without_xml)}; save an xml without objects, or delete the images"
        )
    return _write_new(texts), root


def _write_coco(root: Path, sources: list[str], groups: Groups) -> tuple[list[Path], Path]:
    """In the jsons, paths of images start in the folder of the set."""
    if len(sources) > 1:
        raise UserError(
            f"{root}: {', '.join(sources)} are separate jsons; give the json to divide as source"
        )
    file, data_dir = (Path(str(path)) for path in coco.find_json(root, sources[0]))
    document = json.loads(file.read_bytes())
    texts = {}
    for name, group in groups.items():
        paths = {entry.info["id"]: _relative(entry, data_dir) for entry in group}
        rows = ((coco.as_id(row["id"]), row) for row in document["images"])
        chosen = {
            "images": [{**row, "file_name": paths[k]} for k, row in rows if k in paths],
            "annotations": [
                row for row in document["annotations"] if coco.as_id(row["image_id"]) in paths
            ],
        }
        target = data_dir / "annotations" / f"instances_{name}.json"
        texts[target] = json.dumps({**document, **chosen}, ensure_ascii=False)
    files = _write_new(texts)
    return files, files[0] if root.is_file() else root


def split_class_folders(root: Path, fractions: Sequence[float], seed: int) -> NewSplits:
    """Divide a folder of classes, or its split "train"; each class by the same fractions.

    Raises UserError if there are no folders of classes, if a class has subfolders or fewer images
    than splits, if there is a validation split, or if a file to write exists.
    """
    data_dir, folder = _find_class_folders(root)
    classes = class_folders(folder)
    texts = {data_dir / f"{split}.txt": "" for split in SPLITS[: len(fractions)]}
    counts: dict[str, dict[str, int]] = {split: {} for split in SPLITS[: len(fractions)]}
    num_groups, contiguous = 0, False
    for number, class_folder in enumerate(classes):
        names = [name for name, _ in walk_files(class_folder, SUFFIXES)]
        if nested := [name for name in names if "/" in name]:
            raise UserError(
                f"{class_folder}: {shorten(nested)} in subfolders, whose names a list would take "
                "for classes; move the images into the folder of their class"
            )
        try:
            division = divide(names, fractions, seed)
        except UserError as error:
            raise UserError(f"{class_folder}: {error}") from error
        num_groups += division.num_groups
        contiguous = contiguous or division.contiguous
        prefix = Path(str(class_folder)).relative_to(data_dir).as_posix()
        for k, (split, file) in enumerate(zip(counts, texts, strict=True)):
            rows = [names[i] for i in np.flatnonzero(division.splits == k)]
            texts[file] += "".join(f"{prefix}/{name} {number}\n" for name in rows)
            counts[split][class_folder.name] = len(rows)
    num_images = {split: sum(by_class.values()) for split, by_class in counts.items()}
    return NewSplits(_write_new(texts), data_dir, counts, num_images, num_groups, contiguous)


def _find_class_folders(root: Path) -> tuple[Path, Path]:
    """The folder for the lists, and the folder that contains the folders of classes."""
    candidates = [Path(str(folder)) for folder in candidate_roots(root)]
    for data_dir in candidates:
        if class_folders(data_dir / "train"):
            if existing := [n for n in ("val", "valid") if class_folders(data_dir / n)]:
                raise UserError(f"{data_dir}: already has the splits train and {existing[0]}")
            return data_dir, data_dir / "train"
    for data_dir in candidates:
        if class_folders(data_dir):
            return data_dir, data_dir
    raise UserError(f"{root}: no folders of classes: <class>/<name>.jpg for two or more classes")


def describe(new: NewSplits, data_format: str) -> list[str]:
    """Lines about new splits: groups, counts, files, and what to run next."""
    plural = "s" * (new.num_groups > 1)
    groups = f"{new.num_groups} group{plural} of images, by names up to their final number"
    if new.contiguous:
        lines = [f"{groups}: too few to divide, so splits are blocks of consecutive images"]
        lines.append("warning: images on either side of a border may be similar")
    else:
        lines = [f"{groups}: each group is in one split"]
    for name, by_class in new.counts.items():
        counts = ", ".join(f"{label} {count}" for label, count in sorted(by_class.items()))
        lines.append(f"{name}: {new.num_images[name]} images, {counts or 'no objects'}")
    known = {label for by_class in new.counts.values() for label in by_class}
    for name, by_class in new.counts.items():
        if missing := sorted(known - by_class.keys()):
            lines.append(f"warning: {name} has no {', '.join(missing)}; try another --seed")
    lines.append(f"wrote {', '.join(str(file) for file in new.files)}")
    if data_format == CLASS_FOLDERS:
        images = new.num_images["train"]
        config = f"configs/imagenet_b.py:format=list,source={new.source},images={images}"
        lines.append(f"next: data.format = 'list', data.common.source = '{new.source}', such as")
        return [*lines, _train_command(config)]
    config = f"configs/own.py:source={new.source}"
    if data_format != "auto" and new.source.is_dir():
        config += f",format={data_format}"
    train, val, *_ = new.counts
    if train != "train":
        config += f",train={train},val={val}"
    lines.append(f"next: python -m tinyjax.prepare {shlex.quote(str(new.source))} --check")
    return [*lines, _train_command(config)]


def _train_command(config: str) -> str:
    return f"  python -m tinyjax.train --config {shlex.quote(config)} --workdir runs/NAME"


def _relative(entry: Entry, folder: object) -> str:
    file = Path(str(entry.file))
    if not file.is_relative_to(str(folder)):
        raise UserError(f"{file}: is not in {folder}, where the lists would be read from")
    return file.relative_to(str(folder)).as_posix()


def _write_new(texts: Mapping[Path, str]) -> list[Path]:
    """Write files that do not exist yet. Raises UserError if one exists, before writing any."""
    if existing := [file for file in texts if file.exists()]:
        raise UserError(f"{shorten(map(str, existing))}: exists; move or delete it to split again")
    for file, text in texts.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    return [*texts]
