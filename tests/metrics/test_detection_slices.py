"""Scores of slices and resamples, compared with `score` on exactly these images; `score` itself is
compared with pycocotools.
"""

from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.metrics.handmade import predictions_of, truth_of
from tinyjax.errors import UserError
from tinyjax.metrics.detection import evaluate, load_coco, score
from tinyjax.metrics.detection_slices import evaluate_slices
from tinyjax.metrics.slices import (
    ALL_IMAGES,
    Slice,
    class_slice_name,
    resample_counts,
    slices_by_field,
)

BINS = {"<16": (0, 16), ">=16": (16, np.inf)}
N = 12


@pytest.fixture(scope="module")
def scene():
    """Objects of two classes, ignored regions, and detections: matching, missing and false."""
    rng = np.random.default_rng(3)
    objects, detections = [], []
    for image in range(N):
        for _ in range(rng.integers(1, 6)):
            x, y, side = rng.uniform(0, 200), rng.uniform(0, 200), rng.uniform(8, 24)
            label, shift = int(rng.integers(2)), rng.normal(0, 2, 2)
            objects.append((image, label, (x, y, x + side, y + side)))
            if rng.random() < 0.8:
                box = (x + shift[0], y + shift[1], x + side, y + side)
                detections.append((image, label, box, rng.uniform(0.2, 1)))
        if image % 3 == 0:
            objects.append((image, 0, (300, 300, 360, 360), "crowd"))
            detections.append((image, 0, (310, 310, 330, 330), 0.9))
        for _ in range(2):
            x = rng.uniform(0, 200)
            detections.append(
                (image, int(rng.integers(2)), (x, x, x + 9, x + 9), rng.uniform(0, 0.8))
            )
    return objects, detections


def renumber(rows, images):
    """Rows of the listed images, repeated as often as an image is listed, with new numbers."""
    return [(new, *row[1:]) for new, image in enumerate(images) for row in rows if row[0] == image]


def expected(scene, images):
    objects, detections = scene
    rows = renumber(detections, images)
    predictions = predictions_of(*rows, images=len(images))
    return score(predictions, truth_of(*renumber(objects, images), images=len(images)), BINS)


@pytest.mark.parametrize("present", ["both", "objects", "detections", "nothing"])
@pytest.mark.parametrize("bins", [{}, BINS, {"<10": (0, 10), "none": (300, 400)}])
def test_scores_match_pycocotools(scene, bins, present):
    """All entries of its tables; pycocotools adds 2e-16 to denominators."""
    crowded = [(2, 0, (3, 3, 9, 9), 0.5)] * 150  # equal scores, and more than the limit of 100
    objects, detections = scene[0], [*scene[1], *crowded]
    objects = objects if present in ("both", "objects") else []
    detections = detections if present in ("both", "detections") else []
    predictions = predictions_of(*detections, images=N)
    truth = truth_of(*objects, images=N)
    current = evaluate(predictions, truth, bins)
    with redirect_stdout(StringIO()):
        reference = COCOeval(*load_coco(predictions, truth, COCO), "bbox")
        reference.params.maxDets = [100]
        areas = [(0, np.inf), *((a**2, np.nextafter(b**2, -np.inf)) for a, b in bins.values())]
        reference.params.areaRng, reference.params.areaRngLbl = areas, ["all", *bins]
        reference.evaluate()
        reference.accumulate()
    precision = reference.eval["precision"]  # -1 without objects
    if present == "both":
        assert 0 < precision[precision >= 0].mean() < 1
    np.testing.assert_allclose(current.eval["precision"], precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(current.eval["recall"], reference.eval["recall"], rtol=0, atol=1e-12)


def run_evaluate_slices(scene, slices, counts):
    objects, detections = scene
    predictions = predictions_of(*detections, images=N)
    return evaluate_slices(predictions, truth_of(*objects, images=N), BINS, slices, counts)


def test_slice_scores_match_a_set_of_these_images(scene):
    images = [1, 3, 4, 8, 9]
    result = run_evaluate_slices(scene, {"some": Slice(np.array(images))}, resample_counts(N, 4))
    for name, indices in ((ALL_IMAGES, range(N)), ("some", images)):
        scores = dict(result.scores[name])
        assert 0 <= scores.pop("ECE") <= 1
        np.testing.assert_equal(scores, expected(scene, [*indices]))


def test_slice_of_classes_scores_only_these(scene):
    objects, detections = scene
    cars = Slice(np.arange(N), ("car",))
    result = run_evaluate_slices(scene, {"cars": cars}, resample_counts(N, 4))
    car_rows = [[row for row in rows if row[1] == 1] for rows in (objects, detections)]
    other = expected(car_rows, [*range(N)])
    for name in ("AP", "AP50", "AP/<16", "AR100", "boxes", "images"):
        assert result.scores["cars"][name] == pytest.approx(other[name]), name
    assert result.scores["cars"]["AP"] == result.scores[ALL_IMAGES]["AP/car"]


def test_resampled_ap50_matches_repeated_images(scene):
    counts = resample_counts(N, 6)
    some = np.array([0, 2, 5, 6, 7, 10])
    result = run_evaluate_slices(scene, {"some": Slice(some)}, counts)
    for name, indices in ((ALL_IMAGES, np.arange(N)), ("some", some)):
        for b, count in enumerate(counts):
            ap50 = result.replicates[name][b]
            assert ap50 == pytest.approx(
                expected(scene, np.repeat(indices, count[indices]))["AP50"], abs=1e-6
            )
    assert np.ptp(result.replicates[ALL_IMAGES]) > 0.01


def test_classes_are_resampled_as_their_slices(scene):
    slices = {name: Slice(np.arange(N), (name,)) for name in ("car", "person")}
    result = run_evaluate_slices(scene, slices, resample_counts(N, 6))
    for name in slices:
        by_class = result.replicates[class_slice_name([name])]
        assert by_class == pytest.approx(result.replicates[name])
        assert np.ptp(by_class) > 0.01


def test_resample_without_objects_is_nan(scene):
    empty = np.zeros((1, N), int)
    assert np.isnan(run_evaluate_slices(scene, {}, empty).replicates[ALL_IMAGES]).all()


def test_detections_and_errors_of_an_image_add_up(scene):
    objects, _ = scene
    arrays = run_evaluate_slices(scene, {}, resample_counts(N, 2)).examples
    num_objects = np.bincount(
        [image for image, *_, last in objects if last != "crowd"], minlength=N
    )
    passing = np.bincount(arrays["image"], minlength=N)
    crowds = np.array([image % 3 == 0 for image in range(N)])
    missed = num_objects - arrays["hits"]
    false = arrays["wrong"] - missed
    np.testing.assert_array_equal(passing - crowds, arrays["hits"] + false)
    assert (missed >= 0).all()
    assert (false >= 0).all()
    assert arrays["hits"].sum() > 0
    assert false.sum() > 0


def test_resample_counts_are_reproducible():
    counts = resample_counts(50)
    assert (counts.sum(1) == 50).all()
    np.testing.assert_array_equal(counts, resample_counts(50))
    # each image is drawn once on average, with the variance of a Poisson distribution
    assert counts.mean() == 1
    assert counts.var() == pytest.approx(1, abs=0.1)


INFOS = [
    {"time": "day", "altitude": 60},
    {"time": "night", "altitude": 90},
    {"time": "day", "altitude": 130},
    {"altitude": 30},
]


def test_slices_by_value_and_bins():
    slices = slices_by_field(INFOS, {"time": (), "altitude": (60, 90, 131)})
    expected = {"time=day": [0, 2], "time=night": [1], "altitude=60-90": [0],
                "altitude=90-131": [1, 2]}  # fmt: skip
    assert {name: subset.images.tolist() for name, subset in slices.items()} == expected
    assert slices_by_field(INFOS, {"session": ()}) == {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"altitude": (90, 60)}, "ascending edges"),
        ({"altitude": (90,)}, "ascending edges"),
        ({"time": (0, 1)}, "data.slices.time: only numbers can be binned, not day, night"),
    ],
)
def test_invalid_slices(fields, message):
    with pytest.raises(UserError, match=message):
        slices_by_field(INFOS, fields)
