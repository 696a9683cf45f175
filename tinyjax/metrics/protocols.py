"""Scores of detections by the rules that `score.protocol` names, in the same columns.

coco: `metrics.detection`. voc2007, voc: `metrics.voc` with 11 points, or with the area under the
curve. lvis: `metrics.lvis`. Columns that a protocol does not define are missing.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinyjax.metrics import detection, lvis, voc

PROTOCOLS = ("coco", "voc2007", "voc", "lvis")


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


def matching_data(
    predictions: Mapping[str, np.ndarray], truth: Mapping[str, Any], protocol: str
) -> tuple[Mapping[str, np.ndarray], Mapping[str, Any]]:
    """Return predictions and truth whose matches by COCO's rules are those of the protocol.

    For Pascal VOC, they are unchanged: resampled scores and calibration errors use COCO's matches.
    """
    return lvis.as_coco(predictions, truth) if protocol == "lvis" else (predictions, truth)
