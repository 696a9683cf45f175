"""Robustness numbers, compared with values computed by hand."""

from itertools import pairwise

import numpy as np
import pytest

from tinyjax.errors import UserError
from tinyjax.metrics import robustness

NAN = float("nan")


def test_gap_and_relative_drop_by_hand():
    in_domain, shifted = np.array([0.5, 0.8, 0.0]), np.array([0.2, 0.9, 0.0])
    np.testing.assert_allclose(robustness.gap(in_domain, shifted), [0.3, -0.1, 0.0], atol=1e-12)
    np.testing.assert_allclose(robustness.relative_drop(in_domain, shifted), [0.6, -0.125, NAN])
    assert robustness.relative_drop(0.5, 0.2) == pytest.approx(0.6)


def test_mpc_and_rpc_by_hand():
    grid = {("fog", 1): 0.4, ("fog", 5): 0.2, ("blur", 1): 0.3, ("blur", 5): 0.1}
    assert robustness.mpc(grid) == pytest.approx(0.25)
    assert robustness.rpc(0.25, 0.5) == pytest.approx(0.5)
    assert np.isnan(robustness.rpc(0.0, 0.0))
    members = {key: np.array([value, 2 * value, NAN]) for key, value in grid.items()}
    np.testing.assert_allclose(robustness.mpc(members), [0.25, 0.5, NAN])


def test_rpc_matches_the_published_benchmark():
    """Faster R-CNN R50-FPN on COCO-C, Pascal-C and Cityscapes-C, from the benchmark's tables."""
    result = robustness.rpc(np.array([18.2, 48.6, 12.2]), np.array([36.3, 80.5, 36.4]))
    np.testing.assert_allclose(result, [0.502, 0.604, 0.334], atol=0.0015)


def test_mpc_requires_all_severities_of_all_corruptions():
    grid = {("fog", 1): 0.4, ("fog", 2): 0.2, ("blur", 1): 0.3}
    with pytest.raises(UserError, match=r"no score for blur 2; every corruption needs the same"):
        robustness.mpc(grid)
    with pytest.raises(UserError, match="severity 1 or higher"):
        robustness.mpc({("fog", 0): 0.4})
    with pytest.raises(UserError, match="corrupted sets"):
        robustness.mpc({})


def test_worst_slice_has_enough_objects():
    scores = {"day": 0.5, "night": 0.3, "rain": 0.1, "snow": NAN, "dusk": 0.3}
    sizes = {"day": 900, "night": 50, "rain": 49, "snow": 100, "dusk": 60}
    assert robustness.worst_slice(scores, sizes) == ("night", 0.3)
    assert robustness.worst_slice(scores, sizes, min_size=1) == ("rain", 0.1)
    name, score = robustness.worst_slice(scores, sizes, min_size=1000)
    assert name == ""
    assert np.isnan(score)


def test_calibration_error_by_hand():
    confidence = np.array([0.95, 0.95, 0.95, 0.95, 0.5, 0.5, 0.0])
    correct = np.array([True, True, True, False, False, False, False])
    # |0.95 - 0.75| for four, |0.5 - 0| for two, 0 for one
    assert robustness.calibration_error(confidence, correct) == pytest.approx(
        (4 * 0.2 + 2 * 0.5) / 7
    )
    # without confidences of 0.5 and less
    assert robustness.calibration_error(confidence, correct, 0.51) == pytest.approx(0.2)
    assert robustness.calibration_error(confidence, correct, 0.5) == pytest.approx(1.8 / 6)
    assert np.isnan(robustness.calibration_error(confidence, correct, 0.96))


def test_confidence_bins_contain_their_upper_edge():
    correct = np.array([True, False])
    # 1/15 and 0.0667 are in different bins, 1/15 and 0.0665 in the same
    assert robustness.calibration_error(np.array([1 / 15, 0.0667]), correct) == pytest.approx(
        (14 / 15 + 0.0667) / 2
    )
    assert robustness.calibration_error(np.array([1 / 15, 0.0665]), correct) == pytest.approx(
        (1 - 1 / 15 - 0.0665) / 2
    )


def test_calibration_error_matches_its_definition():
    rng = np.random.default_rng(0)
    confidence = rng.random(5000)
    correct = rng.random(5000) < confidence**2
    edges = np.linspace(0, 1, 16)
    total = 0.0
    for low, high in pairwise(edges):
        mask = (confidence > low) & (confidence <= high)
        total += mask.mean() * abs(correct[mask].mean() - confidence[mask].mean())
    assert robustness.calibration_error(confidence, correct) == pytest.approx(total)
    assert total == pytest.approx(1 / 6, abs=0.02)  # the integral of p - p²
