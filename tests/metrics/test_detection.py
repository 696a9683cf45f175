"""Scores, compared with values computed by hand from the definition of COCO's average precision."""

import copy

import numpy as np
import pytest

from tests.metrics.handmade import CLASSES, predictions_of, truth_of
from tinyjax.metrics.detection import run_in_processes, score

BINS = {"<8": (0, 8), "8-16": (8, 16), ">=16": (16, np.inf)}
NAN = float("nan")

A = (10, 10, 20, 20)
B = (50, 50, 60, 60)
AWAY = (100, 100, 110, 110)

CASES = {
    "one true positive": (
        [(0, 0, A)],
        [(0, 0, A, 0.9)],
        {"AP": 1, "AP50": 1, "AP75": 1, "AR100": 1, "images": 1, "boxes": 1},
    ),
    # IoU 0.82 matches at 0.50, 0.55 .. 0.80, seven of the ten thresholds
    "loose box": (
        [(0, 0, A)],
        [(0, 0, (10, 10, 20, 18.2), 0.9)],
        {"AP": 0.7, "AP50": 1, "AP75": 1, "AR100": 0.7},
    ),
    "false positive before the true positive": (
        [(0, 0, A)],
        [(0, 0, AWAY, 0.9), (0, 0, A, 0.5)],
        {"AP": 0.5, "AP50": 0.5, "AR100": 1},
    ),
    "false positive after the true positive": (
        [(0, 0, A)],
        [(0, 0, AWAY, 0.3), (0, 0, A, 0.5)],
        {"AP": 1, "AR100": 1},
    ),
    # precision is 1 at the 51 recalls 0, 0.01 .. 0.50 of 101
    "one of two found": (
        [(0, 0, A), (0, 0, B)],
        [(0, 0, A, 0.9)],
        {"AP": 51 / 101, "AR100": 0.5, "boxes": 2},
    ),
    "second detection of one object is false": (
        [(0, 0, A), (0, 0, B)],
        [(0, 0, A, 0.9), (0, 0, A, 0.8), (0, 0, B, 0.7)],
        {"AP": (51 + 50 * 2 / 3) / 101, "AR100": 1},
    ),
    "right box, wrong class": (
        [(0, 0, A)],
        [(0, 1, A, 0.9)],
        {"AP": 0, "AP/person": 0, "AP/car": NAN},
    ),
    "crowd absorbs all false positives inside": (
        [(0, 0, A), (0, 0, (40, 40, 80, 80), "crowd"), (0, 1, (40, 40, 80, 80), "crowd")],
        [(0, 0, B, 0.9), (0, 0, (62, 62, 70, 70), 0.8), (0, 1, B, 0.9), (0, 0, A, 0.5)],
        {"AP": 1, "AR100": 1, "boxes": 1, "AP/car": NAN},
    ),
    "crowd does not absorb false positives outside": (
        [(0, 0, A), (0, 0, (40, 40, 80, 80), "crowd")],
        [(0, 0, AWAY, 0.9), (0, 0, A, 0.5)],
        {"AP": 0.5},
    ),
    "absent class stays out of the mean": (
        [(0, 0, A)],
        [(0, 0, A, 0.9), (0, 1, AWAY, 0.9)],
        {"AP": 1, "AP/person": 1, "AP50/person": 1, "AP/car": NAN, "AP50/car": NAN},
    ),
    "mean over classes": (
        [(0, 0, A), (0, 1, B)],
        [(0, 0, A, 0.9)],
        {"AP": 0.5, "AP/person": 1, "AP/car": 0, "AR100": 0.5},
    ),
    # an object of 8 x 8 px belongs to the bin that starts at 8 only
    "bins are half-open": (
        [(0, 0, (10, 10, 18, 18))],
        [(0, 0, (10, 10, 18, 18), 0.9)],
        {"AP/<8": NAN, "AP/8-16": 1, "AP50/8-16": 1, "AP/>=16": NAN, "AP50/>=16": NAN},
    ),
    # the small false positive lowers the small bin only: it is out of range in the others
    "false positives count in the bin of their size": (
        [(0, 0, (10, 10, 16, 16)), (0, 0, (30, 30, 60, 60))],
        [
            (0, 0, (80, 80, 85, 85), 0.9),
            (0, 0, (10, 10, 16, 16), 0.8),
            (0, 0, (30, 30, 60, 60), 0.7),
        ],
        {"AP/<8": 0.5, "AP/8-16": NAN, "AP/>=16": 1, "AP": 2 / 3},
    ),
    "nothing predicted": (
        [(0, 0, A)],
        [],
        {"AP": 0, "AP50": 0, "AR100": 0, "AP/person": 0, "AP/8-16": 0, "AP/car": NAN},
    ),
    "no objects": (
        [],
        [(0, 0, A, 0.9)],
        {"AP": NAN, "AR100": NAN, "AP/person": NAN, "AP/<8": NAN, "images": 1, "boxes": 0},
    ),
    "empty slots": (
        [(0, 0, A)],
        [(0, 0, AWAY, 0.0), (0, 0, AWAY, -1.0), (0, 0, A, 0.1)],
        {"AP": 1},
    ),
    "non-finite values": (
        [(0, 0, A)],
        [(0, 0, (NAN, 0, 1, 1), 0.9), (0, 0, AWAY, NAN), (0, 0, AWAY, np.inf), (0, 0, A, 0.1)],
        {"AP": 1},
    ),
    "at most 100 detections": (
        [(0, 0, A)],
        [(0, 0, AWAY, 0.9)] * 100 + [(0, 0, A, 0.5)],
        {"AP": 0},
    ),
}


@pytest.mark.parametrize(("objects", "detections", "expected"), CASES.values(), ids=CASES)
def test_scores_by_hand(objects, detections, expected):
    scores = score(predictions_of(*detections), truth_of(*objects), BINS)
    assert {k: scores[k] for k in expected} == pytest.approx(expected, nan_ok=True, abs=1e-9)


def test_images_are_ranked_together():
    truth = truth_of((0, 0, A), (1, 0, A), images=2)
    predictions = predictions_of((0, 0, A, 0.3), (1, 0, AWAY, 0.9), (1, 0, A, 0.2), images=2)
    scores = score(predictions, truth, {})
    # false, true, true: precision 2/3 at full recall, and no higher before
    assert scores["AP"] == pytest.approx(2 / 3)
    assert scores["images"] == 2


def test_score_keys():
    subsets = [*CLASSES, *BINS]
    expected = {"AP", "AP50", "AP75", "AR100", "images", "boxes"}
    expected |= {f"{m}/{subset}" for m in ("AP", "AP50") for subset in subsets}
    assert set(score(predictions_of(), truth_of(), BINS)) == expected


def test_score_prints_nothing_and_does_not_change_truth(capsys):
    truth = truth_of((0, 0, A), (0, 0, B, "crowd"))
    before = copy.deepcopy(truth)
    score(predictions_of((0, 0, A, 0.9)), truth, BINS)
    assert truth == before
    assert capsys.readouterr().out == ""


def test_another_number_of_images_raises():
    with pytest.raises(ValueError, match="predictions for 2 images, but truth has 1 images"):
        score(predictions_of(images=2), truth_of(), {})


@pytest.mark.parametrize("label", [-1, 2])
def test_unknown_class_raises(label):
    with pytest.raises(ValueError, match="2 classes"):
        score(predictions_of((0, label, A, 0.9)), truth_of(), {})


@pytest.mark.parametrize("cores", [1, 2, 3, 64])
def test_run_in_processes_keeps_the_order_of_jobs(cores, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    jobs = [
        (predictions_of(*detections), truth_of(*objects), BINS)
        for objects, detections, _ in [*CASES.values()][:5]
    ]
    for scores, job in zip(run_in_processes(jobs), jobs, strict=True):
        np.testing.assert_equal(scores, score(*job))
