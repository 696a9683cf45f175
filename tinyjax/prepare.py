"""Prepare: check a data set before training on it, divide it, convert it once to ArrayRecord, or
fit anchors to it.

    python -m tinyjax.prepare SOURCE --check
    python -m tinyjax.prepare SOURCE --split 0.8,0.2 [--seed N]
    python -m tinyjax.prepare SOURCE --to DIR [--skip-errors]
    python -m tinyjax.prepare SOURCE --anchors K [--levels N] [--centers N] [--size H W]

SOURCE is a folder or a .zip in the layout of COCO, Pascal VOC or YOLO, an unpacked published set,
a prepared set, YOLO's yaml or a COCO json; docs/data.md shows them. --check counts the images and
boxes of each split, reports invalid and unusual ones, and draws a sheet of samples; the exit code
is 2 if training would stop at an error. For a published set it also prints the terms of use and the
missing files.

--split divides a set that has no splits, or only train, into train, val and, with a third fraction,
test. It writes lists next to the images, which it does not move. Images whose names differ only in
their final number, such as the frames of a video, are in one split. With --format folder it divides
a folder of classes.

--anchors fits K anchors to the objects of the training split, in pixels of the network's input. It
prints their reach in each split, next to that of other anchors: the share of objects whose best
anchor has an IoU of 0.5, 0.4 or 0.3, by class; and the options of tinyjax.train that set them.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from tinyjax import config as configs
from tinyjax.config.paths import parse_local_path
from tinyjax.data.layouts.catalog import CLASSIFICATION_SETS, PUBLISHED_SETS
from tinyjax.data.loading import CLASS_FOLDERS, DETECTION_FORMATS
from tinyjax.errors import UserError, run_command
from tinyjax.run.logs import log, start_log

FORMATS = [name for name in (*DETECTION_FORMATS, *CLASSIFICATION_SETS) if name != "synthetic"]
FLAGS = {
    "source": {
        "metavar": "SOURCE",
        "type": parse_local_path,
        "help": "a folder, a .zip or a label file",
    },
    "--check": {"action": "store_true", "help": "report on the data"},
    "--split": {"metavar": "FRACTIONS", "help": "divide into train,val[,test], such as 0.8,0.2"},
    "--anchors": {"type": int, "metavar": "K", "help": "fit K anchors to the objects"},
    "--levels": {
        "type": int,
        "default": 2,
        "metavar": "N",
        "help": "--anchors: number of the detector's strides, from --stride on (default 2)",
    },
    "--centers": {
        "type": int,
        "default": 2,
        "metavar": "N",
        "help": "--anchors: at most N x N centers per cell, for small objects (default 2)",
    },
    "--seed": {"type": int, "default": 0, "help": "--split, --anchors: random seed (default 0)"},
    "--to": {
        "type": parse_local_path,
        "metavar": "DIR",
        "help": "write ArrayRecord files to this folder",
    },
    "--skip-errors": {
        "action": "store_true",
        "help": "--to: leave out invalid images and boxes instead of stopping at the first",
    },
    "--report": {
        "type": parse_local_path,
        "metavar": "DIR",
        "help": "folder that --check writes to (default: runs/check/<name of source>)",
    },
    "--format": {
        "choices": [*FORMATS, CLASS_FOLDERS],
        "default": "auto",
        "help": "the layout, if it is not recognized",
    },
    "--only": {"action": "append", "metavar": "NAME", "help": "only this split; repeatable"},
    "--classes": {"default": "", "metavar": "A+B", "help": "scored categories (default: all)"},
    "--ignore-classes": {
        "default": "",
        "metavar": "A+B",
        "help": "categories that count neither as objects nor as background",
    },
    "--size": {
        "type": int,
        "nargs": 2,
        "metavar": ("H", "W"),
        "help": "size of the network's input, if the images differ in size",
    },
    "--channels": {
        "type": int,
        "default": 1,
        "choices": (1, 3),
        "help": "gray (default) or color",
    },
    "--range16": {
        "nargs": 3,
        "metavar": ("RULE", "LOW", "HIGH"),
        "help": "mapping of 16 bits to 8: percentiles 1 99 (default), or range and two counts",
    },
    "--stride": {"type": int, "default": 4, "help": "the detector's smallest stride (default 4)"},
    "--first-pixel": {
        "type": int,
        "choices": (0, 1),
        "help": "number of the first pixel in VOC files (default: inferred from the files)",
    },
}


def main(argv: list[str] | None = None) -> int:
    args = configs.parse_options("prepare", __doc__, argv, FLAGS, required=())
    given = bool(args.check), bool(args.to), args.split is not None, args.anchors is not None
    if sum(given) != 1:
        raise UserError(
            "give --check, to check the data, --split FRACTIONS, to divide it, --to DIR, to "
            "convert it, or --anchors K, to fit anchors"
        )
    if args.skip_errors and not args.to:
        raise UserError("--skip-errors: requires --to; --check always continues past errors")
    if args.format == CLASS_FOLDERS and args.split is None:
        raise UserError(f"--format {CLASS_FOLDERS}: only --split reads folders of classes")
    if args.stride < 1 or min(args.size or (1,)) < 1:
        raise UserError("--stride, --size: give numbers of pixels, 1 or more")
    if min(args.levels, args.centers, 1 if args.anchors is None else args.anchors) < 1:
        raise UserError("--anchors, --levels, --centers: give numbers, 1 or more")
    start_log()
    if args.split is not None:
        return split(args)
    if args.anchors is not None:
        return fit_anchors(args)
    return check(args) if args.check else convert(args)


def check(args) -> int:
    """Print and write a report of all splits, or only describe a classification set.

    Return 2 if a loader reports an error or a classification set lacks files, else 0.
    """
    from tinyjax.data import statistics
    from tinyjax.data.records import DetectionSplit
    from tinyjax.reporting import pictures

    source = args.source.resolve()
    folder = args.report or Path("runs/check") / (source.name if source.is_dir() else source.stem)
    errors: list[tuple[str, str]] = []
    splits: dict[str, DetectionSplit] = {}
    set_name, description, incomplete = _describe_published(args)
    if description:
        log.info("\n".join([*description, ""]))
    if set_name in CLASSIFICATION_SETS:  # classification sets have no boxes to check
        return 2 if incomplete else 0
    names = _split_names(args)
    size, size_lines = (args.size, []) if args.size else _common_size(args, names, _collect(errors))
    for name in names:
        classes = next(iter(splits.values())).classes if splits else ()  # as in training
        with _explained_by(errors):
            splits[name] = _load(args, name, size, _collect(errors), classes)
    summaries = {name: statistics.summarize(split) for name, split in splits.items()}
    train = next(iter(splits))
    labels = ", ".join(f"{k} {name}" for k, name in enumerate(splits[train].classes))
    report = [f"{args.source}: labels {labels}", *size_lines, ""]
    for name, summary in summaries.items():
        height, width = splits[name].inputs["image"].shape[1:3]
        report += [
            *statistics.summary_lines(name, summary),
            f"  {width} x {height} px",
            *statistics.size_table(summary),
            "",
        ]
    if len(splits) > 1:
        report += statistics.near_duplicate_lines(splits, train)
    report += [f"warning: {text}" for text in statistics.find_warnings(summaries, args.stride)]
    report += statistics.problem_lines(errors)
    log.info("\n".join(report))

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.txt").write_text("\n".join([*description, *report, ""]), encoding="utf-8")
    for name, split in splits.items():
        pictures.draw_samples(split, folder / f"{_file_name(name)}.png")
    log.info(f"wrote report.txt and a sheet of samples of each split to {folder}")
    return 2 if errors else 0


def convert(args) -> int:
    """Write all splits as ArrayRecord files.

    The first invalid image or box raises UserError; with --skip-errors they are left out and
    listed.
    """
    from tinyjax.data import detection, statistics
    from tinyjax.data.layouts import arrayrecord, recognition
    from tinyjax.data.layouts.listing import raise_error
    from tinyjax.data.sources import open_source

    if args.to.exists() and any(args.to.iterdir()):
        raise UserError(f"--to {args.to}: is not empty; give a new folder")
    errors: list[tuple[str, str]] = []
    on_error = _collect(errors) if args.skip_errors else raise_error
    with open_source(args.source) as root:
        listings = {}
        for name in _split_names(args):
            with _explained_by(errors):
                entire = recognition.list_split(root, name, args.format, args.first_pixel, on_error)
                listings[name] = detection.drop_invalid(entire, name, on_error)
        if len({listing.categories for listing in listings.values()}) > 1:
            categories = "; ".join(f"{name} {each.categories}" for name, each in listings.items())
            raise UserError(f"{args.source}: the splits have different categories: {categories}")
        with redirect_stdout(StringIO()):
            renamed = {_file_name(name): listing for name, listing in listings.items()}
            written = arrayrecord.write(renamed, args.to)
    size = sum(file.stat().st_size for file in written.iterdir())
    counts = ", ".join(f"{_file_name(name)} {len(each.entries)}" for name, each in listings.items())
    notices = dict.fromkeys(notice for each in listings.values() for notice in each.notices)
    lines = ["left out", *statistics.problem_lines(errors)] if errors else []
    lines += notices
    lines.append(f"{counts} images, {size / 1e6:.1f} MB in {written}")
    lines.append(f"train on it with data.format = 'arrayrecord', data.common.source = '{args.to}'")
    log.info("\n".join(lines))
    return 0


def split(args) -> int:
    """Divide a set into splits, print their counts and the command that trains on them."""
    from tinyjax.data import split_files
    from tinyjax.data.sources import open_source
    from tinyjax.data.splitting import parse_fractions

    fractions = parse_fractions(args.split)
    with open_source(args.source) as root:
        if not isinstance(root, Path):
            raise UserError(f"{args.source}: nothing is written into a zip; unpack it first")
        if args.format == CLASS_FOLDERS:
            new = split_files.split_class_folders(root, fractions, args.seed)
        else:
            new = split_files.split_detection_set(
                root, args.format, fractions, args.seed, args.first_pixel
            )
    log.info("\n".join(split_files.describe(new, args.format)))
    return 0


def fit_anchors(args) -> int:
    """Fit anchors to the first split, and print their reach in all splits and how to use them."""
    from tinyjax.data.layouts.listing import raise_error
    from tinyjax.data.records import DetectionSplit
    from tinyjax.detectors import anchor_report

    names = _split_names(args)
    if not args.size:
        _common_size(args, names, raise_error)
    # Streamed images are not decoded.
    stream = args.size is not None and args.source.suffix.lower() != ".zip"
    splits: dict[str, DetectionSplit] = {}
    for name in names:
        classes = next(iter(splits.values())).classes if splits else ()  # as in training
        splits[name] = _load(args, name, args.size, raise_error, classes, stream)
    strides = [args.stride * 2**level for level in range(args.levels)]
    report = anchor_report.fit(splits, args.anchors, strides, args.centers, args.seed)
    log.info("\n".join(report))
    return 0


def _split_names(args) -> list[str]:
    """The splits to read, those for training first."""
    from tinyjax.data.layouts.recognition import find_layout
    from tinyjax.data.sources import open_source

    with open_source(args.source) as root:
        names = args.only or find_layout(root, args.format).list_splits(root)
    if not names:
        raise UserError(f"{args.source}: no splits in the layout {args.format}")
    training = re.compile(r"(\w+/)?train")  # a camera's name may precede it
    return sorted(names, key=lambda name: not training.match(name))


def _file_name(split: str) -> str:
    """A split's name as part of a file name: infrared/train -> infrared_train."""
    return split.replace("/", "_")


def _describe_published(args) -> tuple[str, list[str], bool]:
    """The name of the published set in the source ("" for any other source), lines that describe
    it, and whether files are missing.
    """
    from tinyjax.data.layouts import published
    from tinyjax.data.sources import open_source

    with open_source(args.source) as root:
        name = published.recognize(root) if args.format == "auto" else args.format
        if name not in PUBLISHED_SETS:
            return "", [], False
        counts, problems = published.inspect_files(root, name)
        return name, published.describe(name, counts, problems), bool(problems)


def _common_size(args, names: list[str], on_error) -> tuple[tuple[int, int] | None, list[str]]:
    """A size to check the images at, and lines for the report; None and [] if no split has images
    of several sizes.
    """
    import numpy as np

    from tinyjax.data import detection, statistics
    from tinyjax.data.layouts.recognition import list_split
    from tinyjax.data.sources import open_source

    def shapes_of(split):
        # Errors are reported when the split is loaded.
        listing = list_split(root, split, args.format, args.first_pixel, lambda *_: None)
        return detection.image_shapes(listing)

    with open_source(args.source) as root:
        split_shapes = [shapes_of(name) for name in names]
    if all(len(np.unique(shapes, axis=0)) < 2 for shapes in split_shapes):
        return None, []
    shapes = np.concatenate(split_shapes)
    height, width = statistics.suggest_size(shapes)
    on_error(
        "mixed sizes",
        f"images of {len(np.unique(shapes, axis=0))} sizes; give a size, such as --size {height} "
        f"{width} (in training configs/own.py:..,height={height},width={width})",
    )
    table = statistics.percentile_table(
        "size of images, px", {"width": shapes[:, 1], "height": shapes[:, 0]}
    )
    note = f"checked at {width} x {height}, letterboxed: sides of objects are in these pixels"
    return (height, width), [*table, note]


def _collect(errors: list[tuple[str, str]]):
    """An `on_error` that appends to a list."""
    return lambda problem, message: errors.append((problem, message))


@contextmanager
def _explained_by(errors: list[tuple[str, str]]) -> Iterator[None]:
    """Log the problems so far if UserError is raised: they explain that no image is left."""
    from tinyjax.data import statistics

    try:
        yield
    except UserError:
        if errors:
            log.info("\n".join(statistics.problem_lines(errors)))
        raise


def _range16(args) -> dict[str, Any]:
    """The loader's option `range16` if the flag is given, else no options."""
    if not args.range16:
        return {}
    name, low, high = args.range16
    try:
        return {"range16": (name, float(low), float(high))}
    except ValueError:
        raise UserError(
            f"--range16 {name} {low} {high}: give a rule and two numbers: range 0 4095"
        ) from None


def _load(args, split: str, size, on_error, classes: tuple[str, ...] = (), stream: bool = False):
    from tinyjax.data.detection import load
    from tinyjax.data.options import DetectionOptions

    options = DetectionOptions(
        source=args.source,
        split=split,
        classes=classes or tuple(filter(None, args.classes.split("+"))),
        ignore_classes=tuple(filter(None, args.ignore_classes.split("+"))),
        layout=args.format,
        size=tuple(size) if size else None,
        channels=args.channels,
        first_pixel=args.first_pixel,
        on_error=on_error,
        stream=stream,
        **_range16(args),
    )
    return load(options)


if __name__ == "__main__":
    sys.exit(run_command(main))
