"""Images of a report: where a small network fails and a larger one does not; of one its worst."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from tinyjax import config as configs
from tinyjax.data.images import to_network
from tinyjax.data.records import Split
from tinyjax.errors import UserError
from tinyjax.reporting.pictures import captioned, draw, legend, sheet
from tinyjax.reporting.run_folders import WEIGHTS
from tinyjax.reporting.summary import short
from tinyjax.reporting.tables import Member, Tables

COUNT = 4  # images of a suite
SIDE = 640  # of an image that is enlarged, pixels


class Gallery(NamedTuple):
    suite: str
    picture: Image.Image
    note: str


def galleries(tables: Tables) -> tuple[list[Gallery], str]:
    """Galleries of the suites, and a line on why there is none: "" if there is nothing to say."""
    from tinyjax import tasks

    if tables.task != "detect" or not (shown := compared(tables)):
        return [], ""
    first, found = shown[0], []
    config = configs.from_run(tables.configs[first.run])
    about = tables.folder / first.run / "weights" / f"{first.id}.json"
    try:
        classes = tuple(json.loads(about.read_text())["classes"])
        for suite in tables.suites:
            seen = [detections(tables, member, suite) for member in shown]
            if any(one is None for one in seen):
                continue
            split = tasks.module(tables.task).load(config.data, config.data.suites[suite], classes)
            found += gallery(suite, split, shown, seen)
    except (UserError, OSError) as error:
        return [], f"No images are shown: {error}"
    return found, ""


def compared(tables: Tables) -> list[Member]:
    """The smallest and the largest member of those that have all but the size in common, where they
    are furthest apart; a member that is alone.
    """
    there = [m for m in tables.members if m.diverged_at < 0 and _file(tables, m).is_dir()]
    if len(tables.members) == 1:
        return there
    alike: dict[tuple, list[Member]] = {}
    for member in sorted(there, key=lambda m: m.parameters):
        own = (member.run, member.start, member.seed, *member.varied.items())
        alike.setdefault(own, []).append(member)
    pairs = [[own[0], own[-1]] for own in alike.values()]
    best = max(pairs, key=lambda pair: pair[1].parameters / pair[0].parameters, default=[])
    return best if len({member.parameters for member in best}) == 2 else []


def detections(tables: Tables, member: Member, suite: str) -> dict[str, np.ndarray] | None:
    """What a member found in a suite: boxes [D, 4] xyxy in pixels of the file, scores, labels and
    image [D]; wrong and hits [N]. None if it was not kept.
    """
    file = _file(tables, member) / f"{suite}.npz"
    if not file.exists():
        return None
    with np.load(file) as arrays:
        return dict(arrays)


def gallery(
    suite: str, split: Split, shown: list[Member], seen: list[Any], count: int = COUNT
) -> list[Gallery]:
    """At most `count` images, a row each: truth, and what each member found; [] if none is bad.

    Of two members those where 1 - F1 of the first is most above that of the second, of one those
    where it is highest.

    Raises UserError if the suite has other images than those that were evaluated.
    """
    if len(seen[0]["wrong"]) != len(split.names):
        raise UserError(
            f"suite {suite!r} has {len(split.names)} images now, {len(seen[0]['wrong'])} when it "
            "was evaluated; evaluate again"
        )
    bad = [own["wrong"] / np.maximum(2 * own["hits"] + own["wrong"], 1) for own in seen]
    excess = bad[0] - bad[1] if len(bad) == 2 else bad[0]
    chosen = [i for i in np.argsort(-excess, kind="stable")[:count] if excess[i] > 0]
    if not chosen:
        return []
    rows = []
    for i in chosen:
        truth = {k: getattr(split, k)[i] for k in ("boxes", "labels", "valid", "ignore")}
        caption = f"truth: {split.names[i]}"
        row = [captioned(draw(split.images[i], truth, side=SIDE), caption)]
        for member, own in zip(shown, seen, strict=True):
            found = _found(own, split, i)
            picture = draw(split.images[i], found=found, threshold=0.0, side=SIDE)
            caption = f"{short(member.backbone)}: {own['wrong'][i]} wrong"
            row.append(captioned(picture, f"{caption}, {own['hits'][i]} right"))
        rows.append(row)
    names = " and ".join(f"{short(m.backbone)} ({m.parameters:,} parameters)" for m in shown)
    note = f"{names}, start {shown[0].start}, seed {shown[0].seed}. " + (
        "Images where F1 of the second is furthest above that of the first."
        if len(shown) == 2
        else "The images of lowest F1."
    )
    return [
        Gallery(
            suite,
            legend(sheet(rows), split.classes, ignore_classes=bool(split.ignore[chosen].any())),
            note,
        )
    ]


def _found(own: Mapping[str, np.ndarray], split: Split, i: int) -> dict[str, np.ndarray]:
    """What was found in image i, boxes in pixels of the network's input."""
    here = own["image"] == i
    found = {k: own[k][here] for k in ("boxes", "scores", "labels")}
    return {**found, "boxes": to_network(found["boxes"], split.scale[i], split.offset[i])}


def _file(tables: Tables, member: Member) -> Path:
    return tables.folder / member.run / "evaluations" / WEIGHTS / member.id
