"""Rank correlation over networks, its interval, and what it hangs on."""

import numpy as np
import pytest

from tinyjax.metrics.correlation import LEAST, correlation, of_mean_ranks

# What the authors of Mind the Backbone correlate (their analysis script): of ten backbones the
# relative gradient norm, what fine-tuning gains on Comic, Watercolor and Clipart, and on Pascal.
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
    """Counted by scipy from the same numbers; the intervals of all three hold zero or nearly so."""
    rgn, kept = PUBLISHED[:, 0], PUBLISHED[:, column] / PUBLISHED[:, 4]
    found = correlation(rgn, kept, np.arange(10))
    assert found.value == pytest.approx(expected, abs=0.005)
    assert found.networks == 10
    assert found.low < found.value < found.high
    assert found.without[0] <= found.value <= found.without[1]


def test_by_hand():
    """Ranks 1 2 3 4 5 6 against 2 1 4 3 6 5: 1 - 6 * 6 / (6 * 35)."""
    x, y = np.arange(6.0) ** 3, np.array([2, 1, 4, 3, 6, 5.0])
    found = correlation(x, y, np.array([*"abcdef"]))
    value = 1 - 36 / 210
    error = 1.959964 * np.sqrt((1 + value**2 / 2) / 3)
    assert found.value == pytest.approx(value)
    assert (found.low, found.high) == pytest.approx(
        np.tanh(np.arctanh(value) + error * np.array([-1, 1]))
    )
    # without the second pair's first, ranks 1 2 3 4 5 against 2 1 3 5 4: 1 - 6 * 4 / (5 * 24)
    assert found.without == pytest.approx((1 - 24 / 120, 1 - 24 / 120))


def test_what_hangs_on_one_network_is_said():
    x = np.array([1, 2, 3, 4, 5, 6, 7.0])
    y = np.array([3, 4, 3.5, 3.2, 3.9, 3.1, 9])
    found = correlation(x, y, np.arange(7))
    assert found.without[0] < 0.1 < 0.3 < found.value


def test_seeds_are_no_further_networks():
    rng = np.random.default_rng(0)
    networks = np.repeat(np.arange(8), 3)
    x, y = networks + rng.normal(0, 0.1, 24), -networks + rng.normal(0, 0.1, 24)
    found = correlation(x, y, networks)
    assert found.networks == 8
    assert found.value == pytest.approx(-1)
    means = correlation(x.reshape(8, 3).mean(1), y.reshape(8, 3).mean(1), np.arange(8))
    assert found == means
    y[0] = np.nan  # one seed less of one network
    assert correlation(x, y, networks).networks == 8


@pytest.mark.parametrize("count", [0, 1, LEAST - 1])
def test_few_networks_say_nothing(count):
    found = correlation(np.arange(count), np.arange(count), np.arange(count))
    assert found.networks == count
    assert np.isnan([found.value, found.low, found.high]).all()


def test_what_is_constant_is_correlated_with_nothing():
    assert np.isnan(correlation(np.ones(8), np.arange(8), np.arange(8)).value)


def test_asked_several_times_of_the_same_networks():
    """By hand: a is ranked 1 2 3 4 5 6 and 2 1 3 4 5 6, b both times 1 2 3 4 6 5; mean ranks 1.5
    1.5 3 4 5 6 against 1 2 3 4 6 5. Units and monotone changes of one time do not matter.
    """
    names = np.array([*"abcdef"])
    a = np.array([[1, 2, 3, 4, 5, 6.0], [20, 10, 30, 40, 50, 60]])
    b = np.array([1, 2, 3, 4, 6, 5.0])
    found = of_mean_ranks([(a[0], b, names), (a[1], b**3, names)])
    assert found == correlation(np.array([1.5, 1.5, 3, 4, 5, 6]), b, names)
    assert of_mean_ranks([(a[0], b, names)] * 9) == correlation(a[0], b, names)  # no narrower


def test_only_networks_that_were_asked_every_time():
    x, names = np.arange(8.0), np.array([*"abcdefgh"])
    odd = np.array([9, *x[1:-1], -9])  # of the first and the last the second time knows nothing
    found = of_mean_ranks([(odd, x, names), (x[1:-1], x[1:-1], names[1:-1])])
    assert (found.networks, found.value) == (6, pytest.approx(1))
    assert np.isnan(of_mean_ranks([(x[:5], x[:5], names[:5]), (x[3:], x[3:], names[3:])]).value)
    assert of_mean_ranks([]).networks == 0


@pytest.mark.parametrize(("networks", "slope"), [(6, 0.0), (6, 0.9), (12, 0.6)])
def test_the_interval_holds_the_truth(networks, slope):
    """In 400 draws of normal pairs, of which 95 % are expected; rank correlation by Pearson's."""
    rng = np.random.default_rng(networks)
    truth, held = 6 / np.pi * np.arcsin(slope / 2), 0
    for _ in range(400):
        x, other = rng.normal(size=(2, networks))
        found = correlation(x, slope * x + np.sqrt(1 - slope**2) * other, np.arange(networks))
        held += found.low <= truth <= found.high
    assert 0.91 < held / 400 < 0.99
