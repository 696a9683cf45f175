"""Scores of detections by the rules that `score.protocol` names, in the same columns.

coco: `metrics.detection`. voc2007, voc: `metrics.voc` with 11 points, or with the area under the
curve. lvis: `metrics.lvis`. Columns that a protocol does not define are missing.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinyjax.metrics import detection, detection_errors, lvis, voc

PROTOCOLS = ("coco", "voc2007", "voc", "lvis")
# Column -> name of each protocol's main scores, AP50 first.
METRICS: dict[str, dict[str, str]] = {
    "coco": {"AP50": "AP50 (IoU 0.50)", "AP": "AP (IoU 0.50:0.95)"},
    "voc2007": {
        "AP50": "VOC AP, 11 points (IoU 0.50)",
        "AP": "VOC AP, 11 points (IoU 0.50:0.95)",
    },
    "voc": {"AP50": "VOC AP, area (IoU 0.50)", "AP": "VOC AP, area (IoU 0.50:0.95)"},
    "lvis": {
        "AP50": "LVIS AP50 (IoU 0.50)",
        "AP": "LVIS AP (IoU 0.50:0.95)",
        "APr": "LVIS APr, rare classes",
        "APc": "LVIS APc, common classes",
        "APf": "LVIS APf, frequent classes",
        "AP fixed": "LVIS AP fixed",
    },
}
# The recalls whose mean precision is the average precision; None: the area under the curve.
RECALLS: dict[str, np.ndarray | None] = {
    "coco": detection_errors.RECALLS,
    "voc2007": voc.ELEVEN_RECALLS,
    "voc": None,
    "lvis": detection_errors.RECALLS,
}


def score(
    predictions: Mapping[str, np.ndarray],
    truth: Mapping[str, Any],
    bins: Mapping[str, tuple[float, float]],
    protocol: str,
) -> dict[str, float]:
    """Return the scores of a protocol; for the other arguments and errors see `detection.score`."""
    if protocol == "lvis":
        return lvis.score(predictions, truth, bins)
    if protocol != "coco":
        return voc.score(predictions, truth, eleven_point=protocol == "voc2007")
    return detection.score(predictions, truth, bins)


def match(
    predictions: Mapping[str, np.ndarray], truth: Mapping[str, Any], protocol: str
) -> detection_errors.Matches:
    """Match detections with objects of the same class at IoU 0.50, by the rules of a protocol."""
    if protocol == "lvis":
        data = lvis.as_coco(predictions, truth)
        return detection_errors.match(*data, max_detections=lvis.MAX_DETECTIONS)
    return (detection_errors if protocol == "coco" else voc).match(predictions, truth)


def confusion_matrix(
    predictions: Mapping[str, np.ndarray],
    truth: Mapping[str, Any],
    threshold: float,
    protocol: str,
) -> np.ndarray:
    """Return `detection_errors.confusion_matrix`, which matches by COCO's rules in all protocols:
    the others do not define matches of different classes.

    For LVIS, detections do not count in images that are not labeled for their class.
    """
    if protocol == "lvis":
        predictions = lvis.labeled_detections(predictions, truth)
    return detection_errors.confusion_matrix(predictions, truth, threshold)
