"""Errors of a detector: precision and recall by score threshold, confused classes, worst images.

All results are at IoU 0.50. pycocotools finds the true positives, the false positives, and the
detections in ignored regions, which are not counted. It matches detections in descending order of
score, so a match does not depend on detections with lower scores: one matching is valid for all
thresholds.
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
RECALLS = np.linspace(0, 1, 101)  # COCO's
THRESHOLDS = np.arange(1001) / 1000  # a detection passes if its score is at least the threshold


class Detections(NamedTuple):
    """D detections.

    Those that are neither true nor false positives are in an ignored region, or not among the
    detections per class and image that pycocotools evaluates.
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


def match(
    predictions: Mapping[str, np.ndarray],
    truth: Mapping[str, Any],
    max_detections: int = MAX_DETECTIONS,
) -> Matches:
    """Match detections with objects of the same class; for arguments and errors see `score`.

    max_detections: per image and class.
    """
    evaluation = _evaluate(predictions, truth, maxDets=[max_detections])
    image, slot = nonempty_slots(predictions)
    score = np.asarray(predictions["scores"], np.float64)[image, slot]
    label = np.asarray(predictions["labels"])[image, slot]
    true_positive, false_positive = np.zeros((2, len(image)), bool)
    match_score = np.full(len(truth["annotations"]), -np.inf)
    for image_result in evaluation.evalImgs:
        # None: the image has neither objects nor detections of the class
        if image_result is not None:
            detections, annotations = _match_indices(image_result)
            hits = (annotations >= 0) & ~image_result["dtIgnore"][0]
            true_positive[detections], false_positive[detections] = hits, annotations < 0
            match_score[annotations[hits]] = score[detections[hits]]

    precision = evaluation.eval["precision"][0, :, :, 0, 0]  # iou recall class area maximum
    return Matches(
        tuple(c["name"] for c in truth["categories"]),
        len(truth["images"]),
        Detections(image, slot, label, score, true_positive, false_positive),
        objects_of(truth, match_score),
        # recall class -> class recall; pycocotools writes -1 where a class has no objects
        np.where(precision < 0, np.nan, precision).T,
    )


def objects_of(truth: Mapping[str, Any], match_score: np.ndarray) -> Objects:
    """Return the objects, without ignored regions. match_score: of each annotation."""
    indices = [i for i, a in enumerate(truth["annotations"]) if not a["iscrowd"]]
    objects = [truth["annotations"][i] for i in indices]
    return Objects(
        np.array([a["image_id"] for a in objects], int),
        np.array([a["category_id"] - 1 for a in objects], int),
        match_score[indices],
    )


def _match_indices(image_result: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return indices of an image's detections and of their matched annotations; -1: no match."""
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


def threshold_curves(matches: Matches) -> Curves:
    """Return precision, recall and F1 of each class over THRESHOLDS."""
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
    """Return int [C, 1001]: number of each class's detections that pass each threshold."""
    sorted_scores = [np.sort(score[label == k]) for k in range(classes)]
    return np.stack([len(s) - np.searchsorted(s, THRESHOLDS) for s in sorted_scores])


def best_threshold_index(f1: np.ndarray) -> int:
    """Return the index in THRESHOLDS of the highest F1 [1001].

    In a tie it is the highest threshold, which the fewest detections pass. If no detection is
    correct, the threshold is 1.
    """
    return len(f1) - 1 - int(np.argmax(f1[::-1]))


def mean_over_classes(values: np.ndarray) -> np.ndarray:
    """Return the mean of [C, ...] over the classes, ignoring NaN."""
    valid = ~np.isnan(values)
    with np.errstate(invalid="ignore"):  # 0 / 0 if all are NaN
        return np.where(valid, values, 0).sum(0) / valid.sum(0)


def operating_point(curves: Curves) -> float:
    """Return the score threshold with the highest mean F1 over the classes."""
    return float(THRESHOLDS[best_threshold_index(mean_over_classes(curves.f1))])


def confusion_matrix(
    predictions: Mapping[str, np.ndarray], truth: Mapping[str, Any], threshold: float
) -> np.ndarray:
    """Return int [C + 1, C + 1]: objects by true class (row) and predicted class (column).

    pycocotools matches detections with a score of at least `threshold`, ignoring classes. The last
    column counts missed objects, the last row detections of background. Detections in ignored
    regions are not counted.
    """
    scores = np.asarray(predictions["scores"], np.float64)
    passing = {**predictions, "scores": np.where(scores >= threshold, scores, 0)}
    image, slot = nonempty_slots(passing)
    predicted_class = np.asarray(predictions["labels"])[image, slot]
    background = len(truth["categories"])
    matrix = np.zeros((background + 1, background + 1), int)
    true_class = np.array([a["category_id"] - 1 for a in truth["annotations"]], int)
    missed = np.array([not a["iscrowd"] for a in truth["annotations"]], bool)
    evaluation = _evaluate(passing, truth, useCats=0, maxDets=[scores.shape[1]])
    for image_result in evaluation.evalImgs:
        if image_result is not None:
            detections, annotations = _match_indices(image_result)
            on_background = annotations < 0
            hits = (annotations >= 0) & ~image_result["dtIgnore"][0]
            np.add.at(matrix, (background, predicted_class[detections[on_background]]), 1)
            cells = true_class[annotations[hits]], predicted_class[detections[hits]]
            np.add.at(matrix, cells, 1)
            missed[annotations[hits]] = False
    np.add.at(matrix, (true_class[missed], background), 1)
    return matrix


def image_errors(matches: Matches, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Return 1 - F1, float64 [N], and the number of missed objects and false positives, int [N].

    Both are 0 for an image without objects and detections.
    """
    detections, objects = matches.detections, matches.objects

    def count(images: np.ndarray) -> np.ndarray:
        return np.bincount(images, minlength=matches.images)

    passes = detections.score >= threshold
    false_positives = count(detections.image[passes & detections.false_positive])
    missed = count(objects.image[objects.match_score < threshold])
    hits = count(detections.image[passes & detections.true_positive])
    num_errors = false_positives + missed
    return num_errors / np.maximum(2 * hits + num_errors, 1), num_errors


def worst_images(matches: Matches, threshold: float, max_images: int) -> np.ndarray:
    """Return the indices of at most `max_images` images with errors, the worst first.

    They are sorted by 1 - F1, then by the number of errors, then by index.
    """
    f1_loss, num_errors = image_errors(matches, threshold)
    order = np.lexsort((-num_errors, -f1_loss))
    return order[num_errors[order] > 0][:max_images]


def per_class_rows(
    matches: Matches, curves: Curves, scores: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Return a row for each class, and a row with class "all".

    Columns: "class"; "images" and "boxes", the number of images with the class, and of its objects;
    "AP" and "AP50", from `scores` (see `score`); "precision", "recall" and "F1" at the "threshold"
    with the best F1 of the class, or for "all" with the best mean F1.
    """
    image, label, _ = matches.objects
    masks = [*(label == k for k in range(len(matches.classes))), np.ones_like(label, bool)]
    suffixes = [*(f"/{name}" for name in matches.classes), ""]
    rows = []
    for name, suffix, mask, precision, recall, f1 in zip(
        [*matches.classes, "all"],
        suffixes,
        masks,
        *(np.vstack([curve, mean_over_classes(curve)]) for curve in curves),
        strict=True,
    ):
        best = best_threshold_index(f1)
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
