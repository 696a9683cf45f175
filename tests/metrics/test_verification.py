"""Verification rates, compared with scikit-learn's ROC curve and with values computed by hand."""

import tracemalloc

import numpy as np
import pytest

from tests.metrics.make_verification_references import CASES, FILE, draw
from tests.metrics.recognition_case import make_split
from tinyjax.data.records import RetrievalProtocol, Trial
from tinyjax.metrics.verification import Curve, nearest_rate, score


def load_case(name):
    embedding, labels, modality = draw(name)
    trial = Trial(np.flatnonzero(modality), np.flatnonzero(modality == 0))
    return embedding, make_split(labels, face=RetrievalProtocol((trial,)))


@pytest.mark.parametrize("max_pairs", [1, 2000, 10**6])
@pytest.mark.parametrize("name", CASES)
def test_rates_of_sklearn(name, max_pairs):
    with np.load(FILE) as references:
        rate, far = references[name]
    scores = score(*load_case(name), max_pairs)["face"].scores
    assert [scores["VR@1.0%"], scores["VR@0.1%"]] == pytest.approx(rate, abs=1e-12)
    assert [scores["FAR@1.0%"], scores["FAR@0.1%"]] == pytest.approx(far, abs=1e-12)


def curve(*steps):
    """steps: (genuine, impostors) at falling similarities."""
    genuine, impostors = np.array(steps).T
    return Curve(-np.arange(len(steps), dtype=float), genuine, impostors)


def test_nearest_corner_by_hand():
    """(FAR, rate): (0, 0) (0, .5) (.1, .5) (.2, .5) (.2, .75) (1, 1); (.1, .5) is no corner."""
    steps = curve((2, 0), (0, 1), (0, 1), (1, 0), (1, 8))
    assert nearest_rate(steps, 4, 10, 0.04) == (0.5, 0)
    assert nearest_rate(steps, 4, 10, 0.12) == (0.75, 0.2)
    assert nearest_rate(steps, 4, 10, 0.1) == (0.75, 0.2)  # two as near: the higher FAR
    assert nearest_rate(steps, 4, 10, 0.9) == (1, 1)
    assert np.isnan(nearest_rate(steps, 0, 10, 0.1)).all()
    assert np.isnan(nearest_rate(steps, 4, 0, 0.1)).all()


def test_few_impostor_pairs_are_stated():
    (notice,) = score(*load_case("few pairs"))["face"].notices
    assert notice == (
        "face: VR@0.1% is not reliable: 180 impostor pairs are fewer than 1 / FAR = 1000"
    )
    assert score(*load_case("continuous"))["face"].notices == ()


def test_pairs_that_are_not_compared_are_not_counted():
    embedding = np.eye(4, dtype=np.float32)[[0, 1, 0, 1, 2, 3]]
    trial = Trial(np.array([0, 1]), np.array([2, 3, 4, 5]))
    protocol = RetrievalProtocol((trial,), skipped_cameras=frozenset({(0, 1)}))
    split = make_split([0, 1, 0, 1, 2, 3], [0, 0, 0, 0, 0, 1], [0, 1, 2, 3, 0, 5], face=protocol)
    scores = score(embedding, split)["face"].scores
    # sample 5 is from a skipped camera, samples 0 and 4 are one capture
    assert (scores["genuine pairs"], scores["impostor pairs"]) == (2, 3)
    assert (scores["R1"], scores["VR@0.1%"], scores["FAR@0.1%"]) == (1, 1, 0)


def test_scores_are_means_over_trials():
    embedding, split = load_case("few pairs")
    (trial,) = split.protocols["face"].trials
    halves = tuple(trial._replace(query=trial.query[rows]) for rows in (slice(8), slice(8, 15)))
    result = score(embedding, split._replace(protocols={"face": RetrievalProtocol(halves)}))["face"]
    values = [t["VR@1.0%"] for t in result.trials]
    assert values[0] != values[1]
    assert result.scores["VR@1.0%"] == pytest.approx(np.mean(values))


def test_nan_and_equal_embeddings_are_never_right():
    embedding, split = load_case("few pairs")
    for constant in (np.full_like(embedding, np.nan), np.ones_like(embedding)):
        scores = score(constant, split)["face"].scores
        assert (scores["VR@1.0%"], scores["FAR@1.0%"]) == (0, 0)


def test_memory_is_bounded():
    """One float64 for each of a million pairs would take 8 MB."""
    labels = np.arange(2000) % 50
    trial = Trial(np.arange(1000), np.arange(1000, 2000))
    split = make_split(labels, face=RetrievalProtocol((trial,)))
    embedding = np.random.RandomState(0).standard_normal((2000, 4)).astype(np.float32)
    tracemalloc.start()
    score(embedding, split, max_pairs=2**14)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6, peak
