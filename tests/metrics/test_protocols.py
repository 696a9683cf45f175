"""The protocols of `score.protocol`, on whole suites and on slices."""

import numpy as np
import pytest

from tests.metrics.handmade import predictions_of, truth_of
from tests.metrics.test_lvis import federated, random_set
from tinyjax.metrics import detection, lvis, protocols, voc
from tinyjax.metrics.detection_slices import evaluate_slices
from tinyjax.metrics.slices import ALL_IMAGES, Slice, resample_counts

BINS = {"<16": (0, 16)}
SCORES = {
    "coco": lambda p, t: detection.score(p, t, BINS),
    "voc2007": lambda p, t: voc.score(p, t, eleven_point=True),
    "voc": voc.score,
    "lvis": lambda p, t: lvis.score(p, t, BINS),
}


@pytest.fixture(scope="module")
def scene():
    return random_set(1)


def test_protocols_give_different_scores(scene):
    truth, predictions = scene
    assert [*SCORES] == [*protocols.PROTOCOLS]
    ap50 = set()
    for protocol, expected in SCORES.items():
        scores = protocols.score(predictions, truth, BINS, protocol)
        assert scores == pytest.approx(expected(predictions, truth), nan_ok=True)
        assert {"AP", "AP50", "AP75", "AP/car", "AP50/car", "images", "boxes"} <= scores.keys()
        ap50.add(round(scores["AP50"], 6))
    assert len(ap50) == len(SCORES)


@pytest.mark.parametrize("protocol", SCORES)
def test_slices_are_scored_as_suites(scene, protocol):
    truth, predictions = scene
    images = np.array([1, 2, 5])
    slices = {"some": Slice(images), "cars": Slice(np.arange(8), ("car",))}
    result = evaluate_slices(
        predictions, truth, BINS, slices, resample_counts(8, 5), protocol=protocol
    )
    expected = SCORES[protocol](predictions, truth)
    assert {k: result.scores[ALL_IMAGES][k] for k in expected} == pytest.approx(
        expected, nan_ok=True
    )
    cars = result.scores["cars"]
    assert cars["AP"] == cars["AP/car"] == pytest.approx(expected["AP/car"])
    numbers = {image: k for k, image in enumerate(images.tolist())}
    subset = {
        **truth,
        "images": [{**truth["images"][i], "id": k} for i, k in numbers.items()],
        "annotations": [
            {**a, "image_id": numbers[a["image_id"]]}
            for a in truth["annotations"]
            if a["image_id"] in numbers
        ],
    }
    rows = {name: array[images] for name, array in predictions.items()}
    expected = SCORES[protocol](rows, subset)
    some = result.scores["some"]
    assert {k: some[k] for k in expected} == pytest.approx(expected, nan_ok=True)


def test_resampled_scores_and_calibration_use_federated_labels():
    box, away = (10, 10, 20, 20), (50, 50, 60, 60)
    truth = federated(truth_of((0, 0, box)))  # the other class is not verified to be absent
    predictions = predictions_of((0, 1, away, 0.9), (0, 0, box, 1.0))
    counts = np.ones((1, 1), np.int32)
    errors = {
        protocol: evaluate_slices(predictions, truth, {}, {}, counts, protocol).scores[""]["ECE"]
        for protocol in ("coco", "lvis")
    }
    assert errors == pytest.approx({"coco": 0.45, "lvis": 0.0})
    truth = federated(truth_of((0, 0, box)), not_exhaustive=[(0, 0)])
    predictions = predictions_of((0, 0, away, 0.9), (0, 0, box, 0.8))
    replicates = {
        protocol: evaluate_slices(predictions, truth, {}, {}, counts, protocol).replicates[""]
        for protocol in ("coco", "lvis")
    }
    assert replicates == {"coco": [0.5], "lvis": [1.0]}
