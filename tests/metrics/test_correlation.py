"""Rank correlation over networks, its interval, and its sensitivity to single networks."""

import numpy as np
import pytest

from tinyjax.metrics.correlation import MIN_NETWORKS, correlation, mean_rank_correlation

# Data of Mind the Backbone (the authors' analysis script). A row per backbone: relative gradient
# norm, gain of fine-tuning on Comic, Watercolor and Clipart, and on Pascal.
PUBLISHED = np.array(
    [
        [1.34, -6.6, -0.2, -2.4, 8.0],
        [0.574, 0.33, 7.13, 5.21, 15.1],
        [0.302, 1.12, 8.21, 1.84, 10.3],
        [0.299, -0.4, 2.3, -1.1, 8.9],
        [0.130, -0.2, 5.6, 2.9, 20.9],
        [0.115, 1.37, 4.99, 1.34, 20.4],
        [0.065, 0.72, 8.00, 5.74, 10.5],
        [0.06, 4.5, 6.8, 2.9, 13.2],
        [0.055, 3.18, 8.09, 6.02, 13.9],
        [0.032, 0.82, -0.07, 2.13, 12.3],
    ]
)


@pytest.mark.parametrize(("column", "expected"), [(1, -0.60), (2, -0.13), (3, -0.43)])
def test_published_numbers(column, expected):
    """Reference values are scipy's; the intervals of all three contain zero, or nearly so."""
    rgn, fraction = PUBLISHED[:, 0], PUBLISHED[:, column] / PUBLISHED[:, 4]
    result = correlation(rgn, fraction, np.arange(10))
    assert result.value == pytest.approx(expected, abs=0.005)
    assert result.networks == 10
    assert result.low < result.value < result.high
    assert result.leave_one_out[0] <= result.value <= result.leave_one_out[1]


def test_correlation_by_hand():
    """Ranks 1 2 3 4 5 6 against 2 1 4 3 6 5: 1 - 6 * 6 / (6 * 35)."""
    x, y = np.arange(6.0) ** 3, np.array([2, 1, 4, 3, 6, 5.0])
    result = correlation(x, y, np.array([*"abcdef"]))
    value = 1 - 36 / 210
    error = 1.959964 * np.sqrt((1 + value**2 / 2) / 3)
    assert result.value == pytest.approx(value)
    assert (result.low, result.high) == pytest.approx(
        np.tanh(np.arctanh(value) + error * np.array([-1, 1]))
    )
    # without one of the second pair: ranks 1 2 3 4 5 against 2 1 3 5 4, 1 - 6 * 4 / (5 * 24)
    assert result.leave_one_out == pytest.approx((1 - 24 / 120, 1 - 24 / 120))


def test_leave_one_out_shows_dependence_on_one_network():
    x = np.array([1, 2, 3, 4, 5, 6, 7.0])
    y = np.array([3, 4, 3.5, 3.2, 3.9, 3.1, 9])
    result = correlation(x, y, np.arange(7))
    assert result.leave_one_out[0] < 0.1 < 0.3 < result.value


def test_seeds_do_not_count_as_networks():
    rng = np.random.default_rng(0)
    networks = np.repeat(np.arange(8), 3)
    x, y = networks + rng.normal(0, 0.1, 24), -networks + rng.normal(0, 0.1, 24)
    result = correlation(x, y, networks)
    assert result.networks == 8
    assert result.value == pytest.approx(-1)
    means = correlation(x.reshape(8, 3).mean(1), y.reshape(8, 3).mean(1), np.arange(8))
    assert result == means
    y[0] = np.nan  # one seed of one network is missing
    assert correlation(x, y, networks).networks == 8


@pytest.mark.parametrize("count", [0, 1, MIN_NETWORKS - 1])
def test_too_few_networks_give_nan(count):
    result = correlation(np.arange(count), np.arange(count), np.arange(count))
    assert result.networks == count
    assert np.isnan([result.value, result.low, result.high]).all()


def test_a_constant_variable_gives_nan():
    assert np.isnan(correlation(np.ones(8), np.arange(8), np.arange(8)).value)


def test_mean_rank_correlation_by_hand():
    """Ranks of a are 1 2 3 4 5 6 and 2 1 3 4 5 6, those of b twice 1 2 3 4 6 5: mean ranks
    1.5 1.5 3 4 5 6 against 1 2 3 4 6 5. Units and monotone transforms do not matter.
    """
    names = np.array([*"abcdef"])
    a = np.array([[1, 2, 3, 4, 5, 6.0], [20, 10, 30, 40, 50, 60]])
    b = np.array([1, 2, 3, 4, 6, 5.0])
    result = mean_rank_correlation([(a[0], b, names), (a[1], b**3, names)])
    assert result == correlation(np.array([1.5, 1.5, 3, 4, 5, 6]), b, names)
    assert mean_rank_correlation([(a[0], b, names)] * 9) == correlation(
        a[0], b, names
    )  # not narrower


def test_only_networks_of_all_comparisons_count():
    x, names = np.arange(8.0), np.array([*"abcdefgh"])
    odd = np.array([9, *x[1:-1], -9])  # the second comparison lacks the first and the last network
    result = mean_rank_correlation([(odd, x, names), (x[1:-1], x[1:-1], names[1:-1])])
    assert (result.networks, result.value) == (6, pytest.approx(1))
    assert np.isnan(
        mean_rank_correlation([(x[:5], x[:5], names[:5]), (x[3:], x[3:], names[3:])]).value
    )
    assert mean_rank_correlation([]).networks == 0


@pytest.mark.parametrize(("networks", "slope"), [(6, 0.0), (6, 0.9), (12, 0.6)])
def test_interval_coverage(networks, slope):
    """400 draws of normal pairs, 95 % expected; the truth follows from Pearson's correlation."""
    rng = np.random.default_rng(networks)
    truth, covered = 6 / np.pi * np.arcsin(slope / 2), 0
    for _ in range(400):
        x, other = rng.normal(size=(2, networks))
        result = correlation(x, slope * x + np.sqrt(1 - slope**2) * other, np.arange(networks))
        covered += result.low <= truth <= result.high
    assert 0.91 < covered / 400 < 0.99
