"""Anchors for a data set as text: fitted ones, and their reach next to that of other anchors."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyjax.config.detectors import RETINANET
from tinyjax.data.records import DetectionSplit
from tinyjax.detectors.anchor_fitting import assign_levels, fit_shapes, mean_iou
from tinyjax.detectors.anchor_reach import class_reach
from tinyjax.detectors.anchors import make_levels
from tinyjax.errors import UserError
from tinyjax.run.text import text_table

THRESHOLDS = (0.5, 0.4, 0.3)
MAX_CLASSES = 30  # in the table
# name -> strides, anchors
REFERENCES: dict[str, tuple[Sequence[int], Sequence[Any]]] = {
    "default": (RETINANET["model.strides"][0], RETINANET["model.anchors"][0]),
    "torchvision": ((8, 16, 32, 64, 128), ("torchvision",)),
}


def fit(
    splits: Mapping[str, DetectionSplit],
    count: int,
    strides: Sequence[int],
    max_centers: int = 2,
    seed: int = 0,
) -> list[str]:
    """Fit anchors to the first split and return a report: their reach in all splits, and the
    options of a command line that set them. See `anchor_fitting`.

    Raises UserError if the first split has no objects, or too few different ones.
    """
    name, split = next(iter(splits.items()))
    boxes = split.boxes[split.valid]
    sizes = boxes[:, 2:] - boxes[:, :2]
    try:
        shapes = fit_shapes(sizes, count, seed)
        anchors = assign_levels(shapes, strides, max_centers)
    except UserError as error:
        classes = ", ".join(split.classes)
        raise UserError(f"--anchors: split {name!r}, classes {classes}: {error}") from error
    per_cell = ", ".join(
        f"{sum(n * n for _, _, n in level)} per cell of stride {stride}"
        for stride, level in zip(strides, anchors, strict=True)
    )
    return [
        f"{count} anchors fitted to {len(boxes)} objects of {name}: {per_cell}; mean IoU of sizes "
        f"{mean_iou(sizes, shapes):.3f}",
        "",
        reach_table(splits, {**REFERENCES, "fitted": (strides, anchors)}),
        "",
        "IoU: share of objects whose best anchor has at least this IoU; positives: anchors per "
        f"object with an IoU of {THRESHOLDS[0]} or more",
        "to train with the fitted anchors, give the config the argument detector=retinanet, and",
        f"  --config.model.strides={','.join(map(str, strides))} "
        f'--config.model.anchors="{anchors}"',
    ]


def reach_table(
    splits: Mapping[str, DetectionSplit],
    settings: Mapping[str, tuple[Sequence[int], Sequence[Any]]],
) -> str:
    """Return a table of the reach of anchors by split, anchors and class, see `class_reach`.

    settings: name -> (strides, anchors), see `anchors.make_levels`.
    """
    rows: list[dict[str, Any]] = []
    for split_name, split in splits.items():
        image_size = split.inputs["image"].shape[1:3]
        for name, (strides, anchors) in settings.items():
            levels = make_levels(image_size, strides, anchors)
            number = sum(len(level.cell) * int(np.prod(level.grid)) for level in levels)
            title: dict[str, Any] = {"split": split_name, "anchors": name, "per image": number}
            for row in class_reach(split, levels, THRESHOLDS)[: MAX_CLASSES + 1]:
                rows.append({**title, **_cells(row)})
                title = {}
    table = text_table(rows, float_format=".2f")
    omitted = max(0, *(len(split.classes) - MAX_CLASSES for split in splits.values()))
    return table + (f"\n.. and {omitted} more classes" if omitted else "")


def _cells(row: Mapping[str, Any]) -> dict[str, Any]:
    reach = {
        f"IoU {threshold}": f"{100 * share:.1f} %" if row["objects"] else None
        for threshold, share in zip(THRESHOLDS, row["reach"], strict=True)
    }
    positives = row["positives"] if row["objects"] else None
    return {"class": row["class"], "objects": row["objects"], **reach, "positives": positives}
