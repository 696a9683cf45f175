"""A slice is what is scored where only its images are there; a resample is what is scored where
images are there several times. `score` is the judge of both, and pycocotools of `score`.
"""

from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.metrics.handmade import predictions_of, truth_of
from tinyjax.errors import UserError
from tinyjax.metrics.detection import evaluation, loaded, score
from tinyjax.metrics.detection_slices import examine
from tinyjax.metrics.slices import WHOLE, Slice, resamples, slices_of

BINS = {"<16": (0, 16), ">=16": (16, np.inf)}
N = 12


@pytest.fixture(scope="module")
def scene():
    """Objects of two classes, a don't-care region, and detections near to them, lost and false."""
    rng = np.random.default_rng(3)
    objects, found = [], []
    for image in range(N):
        for _ in range(rng.integers(1, 6)):
            x, y, side = rng.uniform(0, 200), rng.uniform(0, 200), rng.uniform(8, 24)
            label, shift = int(rng.integers(2)), rng.normal(0, 2, 2)
            objects.append((image, label, (x, y, x + side, y + side)))
            if rng.random() < 0.8:
                box = (x + shift[0], y + shift[1], x + side, y + side)
                found.append((image, label, box, rng.uniform(0.2, 1)))
        if image % 3 == 0:
            objects.append((image, 0, (300, 300, 360, 360), "crowd"))
            found.append((image, 0, (310, 310, 330, 330), 0.9))
        for _ in range(2):
            x = rng.uniform(0, 200)
            found.append((image, int(rng.integers(2)), (x, x, x + 9, x + 9), rng.uniform(0, 0.8)))
    return objects, found


def numbered(rows, images):
    """The rows of these images, each as often as it is listed, numbered anew."""
    return [(new, *row[1:]) for new, image in enumerate(images) for row in rows if row[0] == image]


def expected(scene, images):
    objects, found = scene
    own = numbered(found, images)
    predictions = predictions_of(*own, images=len(images))
    return score(predictions, truth_of(*numbered(objects, images), images=len(images)), BINS)


@pytest.mark.parametrize("there", ["both", "objects", "detections", "nothing"])
@pytest.mark.parametrize("bins", [{}, BINS, {"<10": (0, 10), "none": (300, 400)}])
def test_scores_are_those_of_pycocotools(scene, bins, there):
    """Every entry of its tables; it adds 2e-16 to what it divides by."""
    crowded = [(2, 0, (3, 3, 9, 9), 0.5)] * 150  # equal scores, and more than are looked at
    objects, found = scene[0], [*scene[1], *crowded]
    objects = objects if there in ("both", "objects") else []
    found = found if there in ("both", "detections") else []
    predictions = predictions_of(*found, images=N)
    truth = truth_of(*objects, images=N)
    ours = evaluation(predictions, truth, bins)
    with redirect_stdout(StringIO()):
        theirs = COCOeval(*loaded(predictions, truth, COCO), "bbox")
        theirs.params.maxDets = [100]
        areas = [(0, np.inf), *((a**2, np.nextafter(b**2, -np.inf)) for a, b in bins.values())]
        theirs.params.areaRng, theirs.params.areaRngLbl = areas, ["all", *bins]
        theirs.evaluate()
        theirs.accumulate()
    precision = theirs.eval["precision"]  # -1 where there is no object
    if there == "both":
        assert 0 < precision[precision >= 0].mean() < 1
    np.testing.assert_allclose(ours.eval["precision"], precision, rtol=0, atol=1e-12)
    np.testing.assert_allclose(ours.eval["recall"], theirs.eval["recall"], rtol=0, atol=1e-12)


def examined(scene, slices, counts):
    objects, found = scene
    predictions = predictions_of(*found, images=N)
    return examine(predictions, truth_of(*objects, images=N), BINS, slices, counts)


def test_a_slice_is_scored_as_if_it_were_alone(scene):
    images = [1, 3, 4, 8, 9]
    found = examined(scene, {"some": Slice(np.array(images))}, resamples(N, 4))
    for name, of in ((WHOLE, range(N)), ("some", images)):
        own = dict(found.scores[name])
        assert 0 <= own.pop("ECE") <= 1
        np.testing.assert_equal(own, expected(scene, [*of]))


def test_a_slice_of_classes_counts_these_alone(scene):
    objects, detections = scene
    cars = Slice(np.arange(N), ("car",))
    found = examined(scene, {"cars": cars}, resamples(N, 4))
    only = [[row for row in rows if row[1] == 1] for rows in (objects, detections)]
    other = expected(only, [*range(N)])
    for name in ("AP", "AP50", "AP/<16", "AR100", "boxes", "images"):
        assert found.scores["cars"][name] == pytest.approx(other[name]), name
    assert found.scores["cars"]["AP"] == found.scores[WHOLE]["AP/car"]


def test_resampled_images_are_scored_as_if_they_were_there_so_often(scene):
    counts = resamples(N, 6)
    some = np.array([0, 2, 5, 6, 7, 10])
    found = examined(scene, {"some": Slice(some)}, counts)
    for name, of in ((WHOLE, np.arange(N)), ("some", some)):
        for b, many in enumerate(counts):
            ours = found.replicates[name][b]
            assert ours == pytest.approx(expected(scene, np.repeat(of, many[of]))["AP50"], abs=1e-6)
    assert np.ptp(found.replicates[WHOLE]) > 0.01


def test_a_set_without_objects_has_no_score(scene):
    none = np.zeros((1, N), int)
    assert np.isnan(examined(scene, {}, none).replicates[WHOLE]).all()


def test_what_is_seen_of_an_image_adds_up(scene):
    objects, _ = scene
    found = examined(scene, {}, resamples(N, 2)).seen
    real = np.bincount([image for image, *_, last in objects if last != "crowd"], minlength=N)
    passing = np.bincount(found["image"], minlength=N)
    crowds = np.array([image % 3 == 0 for image in range(N)])
    missed = real - found["hits"]
    false = found["wrong"] - missed
    np.testing.assert_array_equal(passing - crowds, found["hits"] + false)
    assert (missed >= 0).all()
    assert (false >= 0).all()
    assert found["hits"].sum() > 0
    assert false.sum() > 0


def test_resamples_are_of_the_images_there_and_always_the_same():
    counts = resamples(50)
    assert (counts.sum(1) == 50).all()
    np.testing.assert_array_equal(counts, resamples(50))
    # each image is drawn once on average, and as Poisson's law spreads
    assert counts.mean() == 1
    assert counts.var() == pytest.approx(1, abs=0.1)


INFOS = [
    {"time": "day", "altitude": 60},
    {"time": "night", "altitude": 90},
    {"time": "day", "altitude": 130},
    {"altitude": 30},
]


def test_slices_by_value_and_by_bins():
    found = slices_of(INFOS, {"time": (), "altitude": (60, 90, 131)})
    expected = {"time=day": [0, 2], "time=night": [1], "altitude=60-90": [0],
                "altitude=90-131": [1, 2]}  # fmt: skip
    assert {name: own.images.tolist() for name, own in found.items()} == expected
    assert slices_of(INFOS, {"session": ()}) == {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"altitude": (90, 60)}, "edges that rise"),
        ({"altitude": (90,)}, "edges that rise"),
        ({"time": (0, 1)}, "data.slices.time: day, night"),
    ],
)
def test_slices_that_are_none(fields, message):
    with pytest.raises(UserError, match=message):
        slices_of(INFOS, fields)
