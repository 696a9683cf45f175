"""Average precision of the Pascal VOC challenge (Everingham et al., IJCV 2010).

A detection of the challenge takes the object of its class with the highest IoU. It is correct if
this IoU exceeds the threshold and no detection with a higher score took the object. The devkit adds
1 px to the sides of boxes because its corners are pixels inside the object. Boxes here end at the
edges of pixels: their sides are those of the devkit, and no pixel is added.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tinyjax.metrics.detection import count_images_and_boxes, nonempty_slots, prediction_arrays
from tinyjax.metrics.detection_errors import (
    IOU_THRESHOLD,
    RECALLS,
    Detections,
    Matches,
    objects_of,
)

# The challenge uses 0.5 only. Detectron2 reports AP and AP75 over COCO's thresholds, too.
IOU_THRESHOLDS = np.arange(50, 100, 5) / 100
# As in py-faster-rcnn and Detectron2, three of these are the floats just above 0.3, 0.6 and 0.7.
ELEVEN_RECALLS = np.arange(0, 1.1, 0.1)


class BestObjects(NamedTuple):
    """D detections with the object of their class and image that has the highest IoU."""

    label: np.ndarray  # int [D]
    score: np.ndarray  # float [D]
    iou: np.ndarray  # float64 [D]; 0 without an object
    annotation: np.ndarray  # int [D], index in `truth["annotations"]`; -1 without an object
    difficult: np.ndarray  # bool [D], whether that object is difficult
    slot: np.ndarray  # int [D], index in `nonempty_slots(predictions)`


def score(
    predictions: Mapping[str, np.ndarray], truth: Mapping[str, Any], eleven_point: bool = False
) -> dict[str, float]:
    """Return the average precision by the rules of Pascal VOC.

    Args:
        predictions, truth: see `detection.score`. A crowd annotation is a difficult object: neither
            it nor a detection of it counts.
        eleven_point: see `average_precision`.

    Returns:
        "AP" (mean over IoU 0.50:0.05:0.95), "AP50", which is the challenge's score, "AP75"; "AP/x"
        and "AP50/x" for each class x; "images" and "boxes". Scores of classes without objects are
        NaN; the means ignore them.

    Raises:
        ValueError: as `detection.score` does.
    """
    matches = find_best_objects(predictions, truth)
    labels = np.array([a["category_id"] - 1 for a in truth["annotations"] if not a["iscrowd"]], int)
    names = [c["name"] for c in truth["categories"]]
    num_objects = np.bincount(labels, minlength=len(names))
    values = np.full((len(names), len(IOU_THRESHOLDS)), np.nan)
    for k in np.flatnonzero(num_objects):
        rows = BestObjects(*(array[matches.label == k] for array in matches))
        for t, threshold in enumerate(IOU_THRESHOLDS):
            recall, precision = precision_recall(rows, int(num_objects[k]), threshold)
            values[k, t] = average_precision(recall, precision, eleven_point)
    at50, at75 = np.searchsorted(IOU_THRESHOLDS, [0.5 - 1e-6, 0.75 - 1e-6])
    scores = {"AP": _mean(values), "AP50": _mean(values[:, at50]), "AP75": _mean(values[:, at75])}
    for name, row in zip(names, values, strict=True):
        scores |= {f"AP/{name}": _mean(row), f"AP50/{name}": float(row[at50])}
    return {**scores, **count_images_and_boxes(truth)}


def find_best_objects(
    predictions: Mapping[str, np.ndarray], truth: Mapping[str, Any]
) -> BestObjects:
    """Return the detections in nonempty slots, in descending order of score."""
    image, boxes, scores, labels = prediction_arrays(predictions, truth)
    by_image: list[list[int]] = [[] for _ in truth["images"]]
    for i, annotation in enumerate(truth["annotations"]):
        by_image[annotation["image_id"]].append(i)
    iou, index = np.zeros(len(image)), np.full(len(image), -1)
    starts = np.searchsorted(image, np.arange(len(by_image) + 1))
    for k, indices in enumerate(by_image):
        rows = slice(starts[k], starts[k + 1])
        if not indices or rows.start == rows.stop:
            continue
        annotations = [truth["annotations"][i] for i in indices]
        corners = np.array([a["bbox"] for a in annotations], np.float64)
        corners[:, 2:] += corners[:, :2]
        same_class = labels[rows, None] == [a["category_id"] - 1 for a in annotations]
        values = np.where(same_class, _pairwise_iou(boxes[rows], corners), 0)
        iou[rows] = values.max(1)
        index[rows] = np.where(iou[rows] > 0, np.array(indices)[values.argmax(1)], -1)
    order = np.argsort(-scores, kind="stable")
    difficult = np.array([bool(a["iscrowd"]) for a in truth["annotations"]] + [False])[index]
    slots = np.arange(len(order))
    return BestObjects(*(a[order] for a in (labels, scores, iou, index, difficult, slots)))


def precision_recall(
    detections: BestObjects, num_objects: int, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return recall and precision [D] of one class after each of its detections.

    num_objects: number of objects that are not difficult, at least 1. Before the first detection
    that counts, the precision is 0.
    """
    tp, fp = map(np.cumsum, _true_and_false(detections, threshold))
    return tp / num_objects, tp / np.maximum(tp + fp, 1)


def _true_and_false(detections: BestObjects, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return whether each detection is a true, and whether it is a false positive: bool [D]."""
    matched = detections.iou > threshold
    true_positive = np.zeros(len(matched), bool)
    candidates = np.flatnonzero(matched & ~detections.difficult)
    _, first = np.unique(detections.annotation[candidates], return_index=True)
    true_positive[candidates[first]] = True
    return true_positive, ~true_positive & ~(matched & detections.difficult)


def match(predictions: Mapping[str, np.ndarray], truth: Mapping[str, Any]) -> Matches:
    """Match detections with objects at an IoU above 0.50; for the arguments see `score`.

    The mean of the result's `precision` is not the challenge's average precision.
    """
    best = find_best_objects(predictions, truth)
    true_positive, false_positive = _true_and_false(best, IOU_THRESHOLD)
    match_score = np.full(len(truth["annotations"]), -np.inf)
    match_score[best.annotation[true_positive]] = best.score[true_positive]
    objects = objects_of(truth, match_score)
    num_objects = np.bincount(objects.label, minlength=len(truth["categories"]))
    precision = np.full((len(num_objects), len(RECALLS)), np.nan)
    for k in np.flatnonzero(num_objects):
        rows = BestObjects(*(array[best.label == k] for array in best))
        recall, values = precision_recall(rows, int(num_objects[k]), IOU_THRESHOLD)
        envelope = np.append(np.maximum.accumulate(values[::-1])[::-1], 0.0)
        precision[k] = envelope[np.searchsorted(recall, RECALLS)]
    image, slot = (indices[best.slot] for indices in nonempty_slots(predictions))
    score = best.score.astype(np.float64)
    return Matches(
        tuple(c["name"] for c in truth["categories"]),
        len(truth["images"]),
        Detections(image, slot, best.label, score, true_positive, false_positive),
        objects,
        precision,
    )


def average_precision(
    recall: np.ndarray, precision: np.ndarray, eleven_point: bool = False
) -> float:
    """Return the average precision of a curve; recall [D] ascending, precision [D].

    eleven_point: the mean over recalls 0, 0.1 .. 1 of the highest precision at this recall or
    above, as in the challenges up to 2009; else the area under this envelope.
    """
    envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    if eleven_point:
        return float(envelope[np.searchsorted(recall, ELEVEN_RECALLS)].mean())
    return float((np.diff(recall, prepend=0.0) * envelope[:-1]).sum())


def _pairwise_iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return float64 [D, G] of xyxy boxes [D, 4] and [G, 4]; 0 for two empty boxes."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    intersection = np.maximum(high - low, 0).prod(-1)
    areas = [np.maximum(b[:, 2:] - b[:, :2], 0).prod(-1) for b in (boxes, others)]
    union = areas[0][:, None] + areas[1] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def _mean(values: np.ndarray) -> float:
    """Return the mean without NaN; NaN if nothing remains."""
    valid = values[~np.isnan(values)]
    return float(valid.mean()) if valid.size else float("nan")
