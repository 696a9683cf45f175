"""What a detector gets wrong: errors by score threshold, confused classes, the worst images.

All of it at IoU 0.50. What is a hit, what is false and what is let pass in a don't-care region is
pycocotools' decision. It pairs from the highest score down, so a detection's fate does not hang on
those that score less: one matching holds for every threshold.
"""

from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from typing import Any, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tinyjax.metrics.detection import MAX_DETECTIONS, filled, loaded

OVERLAP = 0.5
THRESHOLDS = np.arange(1001) / 1000  # a detection passes that scores so much or more


class Detections(NamedTuple):
    """D detections. What is neither a hit nor false lies in a don't-care region, or is beyond the
    100 of its class that pycocotools looks at in an image.
    """

    image: np.ndarray  # int [D]
    slot: np.ndarray  # int [D], its place among the predictions of the image
    label: np.ndarray  # int [D]
    score: np.ndarray  # float64 [D]
    hit: np.ndarray  # bool [D], finds an object of its class
    false: np.ndarray  # bool [D]


class Objects(NamedTuple):
    """O objects; don't-care regions are none."""

    image: np.ndarray  # int [O]
    label: np.ndarray  # int [O]
    found: np.ndarray  # float64 [O], score of the detection that finds it; -inf where none does


class Matches(NamedTuple):
    """Detections and objects of one set, paired class by class."""

    classes: tuple[str, ...]
    images: int
    detections: Detections
    objects: Objects
    precision: np.ndarray  # float64 [C, 101] at recall 0, 0.01 .. 1, its mean is AP50; NaN if O = 0


class Curves(NamedTuple):
    """float64 [C, 1001], over THRESHOLDS. NaN for a class without objects."""

    precision: np.ndarray  # NaN where nothing is detected, too
    recall: np.ndarray
    f1: np.ndarray  # 2 hits / (detections + objects)


def match(predictions: Mapping[str, np.ndarray], truth: Mapping[str, Any]) -> Matches:
    """Pair the detections with the objects of their class; arguments and errors as of `score`."""
    evaluation = _evaluate(predictions, truth)
    image, slot = filled(predictions)
    score = np.asarray(predictions["scores"], np.float64)[image, slot]
    label = np.asarray(predictions["labels"])[image, slot]
    hit, false = np.zeros((2, len(image)), bool)
    found = np.full(len(truth["annotations"]), -np.inf)
    for one in evaluation.evalImgs:
        # None: the image has neither objects nor detections of the class
        if one is not None:
            ids, taken = _pairs(one)
            hits = (taken >= 0) & ~one["dtIgnore"][0]
            hit[ids], false[ids] = hits, taken < 0
            found[taken[hits]] = score[ids[hits]]

    real = [i for i, a in enumerate(truth["annotations"]) if not a["iscrowd"]]
    there = [truth["annotations"][i] for i in real]
    objects = Objects(
        np.array([a["image_id"] for a in there], int),
        np.array([a["category_id"] - 1 for a in there], int),
        found[real],
    )
    precision = evaluation.eval["precision"][0, :, :, 0, 0]  # iou recall class area maximum
    return Matches(
        tuple(c["name"] for c in truth["categories"]),
        len(truth["images"]),
        Detections(image, slot, label, score, hit, false),
        objects,
        # recall class -> class recall; pycocotools writes -1 where a class has no object
        np.where(precision < 0, np.nan, precision).T,
    )


def _pairs(one: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Places of the detections of an image, and of the annotations they take, -1 for none."""
    return np.array(one["dtIds"], int) - 1, one["dtMatches"][0].astype(int) - 1


def _evaluate(predictions, truth, **params) -> COCOeval:
    with redirect_stdout(StringIO()):
        evaluation = COCOeval(*loaded(predictions, truth, COCO), "bbox")
        one = {"iouThrs": np.array([OVERLAP]), "areaRng": [(0.0, np.inf)], "areaRngLbl": ["all"]}
        for name, value in {"maxDets": [MAX_DETECTIONS], **one, **params}.items():
            setattr(evaluation.params, name, value)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def curves(matches: Matches) -> Curves:
    """Precision, recall and F1 of every class over THRESHOLDS."""
    _, _, label, score, hit, false = matches.detections
    hits, wrong = (_at_least(label[m], score[m], len(matches.classes)) for m in (hit, false))
    objects = np.bincount(matches.objects.label, minlength=len(matches.classes))[:, None]
    with np.errstate(invalid="ignore"):  # 0 / 0
        values = (hits / (hits + wrong), hits / objects, 2 * hits / (hits + wrong + objects))
    return Curves(*(np.where(objects > 0, value, np.nan) for value in values))


def _at_least(label: np.ndarray, score: np.ndarray, classes: int) -> np.ndarray:
    """int [C, 1001]: how many of each class score each threshold or more."""
    sets = [np.sort(score[label == k]) for k in range(classes)]
    return np.stack([len(s) - np.searchsorted(s, THRESHOLDS) for s in sets])


def best(f1: np.ndarray) -> int:
    """Place in THRESHOLDS of the highest F1 [1001]; of equal ones the highest threshold, which
    lets the fewest detections pass. So nothing passes where nothing is right.
    """
    return len(f1) - 1 - int(np.argmax(f1[::-1]))


def over_classes(values: np.ndarray) -> np.ndarray:
    """Mean of [C, ...] over the classes, those left out that are NaN."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):  # 0 / 0 if all are
        return np.where(known, values, 0).sum(0) / known.sum(0)


def operating_point(found: Curves) -> float:
    """The score threshold at which the mean F1 of the classes is highest."""
    return float(THRESHOLDS[best(over_classes(found.f1))])


def confusion(
    predictions: Mapping[str, np.ndarray], truth: Mapping[str, Any], threshold: float
) -> np.ndarray:
    """Which class is taken for which: int [C + 1, C + 1], row of the truth, column of the
    prediction, both with background last.

    Detections that score `threshold` or more are matched by pycocotools, whatever their class.
    Objects that none finds are in the last column, detections that find none in the last row; those
    in a don't-care region are in none.
    """
    scores = np.asarray(predictions["scores"], np.float64)
    passing = {**predictions, "scores": np.where(scores >= threshold, scores, 0)}
    image, slot = filled(passing)
    label = np.asarray(predictions["labels"])[image, slot]
    background = len(truth["categories"])
    table = np.zeros((background + 1, background + 1), int)
    real = [not a["iscrowd"] for a in truth["annotations"]]
    owner = np.array([a["category_id"] - 1 for a in truth["annotations"]], int)
    missed = np.array(real, bool)
    for one in _evaluate(passing, truth, useCats=0, maxDets=[scores.shape[1]]).evalImgs:
        if one is not None:
            ids, taken = _pairs(one)
            false, hits = taken < 0, (taken >= 0) & ~one["dtIgnore"][0]
            np.add.at(table, (background, label[ids[false]]), 1)
            np.add.at(table, (owner[taken[hits]], label[ids[hits]]), 1)
            missed[taken[hits]] = False
    np.add.at(table, (owner[missed], background), 1)
    return table


def errors(matches: Matches, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Of every image: 1 - F1, float64 [N], and objects missed + false detections, int [N].

    Both are 0 for an image without objects in which nothing is found.
    """
    seen, there = matches.detections, matches.objects

    def count(images: np.ndarray) -> np.ndarray:
        return np.bincount(images, minlength=matches.images)

    passes = seen.score >= threshold
    wrong = count(seen.image[passes & seen.false]) + count(there.image[there.found < threshold])
    hits = count(seen.image[passes & seen.hit])
    return wrong / np.maximum(2 * hits + wrong, 1), wrong


def worst(matches: Matches, threshold: float, count: int) -> np.ndarray:
    """At most `count` images, int, worst first: by 1 - F1, then by number of errors, then by place.
    Images without an error are not among them.
    """
    bad, wrong = errors(matches, threshold)
    order = np.lexsort((-wrong, -bad))
    return order[wrong[order] > 0][:count]


def per_class(matches: Matches, found: Curves, scores: Mapping[str, float]) -> list[dict[str, Any]]:
    """A row per class, and one of all of them: class, images and boxes (how many images hold the
    class, how many objects there are), AP and AP50 (from `scores`, what `score` returns), and
    precision, recall and F1 at the threshold that is best for the class, or for the mean of all.
    """
    image, label, _ = matches.objects
    owns = [*(label == k for k in range(len(matches.classes))), np.ones_like(label, bool)]
    keys = [*(f"/{name}" for name in matches.classes), ""]
    rows = []
    for name, key, own, precision, recall, f1 in zip(
        [*matches.classes, "all"],
        keys,
        owns,
        *(np.vstack([curve, over_classes(curve)]) for curve in found),
        strict=True,
    ):
        at = best(f1)
        rows.append(
            {
                "class": name,
                "images": len(np.unique(image[own])),
                "boxes": int(own.sum()),
                "AP": scores[f"AP{key}"],
                "AP50": scores[f"AP50{key}"],
                "threshold": float(THRESHOLDS[at]),
                "precision": float(precision[at]),
                "recall": float(recall[at]),
                "F1": float(f1[at]),
            }
        )
    return rows
