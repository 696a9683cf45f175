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


@pytest.mark.parametrize("protocol", SCORES)
def test_resampled_scores_are_those_of_the_protocol(scene, protocol):
    """Each image once, and the images 0, 0 and 3."""
    truth, predictions = scene
    images = [0, 0, 3]
    counts = np.array([[1] * 8, np.bincount(images, minlength=8)])
    result = evaluate_slices(predictions, truth, {}, {}, counts, protocol)
    repeated = {
        **truth,
        "images": [{**truth["images"][i], "id": k} for k, i in enumerate(images)],
        "annotations": [
            {**a, "image_id": k}
            for k, i in enumerate(images)
            for a in truth["annotations"]
            if a["image_id"] == i
        ],
    }
    rows = {name: array[images] for name, array in predictions.items()}
    expected = [
        protocols.score(p, t, {}, protocol)["AP50"]
        for p, t in ((predictions, truth), (rows, repeated))
    ]
    np.testing.assert_allclose(result.replicates[ALL_IMAGES], expected, rtol=1e-6)


def test_matches_of_pascal_voc_by_hand():
    """The second detection of an object is false, even with another object nearby; a detection of a
    difficult object does not count; an IoU of 0.5 is not enough.
    """
    near, other, difficult = (0, 0, 10, 10), (0, 2, 10, 14), (50, 50, 60, 60)
    truth = truth_of(
        (0, 0, near), (0, 0, other), (0, 0, difficult, "crowd"), (1, 1, near), images=2
    )
    predictions = predictions_of(
        (0, 0, near, 0.7), (0, 0, (0, 1, 10, 11), 0.8), (0, 0, difficult, 0.9),
        (1, 1, (0, 0, 10, 5), 0.6), (1, 0, near, 0.5), images=2,
    )  # fmt: skip
    matches = protocols.match(predictions, truth, "voc2007")
    detections, objects = matches.detections, matches.objects
    assert detections.score.tolist() == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5])
    assert list(zip(detections.image, detections.slot, strict=True)) == [
        (0, 2), (0, 1), (0, 0), (1, 3), (1, 4)
    ]  # fmt: skip
    assert detections.true_positive.tolist() == [False, True, False, False, False]
    assert detections.false_positive.tolist() == [False, False, True, True, True]
    assert (objects.image.tolist(), objects.label.tolist()) == ([0, 0, 1], [0, 0, 1])
    assert objects.match_score.tolist() == pytest.approx([0.8, -np.inf, -np.inf])
    # Precision 1 up to recall 1/2; class 1 has a false positive only.
    np.testing.assert_array_equal(matches.precision[0], np.arange(101) <= 50)
    np.testing.assert_array_equal(matches.precision[1], 0)
    coco = protocols.match(predictions, truth, "coco")
    assert coco.detections.true_positive.sum() == 3


def test_lvis_matches_more_than_100_detections_of_a_class():
    box, away = (10, 10, 20, 20), (50, 50, 60, 60)
    truth = federated(truth_of((0, 0, box)))
    predictions = predictions_of(*[(0, 0, away, 0.9)] * 120, (0, 0, box, 0.8))
    matches = [protocols.match(predictions, truth, p) for p in ("coco", "lvis")]
    assert [m.detections.true_positive.sum() for m in matches] == [0, 1]


def test_confusion_counts_no_detections_of_unverified_classes():
    box, away = (10, 10, 20, 20), (50, 50, 60, 60)
    truth = federated(truth_of((0, 0, box)))
    predictions = predictions_of((0, 1, away, 0.9), (0, 0, box, 0.8))
    tables = [protocols.confusion_matrix(predictions, truth, 0.1, p) for p in ("coco", "lvis")]
    assert [table.tolist() for table in tables] == [
        [[1, 0, 0], [0, 0, 0], [0, 1, 0]],
        [[1, 0, 0], [0, 0, 0], [0, 0, 0]],
    ]


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
