"""Errors of a detector: precision and recall by score threshold, confused classes, worst images.

Everything is at IoU 0.50. pycocotools decides which detections are true positives, which are false
positives, and which are not counted because they lie in an ignored region. It matches in descending
order of score, so that the outcome of a detection does not depend on lower-scoring ones: one
matching holds for all thresholds.
"""

from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tinyjax.metrics.detection import MAX_DETECTIONS, load_coco, nonempty_slots

IOU_THRESHOLD = 0.5
THRESHOLDS = np.arange(1001) / 1000  # a detection passes with a score of the threshold or more


class Detections(NamedTuple):
    """D detections.

    A detection that is neither a true nor a false positive lies in an ignored region, or beyond the
    100 detections per class and image that pycocotools looks at.
    """

    image: np.ndarray  # int [D]
    slot: np.ndarray  # int [D], index among the predictions of the image
    label: np.ndarray  # int [D]
    score: np.ndarray  # float64 [D]
    true_positive: np.ndarray  # bool [D]
    false_positive: np.ndarray  # bool [D]


class Objects(NamedTuple):
    """O objects, without ignored regions."""

    image: np.ndarray  # int [O]
    label: np.ndarray  # int [O]
    match_score: np.ndarray  # float64 [O], score of the matched detection; -inf without a match


class Matches(NamedTuple):
    """Detections and objects of one set, matched within each class."""

    classes: tuple[str, ...]
    images: int
    detections: Detections
    objects: Objects
    # float64 [C, 101] at recall 0, 0.01 .. 1; its mean is AP50; NaN for a class without objects
    precision: np.ndarray


class Curves(NamedTuple):
    """float64 [C, 1001] over THRESHOLDS; NaN for a class without objects."""

    precision: np.ndarray  # also NaN where nothing is detected
    recall: np.ndarray
    f1: np.ndarray  # 2 true positives / (detections + objects)


def match(predictions: Mapping[str, np.ndarray], truth: Mapping[str, Any]) -> Matches:
    """Match the detections with the objects of their class; arguments and errors as of `score`."""
    evaluation = _evaluate(predictions, truth)
    image, slot = nonempty_slots(predictions)
    score = np.asarray(predictions["scores"], np.float64)[image, slot]
    label = np.asarray(predictions["labels"])[image, slot]
    true_positive, false_positive = np.zeros((2, len(image)), bool)
    match_score = np.full(len(truth["annotations"]), -np.inf)
    for image_result in evaluation.evalImgs:
        # None: the image has neither objects nor detections of the class
        if image_result is not None:
            detections, matched = _match_indices(image_result)
            hits = (matched >= 0) & ~image_result["dtIgnore"][0]
            true_positive[detections], false_positive[detections] = hits, matched < 0
            match_score[matched[hits]] = score[detections[hits]]

    objects = [i for i, a in enumerate(truth["annotations"]) if not a["iscrowd"]]
    annotations = [truth["annotations"][i] for i in objects]
    precision = evaluation.eval["precision"][0, :, :, 0, 0]  # iou recall class area maximum
    return Matches(
        tuple(c["name"] for c in truth["categories"]),
        len(truth["images"]),
        Detections(image, slot, label, score, true_positive, false_positive),
        Objects(
            np.array([a["image_id"] for a in annotations], int),
            np.array([a["category_id"] - 1 for a in annotations], int),
            match_score[objects],
        ),
        # recall class -> class recall; pycocotools writes -1 where a class has no objects
        np.where(precision < 0, np.nan, precision).T,
    )


def _match_indices(image_result: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Indices of an image's detections and of their matched annotations, -1 for no match."""
    detections = np.array(image_result["dtIds"], int) - 1
    return detections, image_result["dtMatches"][0].astype(int) - 1


def _evaluate(predictions, truth, **overrides) -> COCOeval:
    params = {
        "maxDets": [MAX_DETECTIONS],
        "iouThrs": np.array([IOU_THRESHOLD]),
        "areaRng": [(0.0, np.inf)],
        "areaRngLbl": ["all"],
        **overrides,
    }
    with redirect_stdout(StringIO()):
        evaluation = COCOeval(*load_coco(predictions, truth, COCO), "bbox")
        for name, value in params.items():
            setattr(evaluation.params, name, value)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def curves(matches: Matches) -> Curves:
    """Precision, recall and F1 of each class over THRESHOLDS."""
    detections, classes = matches.detections, len(matches.classes)
    tp, fp = (
        _count_passing(detections.label[mask], detections.score[mask], classes)
        for mask in (detections.true_positive, detections.false_positive)
    )
    objects = np.bincount(matches.objects.label, minlength=classes)[:, None]
    with np.errstate(invalid="ignore"):  # 0 / 0
        values = (tp / (tp + fp), tp / objects, 2 * tp / (tp + fp + objects))
    return Curves(*(np.where(objects > 0, value, np.nan) for value in values))


def _count_passing(label: np.ndarray, score: np.ndarray, classes: int) -> np.ndarray:
    """int [C, 1001]: number of each class's detections that pass each threshold."""
    sorted_scores = [np.sort(score[label == k]) for k in range(classes)]
    return np.stack([len(s) - np.searchsorted(s, THRESHOLDS) for s in sorted_scores])


def best_threshold(f1: np.ndarray) -> int:
    """Index in THRESHOLDS of the highest F1 [1001].

    In a tie the highest threshold wins, which lets the fewest detections pass; none pass if no
    detection is right.
    """
    return len(f1) - 1 - int(np.argmax(f1[::-1]))


def class_mean(values: np.ndarray) -> np.ndarray:
    """Mean of [C, ...] over the classes, without NaN."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):  # 0 / 0 if all are NaN
        return np.where(known, values, 0).sum(0) / known.sum(0)


def operating_point(curves: Curves) -> float:
    """The score threshold with the highest mean F1 of the classes."""
    return float(THRESHOLDS[best_threshold(class_mean(curves.f1))])


def confusion_matrix(
    predictions: Mapping[str, np.ndarray], truth: Mapping[str, Any], threshold: float
) -> np.ndarray:
    """int [C + 1, C + 1]: objects by true class (row) and predicted class (column).

    Detections with a score of `threshold` or more are matched by pycocotools, whatever their class.
    The last column counts missed objects, the last row detections on background. Detections in an
    ignored region are not counted.
    """
    scores = np.asarray(predictions["scores"], np.float64)
    passing = {**predictions, "scores": np.where(scores >= threshold, scores, 0)}
    image, slot = nonempty_slots(passing)
    predicted_class = np.asarray(predictions["labels"])[image, slot]
    background = len(truth["categories"])
    table = np.zeros((background + 1, background + 1), int)
    true_class = np.array([a["category_id"] - 1 for a in truth["annotations"]], int)
    missed = np.array([not a["iscrowd"] for a in truth["annotations"]], bool)
    evaluation = _evaluate(passing, truth, useCats=0, maxDets=[scores.shape[1]])
    for image_result in evaluation.evalImgs:
        if image_result is not None:
            detections, annotations = _match_indices(image_result)
            false = annotations < 0
            hits = (annotations >= 0) & ~image_result["dtIgnore"][0]
            np.add.at(table, (background, predicted_class[detections[false]]), 1)
            cells = true_class[annotations[hits]], predicted_class[detections[hits]]
            np.add.at(table, cells, 1)
            missed[annotations[hits]] = False
    np.add.at(table, (true_class[missed], background), 1)
    return table


def image_errors(matches: Matches, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """1 - F1, float64 [N], and the number of missed objects and false positives, int [N].

    Both are 0 for an image without objects and without detections.
    """
    detections, objects = matches.detections, matches.objects

    def count(images: np.ndarray) -> np.ndarray:
        return np.bincount(images, minlength=matches.images)

    passes = detections.score >= threshold
    false = count(detections.image[passes & detections.false_positive])
    missed = count(objects.image[objects.match_score < threshold])
    hits = count(detections.image[passes & detections.true_positive])
    num_errors = false + missed
    return num_errors / np.maximum(2 * hits + num_errors, 1), num_errors


def worst_images(matches: Matches, threshold: float, max_images: int) -> np.ndarray:
    """Indices of at most `max_images` images with errors, the worst first.

    They are ordered by 1 - F1, then by the number of errors, then by index.
    """
    badness, num_errors = image_errors(matches, threshold)
    order = np.lexsort((-num_errors, -badness))
    return order[num_errors[order] > 0][:max_images]


def per_class_rows(
    matches: Matches, curves: Curves, scores: Mapping[str, float]
) -> list[dict[str, Any]]:
    """A row for each class, and one called "all".

    Columns: "class"; "images" and "boxes", the images that show the class and its objects; "AP" and
    "AP50", from `scores` (see `score`); "precision", "recall" and "F1" at the "threshold" with the
    best F1 of the class, or with the best mean F1.
    """
    image, label, _ = matches.objects
    masks = [*(label == k for k in range(len(matches.classes))), np.ones_like(label, bool)]
    suffixes = [*(f"/{name}" for name in matches.classes), ""]
    rows = []
    for name, suffix, mask, precision, recall, f1 in zip(
        [*matches.classes, "all"],
        suffixes,
        masks,
        *(np.vstack([curve, class_mean(curve)]) for curve in curves),
        strict=True,
    ):
        best = best_threshold(f1)
        rows.append(
            {
                "class": name,
                "images": len(np.unique(image[mask])),
                "boxes": int(mask.sum()),
                "AP": scores[f"AP{suffix}"],
                "AP50": scores[f"AP50{suffix}"],
                "threshold": float(THRESHOLDS[best]),
                "precision": float(precision[best]),
                "recall": float(recall[best]),
                "F1": float(f1[best]),
            }
        )
    return rows
