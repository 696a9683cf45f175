"""Prepare: look at a data set before training on it, or convert it once to ArrayRecord.

    python -m tinyjax.prepare SOURCE --check
    python -m tinyjax.prepare SOURCE --to DIR

SOURCE is a folder or a .zip in the layout of COCO, Pascal VOC or YOLO, or one that was prepared
before; docs/data.md shows them. --check counts images and boxes of every split, names what is
broken or odd, and draws a sheet of samples; the exit code is 2 if training would refuse something.
"""

import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from tinyjax import config as configs
from tinyjax import runfolder
from tinyjax.data import FORMATS
from tinyjax.errors import UserError, exit_code

FLAGS = {
    "source": {"metavar": "SOURCE", "help": "a folder or a .zip"},
    "--check": {"action": "store_true", "help": "report what is there"},
    "--to": {"type": Path, "metavar": "DIR", "help": "write ArrayRecord files here"},
    "--report": {
        "type": Path,
        "metavar": "DIR",
        "help": "where --check writes (default: runs/check/<name of source>)",
    },
    "--format": {
        "choices": [name for name in FORMATS if name != "synthetic"],
        "default": "auto",
        "help": "the layout, if what is there does not tell",
    },
    "--split": {"action": "append", "metavar": "NAME", "help": "only this one; may be repeated"},
    "--classes": {"default": "", "metavar": "A+B", "help": "scored categories (default: all)"},
    "--dontcare": {"default": "", "metavar": "A+B", "help": "neither objects nor background"},
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
        "help": "grey (default) or colour",
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
    options = configs.options("prepare", __doc__, argv, FLAGS, needs=())
    if options.check == bool(options.to):
        raise UserError("give --check, to look at the data, or --to DIR, to convert it")
    if options.stride < 1 or min(options.size or (1,)) < 1:
        raise UserError("--stride, --size: give numbers of pixels, 1 or more")
    runfolder.start_log()
    return check(options) if options.check else convert(options)


def check(options) -> int:
    """Print and write a report of all splits; 2 if a loader would refuse any of them."""
    from tinyjax.data import look
    from tinyjax.data.records import Split

    folder = options.report or Path("runs") / "check" / Path(options.source).stem
    refused: list[tuple[str, str]] = []
    sets: dict[str, Split] = {}
    for name in _splits(options):
        classes = next(iter(sets.values())).classes if sets else ()  # as training would ask
        sets[name] = _load(
            options, name, lambda kind, message: refused.append((kind, message)), classes
        )
    looks = {name: look.look(split) for name, split in sets.items()}
    train = next(iter(sets))
    mapping = ", ".join(f"{k} {name}" for k, name in enumerate(sets[train].classes))
    report = [f"{options.source}: labels {mapping}", ""]
    for name, seen in looks.items():
        height, width = sets[name].images.shape[1:3]
        report += [*look.lines(name, seen), f"  {width} x {height} px", *look.sizes(seen), ""]
    if len(sets) > 1:
        report += look.leaks(sets, train)
    report += [f"warning: {text}" for text in look.warnings(looks, options.stride)]
    report += look.problems(refused)
    runfolder.log.info("\n".join(report))

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.txt").write_text("\n".join([*report, ""]))
    for name, split in sets.items():
        _sheet(split, folder / f"{name}.png")
    runfolder.log.info(f"report.txt and a sheet of samples of each split are in {folder}")
    return 2 if refused else 0


def convert(options) -> int:
    """Write all splits as ArrayRecord files; the first image or box that is broken stops it."""
    from tinyjax.data import arrayrecord, files, listing
    from tinyjax.data.images import opened

    if options.to.exists() and any(options.to.iterdir()):
        raise UserError(f"--to {options.to}: is not empty; name a new folder")
    with opened(options.source) as root:
        listings = {}
        for name in _splits(options):
            _load(options, name, listing.refuse)  # what cannot be trained on is not converted
            listings[name] = files.listing(root, name, options.format, options.first_pixel)
        if len({listed.categories for listed in listings.values()}) > 1:
            raise UserError(
                f"{options.source}: the splits have different categories: "
                + "; ".join(f"{name} {one.categories}" for name, one in listings.items())
            )
        with redirect_stdout(StringIO()):
            written = arrayrecord.write(listings, options.to)
    size = sum(file.stat().st_size for file in written.iterdir())
    images = ", ".join(f"{name} {len(listed.entries)}" for name, listed in listings.items())
    runfolder.log.info(
        f"{images} images, {size / 1e6:.1f} MB in {written}\n"
        f"train on it with data.format = 'arrayrecord', data.common.source = '{options.to}'"
    )
    return 0


def _splits(options) -> list[str]:
    from tinyjax.data.files import layout_of
    from tinyjax.data.images import opened

    with opened(options.source) as root:
        names = options.split or layout_of(root, options.format).splits(root)
    if not names:
        raise UserError(f"{options.source}: no splits here in the layout {options.format}")
    return sorted(names, key=lambda name: not name.startswith("train"))  # learned from: first


def _load(options, split: str, refuse, classes: tuple[str, ...] = ()):
    from tinyjax.data.files import load

    return load(
        options.source,
        split,
        classes=classes or tuple(filter(None, options.classes.split("+"))),
        dontcare=tuple(filter(None, options.dontcare.split("+"))),
        layout=options.format,
        size=tuple(options.size) if options.size else None,
        channels=options.channels,
        first_pixel=options.first_pixel,
        refuse=refuse,
    )


def _sheet(split, file: Path, count: int = 12) -> None:
    """Images with their boxes, evenly spaced through the split, three in a row."""
    import numpy as np
    from PIL import Image

    from tinyjax import pictures

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
