"""Errors of detections: values computed by hand, or by pycocotools from the passing detections."""

from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.metrics.handmade import CLASSES, predictions_of, truth_of
from tinyjax.metrics import detection_errors
from tinyjax.metrics.detection import score

NAN = float("nan")
A = (10, 10, 20, 20)
B = (50, 50, 60, 60)
AWAY = (100, 100, 110, 110)
REGION = (200, 200, 240, 240)
INSIDE = (210, 210, 220, 220)

# Two persons, a car and an ignored region; one person is detected.
TRUTH = truth_of(
    (0, 0, A), (0, 0, B), (0, 1, (30, 10, 40, 20)), (0, 0, REGION, "crowd"), (0, 1, REGION, "crowd")
)
DETECTIONS = [(0, 0, AWAY, 0.75), (0, 0, A, 0.5), (0, 0, A, 0.25), (0, 0, INSIDE, 0.875)]


def index_of(threshold):
    return int(np.searchsorted(detection_errors.THRESHOLDS, threshold))


def test_match_by_hand():
    matches = detection_errors.match(predictions_of(*DETECTIONS), TRUTH)
    detections, objects = matches.detections, matches.objects
    assert matches.classes == CLASSES
    assert detections.slot.tolist() == [0, 1, 2, 3]
    assert detections.score.tolist() == [0.75, 0.5, 0.25, 0.875]
    assert detections.true_positive.tolist() == [False, True, False, False]
    assert detections.false_positive.tolist() == [
        True,
        False,
        True,
        False,
    ]  # the last is in the ignored region
    assert objects.label.tolist() == [0, 0, 1]
    assert objects.match_score.tolist() == [0.5, -np.inf, -np.inf]


@pytest.mark.parametrize(
    ("threshold", "precision", "recall", "f1"),
    [
        (0.0, 1 / 3, 1 / 2, 2 / 5),
        (0.25, 1 / 3, 1 / 2, 2 / 5),  # a score equal to the threshold passes
        (0.251, 1 / 2, 1 / 2, 2 / 4),
        (0.5, 1 / 2, 1 / 2, 2 / 4),
        (0.6, 0, 0, 0),
        (0.8, NAN, 0, 0),  # only the detection in the ignored region passes
    ],
)
def test_curves_by_hand(threshold, precision, recall, f1):
    curves = detection_errors.threshold_curves(
        detection_errors.match(predictions_of(*DETECTIONS), TRUTH)
    )
    person = [curve[0, index_of(threshold)] for curve in curves]
    assert person == pytest.approx([precision, recall, f1], nan_ok=True)
    car = [curve[1, index_of(threshold)] for curve in curves]
    assert car == pytest.approx([NAN, 0, 0], nan_ok=True)


def test_a_class_without_objects_has_no_curves():
    curves = detection_errors.threshold_curves(
        detection_errors.match(predictions_of((0, 1, A, 0.5)), truth_of((0, 0, A)))
    )
    assert np.isnan([curve[1] for curve in curves]).all()
    assert detection_errors.mean_over_classes(curves.f1)[0] == curves.f1[0, 0] == 0


def test_best_threshold_is_the_highest_in_a_tie():
    curves = detection_errors.threshold_curves(
        detection_errors.match(predictions_of(*DETECTIONS), TRUTH)
    )
    assert detection_errors.THRESHOLDS[detection_errors.best_threshold_index(curves.f1[0])] == 0.5
    assert detection_errors.operating_point(curves) == 0.5
    no_hits = detection_errors.threshold_curves(
        detection_errors.match(predictions_of((0, 0, AWAY, 0.9)), TRUTH)
    )
    assert detection_errors.operating_point(no_hits) == 1.0


def random_case(seed, images=6):
    """Objects of both classes, ignored regions, and detections on, near and off them. Scores are
    distinct multiples of 0.001, so that each is a threshold.
    """
    rng = np.random.default_rng(seed)
    objects, detections = [], []
    for image in range(images):
        for _ in range(rng.integers(0, 8)):
            x, y, w, h = *rng.integers(0, 80, 2), *rng.integers(6, 30, 2)
            box, label = (x, y, x + w, y + h), int(rng.integers(2))
            objects.append((image, label, box))
            for _ in range(rng.integers(0, 3)):
                guess = rng.choice([label, 1 - label], p=[0.8, 0.2])
                detections.append((image, int(guess), box + rng.integers(-4, 5, 4)))
        x, y = rng.integers(0, 60, 2)
        objects += [(image, label, (x, y, x + 40, y + 40), "crowd") for label in range(2)]
        for _ in range(6):
            x, y, w, h = *rng.integers(0, 80, 2), *rng.integers(6, 20, 2)
            detections.append((image, int(rng.integers(2)), (x, y, x + w, y + h)))
    scores = rng.permutation(np.arange(1, 1000))[: len(detections)] / 1000
    detections = [(*detection, value) for detection, value in zip(detections, scores, strict=True)]
    predictions = predictions_of(*detections, images=images)
    # Not rounded to float32: 0.7 must reach the threshold 0.7.
    for k, (image, *_, value) in enumerate(detections):
        predictions["scores"] = predictions["scores"].astype(np.float64)
        predictions["scores"][image, k] = value
    return predictions, truth_of(*objects, images=images)


def coco_counts(predictions, truth, threshold):
    """True positives, false positives and recall of each class, by pycocotools from the detections
    that pass.
    """
    results = [
        {
            "image_id": i,
            "category_id": int(predictions["labels"][i, k]) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": predictions["scores"][i, k],
        }
        for i, k in zip(*np.nonzero(predictions["scores"] >= threshold), strict=True)
        for x1, y1, x2, y2 in [predictions["boxes"][i, k].tolist()]
    ]
    with redirect_stdout(StringIO()):
        coco = COCO()
        annotations = [{**a, "id": n} for n, a in enumerate(truth["annotations"], start=1)]
        coco.dataset = {**truth, "info": {}, "annotations": annotations}
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    tp, fp = np.zeros((2, 2), int)
    for image in evaluation.evalImgs:
        if image is not None and image["aRng"] == [0, 1e10]:
            matched, ignored = image["dtMatches"][0] > 0, image["dtIgnore"][0]
            tp[image["category_id"] - 1] += (matched & ~ignored).sum()
            fp[image["category_id"] - 1] += (~matched & ~ignored).sum()
    return tp, fp, evaluation.eval["recall"][0, :, 0, -1]


@pytest.mark.parametrize("threshold", [0.001, 0.3, 0.7, 0.9])
def test_curves_match_pycocotools(threshold):
    predictions, truth = random_case(0)
    tp, fp, recall = coco_counts(predictions, truth, threshold)
    curves = detection_errors.threshold_curves(detection_errors.match(predictions, truth))
    index = index_of(threshold)
    np.testing.assert_allclose(curves.recall[:, index], recall)
    np.testing.assert_allclose(curves.precision[:, index], tp / (tp + fp))


@pytest.mark.parametrize("seed", range(3))
def test_area_under_the_curves_matches_ap50(seed):
    predictions, truth = random_case(seed)
    scores = score(predictions, truth, {})
    matches = detection_errors.match(predictions, truth)
    curves = detection_errors.threshold_curves(matches)
    for k, name in enumerate(CLASSES):
        precision = np.nan_to_num(curves.precision[k])
        best = [
            np.max(precision, initial=0, where=curves.recall[k] >= recall)
            for recall in np.linspace(0, 1, 101)
        ]
        assert 0 < np.mean(best) == pytest.approx(scores[f"AP50/{name}"])
        np.testing.assert_allclose(matches.precision[k], best)


BACKGROUND = 2
CONFUSIONS = {
    "detected": ([(0, 0, A)], [(0, 0, A, 0.9)], [(0, 0)]),
    "wrong class": ([(0, 0, A)], [(0, 1, A, 0.9)], [(0, 1)]),
    "missed": ([(0, 1, A)], [], [(1, BACKGROUND)]),
    "on background": ([], [(0, 1, A, 0.9)], [(BACKGROUND, 1)]),
    "below the threshold": ([(0, 0, A)], [(0, 0, A, 0.49)], [(0, BACKGROUND)]),
    "second on the same object": (
        [(0, 0, A)],
        [(0, 0, A, 0.9), (0, 1, A, 0.8)],
        [(0, 0), (BACKGROUND, 1)],
    ),
    "the highest score matches, whatever its class": (
        [(0, 0, A)],
        [(0, 0, A, 0.8), (0, 1, A, 0.9)],
        [(0, 1), (BACKGROUND, 0)],
    ),
    "ignored region": (
        [(0, 0, REGION, "crowd"), (0, 1, REGION, "crowd")],
        [(0, 0, INSIDE, 0.9), (0, 1, INSIDE, 0.8)],
        [],
    ),
}


@pytest.mark.parametrize(("objects", "detections", "cells"), CONFUSIONS.values(), ids=CONFUSIONS)
def test_confusion_by_hand(objects, detections, cells):
    expected = np.zeros((3, 3), int)
    for cell in cells:
        expected[cell] += 1
    table = detection_errors.confusion_matrix(predictions_of(*detections), truth_of(*objects), 0.5)
    np.testing.assert_array_equal(table, expected)


def test_confusion_counts_each_object_once():
    predictions, truth = random_case(1)
    table = detection_errors.confusion_matrix(predictions, truth, 0.2)
    objects = [a["category_id"] - 1 for a in truth["annotations"] if not a["iscrowd"]]
    np.testing.assert_array_equal(table[:2].sum(1), np.bincount(objects))
    passing = np.bincount(predictions["labels"][predictions["scores"] >= 0.2])
    assert (table[:, :2].sum(0) <= passing).all()  # without those in ignored regions
    assert np.diag(table).sum() > table[0, 1] + table[1, 0] > 0


def test_worst_images_by_hand():
    truth = truth_of((0, 0, A), (0, 0, B), (1, 0, A), (3, 0, A), (4, 0, A), (4, 0, B), images=6)
    predictions = predictions_of(
        (0, 0, A, 0.9),  # one detected, one missed: 1 - F1 is 1/3
        (1, 0, A, 0.5),  # no error: the score equals the threshold
        (2, 0, A, 0.9),  # a false positive in an image without objects
        (3, 0, A, 0.4),  # below the threshold: missed
        (4, 1, A, 0.9),  # two missed, one false positive
        images=6,  # the last has neither objects nor detections
    )
    matches = detection_errors.match(predictions, truth)
    badness, num_errors = detection_errors.image_errors(matches, 0.5)
    assert badness.tolist() == pytest.approx([1 / 3, 0, 1, 1, 1, 0])
    assert num_errors.tolist() == [1, 0, 1, 1, 3, 0]
    assert detection_errors.worst_images(matches, 0.5, 8).tolist() == [4, 2, 3, 0]
    assert detection_errors.worst_images(matches, 0.5, 2).tolist() == [4, 2]


def test_per_class_by_hand():
    predictions = predictions_of(*DETECTIONS)
    scores = score(predictions, TRUTH, {})
    matches = detection_errors.match(predictions, TRUTH)
    person, car, both = detection_errors.per_class_rows(
        matches, detection_errors.threshold_curves(matches), scores
    )
    assert person == pytest.approx(
        {
            "class": "person",
            "images": 1,
            "boxes": 2,
            "AP": scores["AP/person"],
            "AP50": scores["AP50/person"],
            "threshold": 0.5,
            "precision": 0.5,
            "recall": 0.5,
            "F1": 0.5,
        }
    )
    assert (car["boxes"], car["threshold"], car["recall"], car["F1"]) == (1, 1.0, 0, 0)
    assert (both["class"], both["images"], both["boxes"]) == ("all", 1, 3)
    assert (both["AP"], both["threshold"]) == (scores["AP"], 0.5)
    # The car has no precision; its recall and F1 are 0.
    assert (both["precision"], both["recall"], both["F1"]) == pytest.approx((0.5, 0.25, 0.25))


def test_only_100_detections_count():
    detections = [(0, 0, AWAY, 0.9)] * 100 + [(0, 0, A, 0.5)]
    matches = detection_errors.match(predictions_of(*detections), truth_of((0, 0, A)))
    assert matches.detections.false_positive.sum() == 100
    assert not matches.detections.true_positive.any()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [0.0, NAN])
@pytest.mark.parametrize("objects", [(), [(0, 0, A)]])
def test_no_detections(value, objects):
    predictions, truth = predictions_of((0, 0, A, value)), truth_of(*objects)
    matches = detection_errors.match(predictions, truth)
    curves = detection_errors.threshold_curves(matches)
    assert detection_errors.operating_point(curves) == 1.0
    assert detection_errors.worst_images(matches, 1.0, 8).tolist() == ([0] if objects else [])
    assert detection_errors.confusion_matrix(predictions, truth, 1.0).sum() == len(objects)
    person, _, both = detection_errors.per_class_rows(
        matches, curves, score(predictions, truth, {})
    )
    assert person["F1"] == pytest.approx(0 if objects else NAN, nan_ok=True)
    assert both["recall"] == pytest.approx(person["recall"], nan_ok=True)
