"""LVIS scores: federated labels by hand, and random ones against COCO's evaluation of equivalent
predictions and truth.
"""

import numpy as np
import pytest

from tests.metrics.handmade import predictions_of, truth_of
from tinyjax.errors import UserError
from tinyjax.metrics import detection, lvis
from tinyjax.metrics.detection_errors import match

NAN = float("nan")
A = (10, 10, 20, 20)
B = (50, 50, 60, 60)
AWAY = (100, 100, 110, 110)
PERSON, CAR = 0, 1  # labels


def federated(truth, negative=(), not_exhaustive=(), frequency="fr"):
    """Add (image, label) of classes that are verified to be absent, or not exhaustively labeled."""
    for image in truth["images"]:
        for field, pairs in (
            ("neg_category_ids", negative),
            ("not_exhaustive_category_ids", not_exhaustive),
        ):
            image[field] = [label + 1 for i, label in pairs if i == image["id"]]
    for category, letter in zip(truth["categories"], frequency, strict=True):
        category["frequency"] = letter
    return truth


def both_scores(predictions, truth):
    return lvis.score(predictions, truth, {})["AP"], detection.score(predictions, truth, {})["AP"]


def test_detections_of_unverified_classes_do_not_count():
    predictions = predictions_of((0, CAR, AWAY, 0.9), (1, CAR, A, 0.5), images=2)
    truth = federated(truth_of((0, PERSON, A), (1, CAR, A), images=2), negative=[(1, PERSON)])
    # AP of car: 1 without the detection in image 0, else 1/2; of person 0
    assert both_scores(predictions, truth) == pytest.approx((1 / 2, 1 / 4))


def test_detections_of_absent_classes_are_false():
    predictions = predictions_of((0, CAR, AWAY, 0.9), (1, CAR, A, 0.5), images=2)
    truth = federated(truth_of((0, PERSON, A), (1, CAR, A), images=2), negative=[(0, CAR)])
    assert both_scores(predictions, truth) == pytest.approx((1 / 4, 1 / 4))


def test_false_detections_of_classes_that_are_not_exhaustive_do_not_count():
    detections = [(0, PERSON, AWAY, 0.9), (0, PERSON, A, 0.8), (0, PERSON, A, 0.7)]
    predictions = predictions_of(
        *detections, (1, PERSON, AWAY, 0.75), (1, PERSON, B, 0.6), images=2
    )
    truth = truth_of((0, PERSON, A), (1, PERSON, B), images=2)
    federated(truth, not_exhaustive=[(0, PERSON)], negative=[(0, CAR)])
    # true, false, true; with the ignored ones: false, true, false, false, true
    expected = (51 + 50 * 2 / 3) / 101, (51 / 2 + 50 * 2 / 5) / 101
    assert both_scores(predictions, truth) == pytest.approx(expected)


def test_score_keys():
    truth = federated(truth_of((0, PERSON, A), (0, CAR, B)))
    scores = lvis.score(predictions_of((0, PERSON, A, 0.9)), truth, {"<16": (0, 16)})
    values = {"AP": 0.5, "AP50": 0.5, "AP75": 0.5, "AP fixed": 0.5, "AR300": 0.5}
    areas = {"APs": 0.5, "APm": NAN, "APl": NAN}
    groups = {"APr": 0, "APc": NAN, "APf": 1}
    subsets = {
        f"{metric}/{name}": value
        for metric in ("AP", "AP50")
        for name, value in {"person": 1, "car": 0, "<16": 0.5}.items()
    }
    counts = {"images": 1, "boxes": 2}
    expected = {**values, **areas, **groups, **subsets, **counts}
    assert scores == pytest.approx(expected, nan_ok=True)


def test_areas_include_both_edges():
    box = (0, 0, 32, 32)
    truth = federated(truth_of((0, PERSON, box)))
    scores = lvis.score(predictions_of((0, PERSON, box, 0.9)), truth, {})
    assert (scores["APs"], scores["APm"]) == (1, 1)
    assert np.isnan(scores["APl"])


def test_at_most_300_detections_per_image_but_not_in_fixed_ap():
    detections = [(0, PERSON, AWAY, 0.9)] * 300
    truth = federated(truth_of((0, PERSON, A), (0, CAR, B)))
    last = lvis.score(predictions_of(*detections, (0, CAR, B, 0.5)), truth, {})
    assert (last["AP/car"], last["AP"], last["AP fixed"]) == (0, 0, 0.5)
    detections = detections[:299]
    kept = lvis.score(predictions_of(*detections, (0, CAR, B, 0.5)), truth, {})
    assert (kept["AP/car"], kept["AP fixed"]) == (1, 0.5)


def test_fixed_ap_limits_the_detections_of_a_class_in_the_set(monkeypatch):
    monkeypatch.setattr(lvis, "MAX_CLASS_DETECTIONS", 2)
    objects = [(i, PERSON, A) for i in range(3)] + [(0, CAR, B)]
    truth = federated(truth_of(*objects, images=3))
    detections = [(i, PERSON, A, 0.9 - 0.1 * i) for i in range(3)] + [(0, CAR, B, 0.1)]
    scores = lvis.score(predictions_of(*detections, images=3), truth, {})
    assert scores["AP"] == 1
    assert scores["AP fixed"] == pytest.approx((67 / 101 + 1) / 2)  # recall 2/3 of person


def test_many_classes_are_evaluated_in_groups(monkeypatch):
    truth, predictions = random_set(5)
    expected = lvis.score(predictions, truth, {})
    monkeypatch.setattr(lvis, "CLASSES_PER_EVALUATION", 1)
    assert lvis.score(predictions, truth, {}) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("seed", range(3))
def test_coco_evaluation_of_equivalent_data_agrees(seed):
    truth, predictions = random_set(seed)
    bins = {"<16": (0, 16), ">=16": (16, np.inf)}
    scores = lvis.score(predictions, truth, bins)
    equivalent = lvis.as_coco(predictions, truth)
    expected = detection.score(*equivalent, bins)
    shared = expected.keys() & scores.keys()
    assert {"AP", "AP50", "AP75", "AP/car", "AP/<16"} <= shared
    assert {k: scores[k] for k in shared} == pytest.approx({k: expected[k] for k in shared})
    assert 0.1 < expected["AP"] < 0.9
    assert abs(detection.score(predictions, truth, bins)["AP"] - scores["AP"]) > 0.01
    matched = match(*equivalent)
    assert matched.precision.mean() == pytest.approx(scores["AP50"])
    assert len(matched.objects.label) == scores["boxes"]


def random_set(seed, images=8):
    rng = np.random.default_rng(seed)
    objects, detections = [], []
    pairs = {(i, label): rng.random() for i in range(images) for label in range(2)}
    for (image, label), value in pairs.items():
        for _ in range(2 if value < 0.5 else 0):
            x, y, side = rng.uniform(0, 200), rng.uniform(0, 200), rng.uniform(8, 24)
            objects.append((image, label, (x, y, x + side, y + side)))
            moved = (x + rng.normal(0, 1), y, x + side, y + side)
            detections.append((image, label, moved, rng.uniform(0.2, 1)))
        for _ in range(3):
            x = rng.uniform(0, 200)
            detections.append((image, label, (x, x, x + 12, x + 12), rng.uniform(0, 1)))
    truth = truth_of(*objects, images=images)
    negative = [pair for pair, value in pairs.items() if 0.5 <= value < 0.75]
    not_exhaustive = [pair for pair, value in pairs.items() if value < 0.2]
    federated(truth, negative, not_exhaustive)
    return truth, predictions_of(*detections, images=images)


def test_labels_that_are_not_federated_raise():
    with pytest.raises(UserError, match="no image has neg_category_ids"):
        lvis.score(predictions_of((0, PERSON, A, 0.9)), truth_of((0, PERSON, A)), {})


def test_classes_without_a_frequency_are_in_no_group():
    truth = federated(truth_of((0, PERSON, A)))
    for category in truth["categories"]:
        del category["frequency"]
    scores = lvis.score(predictions_of((0, PERSON, A, 0.9)), truth, {})
    assert scores["AP"] == 1
    assert all(np.isnan(scores[name]) for name in ("APr", "APc", "APf"))
