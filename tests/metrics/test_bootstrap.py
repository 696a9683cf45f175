"""Intervals over seeds and images: values computed by hand, and simulated coverage."""

import numpy as np
import pytest

from benchmarks import coverage
from tinyjax.metrics import bootstrap

SHIFTS = np.array([-0.02, 0.0, 0.02])  # of three resamples: variance 0.0004


def test_interval_by_hand():
    """Images move all seeds alike: variance 0.0004. Seeds: variance 0.01, t of 2 is 4.302653."""
    points = np.array([0.4, 0.5, 0.6])
    result = bootstrap.interval(points, points[:, None] + SHIFTS)
    half = np.sqrt(4.302653**2 * 0.01 / 3 + 1.959964**2 * 0.0004)
    assert result == pytest.approx((0.5, 0.5 - half, 0.5 + half, 3), abs=1e-6)


def test_image_variance_excludes_variation_of_single_seeds():
    """Images move the first two seeds in opposite directions: their covariance is negative."""
    replicates = 0.5 + np.stack([SHIFTS, -SHIFTS])
    assert bootstrap.image_variance(replicates) == 0
    rng = np.random.default_rng(0)
    common, single = rng.normal(0, 0.02, 20_000), rng.normal(0, 0.05, (3, 20_000))
    assert bootstrap.image_variance(common + single) == pytest.approx(0.0004, rel=0.1)


def test_one_seed_gives_an_interval_over_images():
    result = bootstrap.interval(np.array([0.5]), 0.5 + SHIFTS[None])
    assert result == pytest.approx((0.5, 0.5 - 0.0392, 0.5 + 0.0392, 1), abs=1e-5)


def test_nan_is_left_out():
    points = np.array([0.4, np.nan, 0.6])
    replicates = points[:, None] + SHIFTS
    result = bootstrap.interval(points, replicates)
    assert result == bootstrap.interval(points[[0, 2]], replicates[[0, 2]])
    assert result.seeds == 2
    with_nan = np.concatenate([replicates, np.full((3, 2), np.nan)], 1)
    assert bootstrap.interval(points, with_nan) == result
    assert np.isnan(bootstrap.interval(points[1:2], replicates[1:2])[:3]).all()
    value, low, high, seeds = bootstrap.interval(points, with_nan[:, -2:])
    assert (value, seeds) == (0.5, 2)
    assert np.isnan([low, high]).all()  # without any resample


def test_paired_difference_cancels_shared_variation():
    rng = np.random.default_rng(0)
    seeds, images = rng.normal(0, 0.1, (4, 1)), rng.normal(0, 0.1, 200)
    first = 0.6 + seeds + images
    second = 0.5 + seeds + images
    result = bootstrap.interval((first - second)[:, 0], first - second)
    assert result == pytest.approx((0.1, 0.1, 0.1, 4), abs=1e-6)
    mismatched = first - second[::-1]
    other = bootstrap.interval(mismatched[:, 0], mismatched)
    assert other.high - other.low > 0.05  # the pairs have different seeds


@pytest.mark.parametrize(("seeds", "paired"), [(3, False), (3, True), (5, True)])
def test_interval_coverage(seeds, paired):
    """400 simulations: a fraction of 95 % has a standard error of 1.1 %."""
    fraction, percentiles = coverage.interval_coverage(seeds, 0.5, paired, 400)
    assert 0.92 <= fraction <= 0.985
    assert percentiles < 0.93  # too narrow, which is why `interval` does not use them


@pytest.mark.slow
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("spread", coverage.SPREADS)
@pytest.mark.parametrize("seeds", [3, 4, 10])
def test_coverage_is_as_documented(seeds, spread, paired):
    assert 0.93 <= coverage.interval_coverage(seeds, spread, paired, 1000)[0] <= 0.985
