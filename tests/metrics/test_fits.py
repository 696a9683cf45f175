"""Lines with a known answer, and how often the threshold's test errs."""

import re

import numpy as np
import pytest
from scipy.special import expit, logit

from benchmarks import coverage
from tinyjax.metrics import bootstrap, fits

SIZES = np.repeat([3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000], 3)
X = np.log10(SIZES)


def on_a_line(members, seed=0):
    """Scores whose logits are on the line 1.5 x - 0.5."""
    inside = np.random.default_rng(seed).uniform(0.3, 0.8, members)
    return inside, expit(1.5 * logit(inside) - 0.5)


def test_effective_robustness_by_hand():
    """One member is 0.1 above the line of the others, which do not move for it."""
    inside, shifted = on_a_line(8)
    shifted[3] += 0.1
    values, line = fits.effective_robustness(inside, shifted, np.arange(8))
    assert values[3] == pytest.approx(0.1)
    assert line.slope != pytest.approx(1.5, abs=1e-3)  # that of all does
    others = np.delete(np.arange(8), 0)
    slope, intercept = np.polyfit(logit(inside[others]), logit(shifted[others]), 1)
    assert values[0] == pytest.approx(shifted[0] - expit(slope * logit(inside[0]) + intercept))


def test_a_member_is_not_measured_by_its_own_group():
    inside, shifted = on_a_line(9)
    groups = np.array(["a", "b", "c"] * 3)
    shifted[groups == "b"] += 0.05
    values, _ = fits.effective_robustness(inside, shifted, groups)
    np.testing.assert_allclose(values[groups == "b"], 0.05)
    assert np.abs(values[groups != "b"]).min() > 0.001


def test_the_line_of_all_is_the_least_squares_line_and_draws():
    inside, shifted = np.random.default_rng(1).uniform(0.1, 0.9, (2, 20))
    _, line = fits.effective_robustness(inside, shifted, np.arange(20))
    slope, intercept = np.polyfit(logit(inside), logit(shifted), 1)
    assert (line.slope, line.intercept) == pytest.approx((slope, intercept))
    assert line(0.6) == pytest.approx(expit(slope * logit(0.6) + intercept))


def test_every_resample_has_a_line_of_its_own():
    inside, shifted = np.random.default_rng(2).uniform(0.1, 0.9, (2, 12, 5)).astype(np.float32)
    inside[4, 2] = np.nan  # nothing is known of one member in one of them
    groups = np.arange(12) // 3
    values, line = fits.effective_robustness(inside, shifted, groups)
    assert line.slope.shape == (5,)
    for b in range(5):
        single, _ = fits.effective_robustness(inside[:, b], shifted[:, b], groups)
        np.testing.assert_allclose(values[:, b], single)
    assert np.isnan(values).sum() == 1
    there = np.arange(12) != 4
    kept, _ = fits.effective_robustness(inside[there, 2], shifted[there, 2], groups[there])
    np.testing.assert_allclose(values[there, 2], kept)


def test_no_line_no_effective_robustness():
    inside, shifted = on_a_line(5)
    four, line = fits.effective_robustness(inside[:4], shifted[:4], np.arange(4))
    assert np.isnan(four).all()  # three are left for each
    assert np.isfinite(line.slope)
    assert np.isfinite(fits.effective_robustness(inside, shifted, np.arange(5))[0]).all()
    values, line = fits.effective_robustness(np.full(5, 0.5), shifted, np.arange(5))
    assert np.isnan(values).all()
    assert np.isnan(line.slope)


def test_scores_of_0_and_1_are_clipped():
    inside, shifted = on_a_line(8)
    for value in (0.0, 1.0):
        ends = np.append(inside, value), np.append(shifted, value)
        values, _ = fits.effective_robustness(*ends, np.arange(9))
        edge = np.clip(value, fits.EPS, 1 - fits.EPS)
        assert values[-1] == pytest.approx(value - expit(1.5 * logit(edge) - 0.5))


def noisy(gain, seeds=0.01, images=0.005, seed=0):
    """Pairs of SIZES: their gains, and these on resamples of the images."""
    rng = np.random.default_rng(seed)
    gains = gain + rng.normal(0, seeds, len(SIZES))
    return gains, gains[:, None] + rng.normal(0, images, (len(SIZES), 200))


@pytest.mark.parametrize("seed", range(5))
def test_a_clear_threshold_is_found_where_it_is(seed):
    gains, replicates = noisy(0.02 + 0.1 * np.maximum(0, X - 5), seed=seed)
    found = fits.threshold(SIZES, gains, replicates)
    assert found.found
    assert found.p < 0.01
    assert found.low < 1e5 < found.high
    assert found.high / found.low < 10
    assert f"grows above {found.parameters:,.0f} parameters" in found.reason
    np.testing.assert_allclose(found.knots[:, 0], [3e3, found.parameters, 1e6])
    np.testing.assert_allclose(found.knots[:, 1], [0.02, 0.02, 0.12], atol=0.02)
    assert found.knots[0, 1] == found.knots[1, 1]


@pytest.mark.parametrize(
    ("gain", "reason"),
    [
        (0 * X, "no break or trend is shown; mean [+-]0\\.0[01]\\d"),
        (0 * X + 0.05, "no break or trend is shown; mean \\+0\\.0[45]\\d"),
        (0.1 * X, "no break: the gain grows with size at one rate"),
        (-0.1 * X, "no break: the gain falls with size at one rate"),
        (-0.1 * np.maximum(0, 5 - X), "no break: the gain grows"),  # and then no more
        (0.1 * np.abs(X - 4.8), "falls below a bend near .* parameters, too"),
        (0.05 * X + 0.1 * np.maximum(0, X - 5), "grows below a bend near .* parameters, too"),
    ],
)
def test_what_is_no_threshold_is_none_and_says_why(gain, reason):
    gains, replicates = noisy(gain, seed=3)
    found = fits.threshold(SIZES, gains, replicates)
    assert not found.found
    assert np.isnan([found.parameters, found.low, found.high]).all()
    assert re.search(reason, found.reason), found.reason
    drawn = np.interp(X, np.log10(found.knots[:, 0]), found.knots[:, 1])
    np.testing.assert_allclose(drawn, gain, atol=0.06)


def test_a_jump_is_not_called_a_place_where_growth_begins():
    """The broken line nearest to it would begin far below."""
    rng = np.random.default_rng(0)
    gains = 0.08 * (SIZES > 50_000) + rng.normal(0, 0.004, SIZES.shape)
    found = fits.threshold(SIZES, gains, gains[:, None] + rng.normal(0, 0.002, (len(SIZES), 50)))
    assert not found.found
    assert found.p < 0.05
    assert "does not grow along one line beyond its bend" in found.reason


def test_what_cannot_be_tested_is_said():
    gains, replicates = noisy(0.1 * np.maximum(0, X - 5))
    few = SIZES <= 30_000
    first = np.arange(len(SIZES)) % 3 == 0
    blank = np.where(np.arange(200) == 0, replicates, np.nan)
    for result, reason in [
        (fits.threshold(SIZES[few], gains[few], replicates[few]), "too few sizes: 3, at least 4"),
        (fits.threshold(SIZES[first], gains[first], replicates[first]), "one seed of each size"),
        (fits.threshold(SIZES, gains, blank), "too few images"),
    ]:
        assert not result.found
        assert reason in result.reason
        assert result.knots.shape == (0, 2)


def test_pairs_that_are_missing_are_left_out_and_their_order_is_nothing():
    gains, replicates = noisy(0.1 * np.maximum(0, X - 5))
    order = np.random.default_rng(0).permutation(len(SIZES))
    keep = order[order != 4]
    gains[4] = np.nan
    found = fits.threshold(SIZES, gains, replicates)
    other = fits.threshold(SIZES[keep], gains[keep], replicates[keep])
    assert found.found
    assert found[:5] == pytest.approx(other[:5])


def test_images_that_differ_widely_are_noise():
    """The same gains prove nothing where other images would have given others."""
    gains, replicates = noisy(0.1 * np.maximum(0, X - 5))
    shared = np.random.default_rng(1).normal(0, 0.1, (6, 200))[np.arange(len(SIZES)) // 3]
    assert fits.threshold(SIZES, gains, replicates).found
    assert not fits.threshold(SIZES, gains, replicates + shared).found


def test_gain_of_each_size():
    gains, replicates = noisy(0.1 * X)
    sizes, estimates = fits.gain_by_size(SIZES[::-1], gains[::-1], replicates[::-1])
    assert sizes.tolist() == sorted({*SIZES.tolist()})
    assert estimates[0] == pytest.approx(bootstrap.interval(gains[:3], replicates[:3]))
    assert all(one.seeds == 3 for one in estimates)


@pytest.mark.parametrize("shape", ["no gain", "grows everywhere, 2 a decade"])
def test_a_threshold_is_rarely_found_where_there_is_none(shape):
    """200 simulations, of which 5 % are 10 with a standard error of 3."""
    assert coverage.thresholds(coverage.NULLS[shape], 200)[0] <= 0.09


def test_a_break_is_found_and_its_interval_holds_it():
    found, held = coverage.thresholds(coverage.growing(8), 100)
    assert found > 0.8
    assert held > 0.88


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["normal", "tails"])
@pytest.mark.parametrize("shape", coverage.NULLS)
def test_error_rates_are_as_documented(shape, noise):
    most = 0.09 if shape.startswith("jumps") else 0.065
    assert coverage.thresholds(coverage.NULLS[shape], 1500, 0.5, noise)[0] <= most
