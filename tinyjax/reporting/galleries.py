"""Galleries of a report: images on which the smallest network fails and the largest does not.

Without a pair of networks that differ only in size, a gallery has the worst images of the best
network.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from tinyjax import config as configs
from tinyjax.data.images import to_network
from tinyjax.data.records import DetectionSplit
from tinyjax.errors import UserError
from tinyjax.reporting.grouping import short_backbone
from tinyjax.reporting.pictures import add_caption, add_legend, draw_boxes, tile, truth_of
from tinyjax.reporting.run_folders import WEIGHTS
from tinyjax.reporting.tables import Condition, Member, Tables

MAX_IMAGES = 4  # per suite
MAX_SIDE = 640  # of enlarged images, pixels


class Gallery(NamedTuple):
    suite: str
    picture: Image.Image
    note: str
    alt: str


def make_galleries(tables: Tables) -> tuple[list[Gallery], str]:
    """Return galleries of the suites, and "" or the reason why they cannot be made."""
    draw_gallery = tables.task.draw_gallery
    if not draw_gallery or not (members := select_members(tables)):
        return [], ""
    member, galleries = members[0], []
    config = configs.from_run(tables.configs[member.run])
    metadata = tables.folder / member.run / "weights" / f"{member.id}.json"
    try:
        classes = tuple(json.loads(metadata.read_bytes())["classes"])
        for suite in tables.suites:
            examples = [load_examples(tables, m, suite) for m in members]
            available = [arrays for arrays in examples if arrays is not None]
            if len(available) < len(members):
                continue
            split = tables.task.load(config.data, config.data.suites[suite], classes)
            if gallery := draw_gallery(suite, split, members, available, config):
                galleries.append(gallery)
    except (UserError, OSError) as error:
        return [], f"No images are shown: {error}"
    return galleries, ""


def select_members(tables: Tables) -> list[Member]:
    """Return the smallest and the largest of the members that differ only in size.

    If several pairs qualify, the one with the largest ratio of sizes is taken; if none does, the
    member with the highest in-domain score.
    """
    members = [
        m for m in tables.members if m.diverged_at < 0 and _examples_folder(tables, m).is_dir()
    ]
    groups: dict[tuple, list[Member]] = {}
    for member in sorted(members, key=lambda m: m.parameters):
        key = (member.run, member.start, member.seed, *member.varied.items())
        groups.setdefault(key, []).append(member)
    pairs = [[group[0], group[-1]] for group in groups.values()]
    best = max(pairs, key=lambda pair: pair[1].parameters / pair[0].parameters, default=[])
    if len({member.parameters for member in best}) == 2:
        return best
    scores = {m.key: tables.score(m, Condition(m.in_domain)) for m in members}
    return sorted(members, key=lambda m: -np.nan_to_num(scores[m.key], nan=-1))[:1]


def load_examples(tables: Tables, member: Member, suite: str) -> dict[str, np.ndarray] | None:
    """A member's `examples` on a suite, see `metrics.slices.SuiteResult`; None if missing."""
    file = _examples_folder(tables, member) / f"{suite}.npz"
    if not file.exists():
        return None
    with np.load(file) as arrays:
        return dict(arrays)


def make_gallery(
    suite: str,
    split: DetectionSplit,
    members: Sequence[Member],
    detections: Sequence[Mapping[str, np.ndarray]],
    max_images: int = MAX_IMAGES,
) -> Gallery | None:
    """A row for each of the worst images: truth and each member's detections; None without errors.

    For two members, the worst images are those where the F1 of the second exceeds that of the first
    by the most; for one member, those with the lowest F1.

    detections: of each member, boxes [D, 4] xyxy in pixels of the file; scores, labels and image
    [D]; wrong and hits [N].

    Raises UserError if the number of images differs from that of the evaluation.
    """
    num_evaluated = len(detections[0]["wrong"])
    if num_evaluated != len(split.names):
        raise UserError(
            f"suite {suite!r} has {len(split.names)} images, but {num_evaluated} were evaluated; "
            "evaluate it again"
        )
    one_minus_f1 = [d["wrong"] / np.maximum(2 * d["hits"] + d["wrong"], 1) for d in detections]
    failure = one_minus_f1[0] - one_minus_f1[1] if len(members) == 2 else one_minus_f1[0]
    worst = [i for i in np.argsort(-failure, kind="stable")[:max_images] if failure[i] > 0]
    if not worst:
        return None
    rows = [_draw_row(split, i, members, detections) for i in worst]
    note = f"{describe_members(members)} " + (
        "Images where the F1 of the second exceeds that of the first by the most."
        if len(members) == 2
        else "Images with the lowest F1."
    )
    picture = add_legend(tile(rows), split.classes, ignored=bool(split.ignore[worst].any()))
    return Gallery(suite, picture, note, f"Images of {suite}: truth and detections")


def describe_members(members: Sequence[Member]) -> str:
    """Sizes, start and seed of the members of a gallery, as a sentence."""
    names = [f"{short_backbone(m.backbone)} ({m.parameters:,} parameters)" for m in members]
    fields = [f"{name} {value or 'default'}" for name, value in members[0].varied.items()]
    details = [f"start {members[0].start}", f"seed {members[0].seed}", *fields]
    return f"{' and '.join(names)}, {', '.join(details)}."


def _draw_row(
    split: DetectionSplit,
    i: int,
    members: Sequence[Member],
    detections: Sequence[Mapping[str, np.ndarray]],
) -> list[Image.Image]:
    image = split.inputs["image"][i]
    truth = draw_boxes(image, truth_of(split, i), max_side=MAX_SIDE)
    row = [add_caption(truth, f"truth: {split.names[i]}")]
    for member, arrays in zip(members, detections, strict=True):
        in_image = arrays["image"] == i
        predictions = {k: arrays[k][in_image] for k in ("boxes", "scores", "labels")}
        boxes = to_network(predictions["boxes"], split.scale[i], split.offset[i])
        picture = draw_boxes(
            image, predictions={**predictions, "boxes": boxes}, threshold=0.0, max_side=MAX_SIDE
        )
        counts = f"{arrays['wrong'][i]} wrong, {arrays['hits'][i]} right"
        row.append(add_caption(picture, f"{short_backbone(member.backbone)}: {counts}"))
    return row


def _examples_folder(tables: Tables, member: Member) -> Path:
    return tables.folder / member.run / "evaluations" / WEIGHTS / member.id
