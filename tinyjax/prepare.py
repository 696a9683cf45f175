"""Prepare: look at a data set before training on it, or convert it once to ArrayRecord.

    python -m tinyjax.prepare SOURCE --check
    python -m tinyjax.prepare SOURCE --to DIR [--skip-errors]

SOURCE is a folder or a .zip in the layout of COCO, Pascal VOC or YOLO, a published set as its
archive unpacks, or one that was prepared before; docs/data.md shows them. --check counts images and
boxes of every split, names what is broken or odd, and draws a sheet of samples; the exit code is 2
if training would refuse something. Of a published set it says the terms, and what is missing.
"""

import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from tinyjax import config as configs
from tinyjax.data.layouts.catalog import SETS, WHOLE
from tinyjax.data.loading import FORMATS
from tinyjax.errors import UserError, exit_code
from tinyjax.run.logs import log, start_log

FLAGS = {
    "source": {"metavar": "SOURCE", "help": "a folder or a .zip"},
    "--check": {"action": "store_true", "help": "report what is there"},
    "--to": {"type": Path, "metavar": "DIR", "help": "write ArrayRecord files here"},
    "--skip-errors": {
        "action": "store_true",
        "help": "--to: leave out broken images and boxes, instead of stopping at the first",
    },
    "--report": {
        "type": Path,
        "metavar": "DIR",
        "help": "where --check writes (default: runs/check/<name of source>)",
    },
    "--format": {
        "choices": [name for name in (*FORMATS, *WHOLE) if name != "synthetic"],
        "default": "auto",
        "help": "the layout, if what is there does not tell",
    },
    "--split": {"action": "append", "metavar": "NAME", "help": "only this one; may be repeated"},
    "--classes": {"default": "", "metavar": "A+B", "help": "scored categories (default: all)"},
    "--ignore-classes": {"default": "", "metavar": "A+B", "help": "neither objects nor background"},
    "--size": {
        "type": int,
        "nargs": 2,
        "metavar": ("H", "W"),
        "help": "of the network's input, if the images differ in size",
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
        "help": "how 16 bit come to 8: percentiles 1 99 (default), or range and two counts",
    },
    "--stride": {"type": int, "default": 4, "help": "the detector's finest (default 4)"},
    "--first-pixel": {
        "type": int,
        "default": 1,
        "choices": (0, 1),
        "help": "number of the first pixel in VOC files (default 1)",
    },
}


def main(argv: list[str] | None = None) -> int:
    options = configs.parse_options("prepare", __doc__, argv, FLAGS, needs=())
    if options.check == bool(options.to):
        raise UserError("give --check, to look at the data, or --to DIR, to convert it")
    if options.check and options.skip_errors:
        raise UserError("--skip-errors: goes with --to; --check goes on past all that is broken")
    if options.stride < 1 or min(options.size or (1,)) < 1:
        raise UserError("--stride, --size: give numbers of pixels, 1 or more")
    start_log()
    return check(options) if options.check else convert(options)


def check(options) -> int:
    """Print and write a report of all splits; 2 if a loader would refuse any of them."""
    from tinyjax.data import statistics
    from tinyjax.data.records import Split

    folder = options.report or Path("runs") / "check" / Path(options.source).stem
    refused: list[tuple[str, str]] = []
    sets: dict[str, Split] = {}
    published, lines, lacking = _published(options)
    if lines:
        log.info("\n".join([*lines, ""]))
    if published in WHOLE:  # of whole images, whose labels cannot be looked at further
        return 2 if lacking else 0
    names = _splits(options)
    size, mixed = (options.size, []) if options.size else _mixed(options, names, _into(refused))
    for name in names:
        classes = next(iter(sets.values())).classes if sets else ()  # as training would ask
        sets[name] = _load(options, name, size, _into(refused), classes)
    looks = {name: statistics.look(split) for name, split in sets.items()}
    train = next(iter(sets))
    mapping = ", ".join(f"{k} {name}" for k, name in enumerate(sets[train].classes))
    report = [f"{options.source}: labels {mapping}", *mixed, ""]
    for name, seen in looks.items():
        height, width = sets[name].images.shape[1:3]
        report += [
            *statistics.lines(name, seen),
            f"  {width} x {height} px",
            *statistics.sizes(seen),
            "",
        ]
    if len(sets) > 1:
        report += statistics.leaks(sets, train)
    report += [f"warning: {text}" for text in statistics.warnings(looks, options.stride)]
    report += statistics.problems(refused)
    log.info("\n".join(report))

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.txt").write_text("\n".join([*lines, *report, ""]))
    for name, split in sets.items():
        _sheet(split, folder / f"{_plain(name)}.png")
    log.info(f"report.txt and a sheet of samples of each split are in {folder}")
    return 2 if refused else 0


def convert(options) -> int:
    """Write all splits as ArrayRecord files; the first image or box that is broken stops it, or is
    left out and listed with --skip-errors.
    """
    from tinyjax.data import detection, statistics
    from tinyjax.data.images import opened
    from tinyjax.data.layouts import arrayrecord
    from tinyjax.data.layouts.listing import refuse as stop

    if options.to.exists() and any(options.to.iterdir()):
        raise UserError(f"--to {options.to}: is not empty; name a new folder")
    found: list[tuple[str, str]] = []
    refuse = _into(found) if options.skip_errors else stop
    with opened(options.source) as root:
        listings = {}
        for name in _splits(options):  # what cannot be trained on is not converted
            listed = detection.listing(root, name, options.format, options.first_pixel, refuse)
            listings[name] = detection.sound(listed, name, refuse)
        if len({listed.categories for listed in listings.values()}) > 1:
            raise UserError(
                f"{options.source}: the splits have different categories: "
                + "; ".join(f"{name} {one.categories}" for name, one in listings.items())
            )
        with redirect_stdout(StringIO()):
            ready = {_plain(name): listed for name, listed in listings.items()}
            written = arrayrecord.write(ready, options.to)
    size = sum(file.stat().st_size for file in written.iterdir())
    images = ", ".join(f"{_plain(name)} {len(one.entries)}" for name, one in listings.items())
    log.info(
        "".join(
            f"{line}\n" for line in (["left out", *statistics.problems(found)] if found else [])
        )
        + f"{images} images, {size / 1e6:.1f} MB in {written}\n"
        f"train on it with data.format = 'arrayrecord', data.common.source = '{options.to}'"
    )
    return 0


def _splits(options) -> list[str]:
    from tinyjax.data.detection import layout_of
    from tinyjax.data.images import opened

    with opened(options.source) as root:
        names = options.split or layout_of(root, options.format).splits(root)
    if not names:
        raise UserError(f"{options.source}: no splits here in the layout {options.format}")
    first = re.compile(r"(\w+/)?train")  # learned from, where a camera's name may stand before
    return sorted(names, key=lambda name: not first.match(name))


def _plain(name: str) -> str:
    """A split's name as that of a file: infrared/train -> infrared_train."""
    return name.replace("/", "_")


def _published(options) -> tuple[str, list[str], bool]:
    """The published set that the source is, or "", what there is to say of it, and whether any of
    it is missing.
    """
    from tinyjax.data.images import opened
    from tinyjax.data.layouts import published

    with opened(options.source) as root:
        name = published.recognized(root) if options.format == "auto" else options.format
        if name not in SETS:
            return "", [], False
        counts, wrong = published.looked(root, name)
        return name, published.report(name, counts, wrong), bool(wrong)


def _mixed(options, names: list[str], refuse) -> tuple[tuple[int, int] | None, list[str]]:
    """If a split has images of several sizes, one to look at them in, and what to say of it."""
    import numpy as np

    from tinyjax.data import detection, statistics
    from tinyjax.data.images import opened

    with opened(options.source) as root:
        how = options.format, options.first_pixel, lambda *_: None  # the loading will tell
        shapes = [detection.shapes(detection.listing(root, name, *how)) for name in names]
    if all(len(np.unique(one, axis=0)) < 2 for one in shapes):
        return None, []
    every = np.concatenate(shapes)
    height, width = statistics.common_size(every)
    refuse(
        "mixed sizes",
        f"images of {len(np.unique(every, axis=0))} sizes; give --size {height} {width}, say "
        f"(in training configs/own.py:..,height={height},width={width})",
    )
    table = statistics.percentiles(
        "size of images, px", {"width": every[:, 1], "height": every[:, 0]}
    )
    seen_in = f"looked at in {width} x {height}, letterboxed: sides of objects are in these pixels"
    return (height, width), [*table, seen_in]


def _into(found: list[tuple[str, str]]):
    return lambda kind, message: found.append((kind, message))


def _range16(options) -> dict[str, Any]:
    """The argument of a loader, if it was given."""
    if not options.range16:
        return {}
    name, low, high = options.range16
    try:
        return {"range16": (name, float(low), float(high))}
    except ValueError:
        said = f"{name} {low} {high}"
        raise UserError(f"--range16 {said}: give a rule and two numbers: range 0 4095") from None


def _load(options, split: str, size, refuse, classes: tuple[str, ...] = ()):
    from tinyjax.data.detection import load

    return load(
        options.source,
        split,
        classes=classes or tuple(filter(None, options.classes.split("+"))),
        ignore_classes=tuple(filter(None, options.ignore_classes.split("+"))),
        layout=options.format,
        size=tuple(size) if size else None,
        channels=options.channels,
        first_pixel=options.first_pixel,
        refuse=refuse,
        **_range16(options),
    )


def _sheet(split, file: Path, count: int = 12) -> None:
    """Images with their boxes, evenly spaced through the split, three in a row."""
    import numpy as np
    from PIL import Image

    from tinyjax.reporting import pictures

    chosen = np.unique(np.linspace(0, len(split.names) - 1, count).round().astype(int))
    drawn = [
        pictures.draw(
            split.images[i],
            truth={k: getattr(split, k)[i] for k in ("boxes", "labels", "valid", "ignore")},
        )
        for i in chosen
    ]
    width, height = (max(side) + 8 for side in zip(*(one.size for one in drawn), strict=True))
    page = Image.new("RGB", (3 * width, -(-len(drawn) // 3) * height), "white")
    for k, one in enumerate(drawn):
        page.paste(one, (k % 3 * width, k // 3 * height))
    pictures.legend(page, split.classes).save(file)


if __name__ == "__main__":
    sys.exit(exit_code(main))
