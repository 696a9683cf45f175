"""Fits with a known result, and simulated error rates of the threshold test."""

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
    in_domain = np.random.default_rng(seed).uniform(0.3, 0.8, members)
    return in_domain, expit(1.5 * logit(in_domain) - 0.5)


def test_effective_robustness_by_hand():
    """One member is 0.1 above the line of the others, which it does not influence."""
    in_domain, shifted = on_a_line(8)
    shifted[3] += 0.1
    values, line = fits.effective_robustness(in_domain, shifted, np.arange(8))
    assert values[3] == pytest.approx(0.1)
    assert line.slope != pytest.approx(1.5, abs=1e-3)  # the line of all members is influenced
    others = np.delete(np.arange(8), 0)
    slope, intercept = np.polyfit(logit(in_domain[others]), logit(shifted[others]), 1)
    assert values[0] == pytest.approx(shifted[0] - expit(slope * logit(in_domain[0]) + intercept))


def test_a_member_is_compared_with_other_groups_only():
    in_domain, shifted = on_a_line(9)
    groups = np.array(["a", "b", "c"] * 3)
    shifted[groups == "b"] += 0.05
    values, _ = fits.effective_robustness(in_domain, shifted, groups)
    np.testing.assert_allclose(values[groups == "b"], 0.05)
    assert np.abs(values[groups != "b"]).min() > 0.001


def test_line_of_all_members_is_the_least_squares_fit():
    in_domain, shifted = np.random.default_rng(1).uniform(0.1, 0.9, (2, 20))
    _, line = fits.effective_robustness(in_domain, shifted, np.arange(20))
    slope, intercept = np.polyfit(logit(in_domain), logit(shifted), 1)
    assert (line.slope, line.intercept) == pytest.approx((slope, intercept))
    assert line(0.6) == pytest.approx(expit(slope * logit(0.6) + intercept))


def test_each_resample_has_its_own_line():
    in_domain, shifted = np.random.default_rng(2).uniform(0.1, 0.9, (2, 12, 5)).astype(np.float32)
    in_domain[4, 2] = np.nan  # one member is unknown in one resample
    groups = np.arange(12) // 3
    values, line = fits.effective_robustness(in_domain, shifted, groups)
    assert line.slope.shape == (5,)
    for b in range(5):
        single, _ = fits.effective_robustness(in_domain[:, b], shifted[:, b], groups)
        np.testing.assert_allclose(values[:, b], single)
    assert np.isnan(values).sum() == 1
    known = np.arange(12) != 4
    without, _ = fits.effective_robustness(in_domain[known, 2], shifted[known, 2], groups[known])
    np.testing.assert_allclose(values[known, 2], without)


def test_too_few_members_or_no_spread_gives_nan():
    in_domain, shifted = on_a_line(5)
    four, line = fits.effective_robustness(in_domain[:4], shifted[:4], np.arange(4))
    assert np.isnan(four).all()  # three others are left for each
    assert np.isfinite(line.slope)
    assert np.isfinite(fits.effective_robustness(in_domain, shifted, np.arange(5))[0]).all()
    values, line = fits.effective_robustness(np.full(5, 0.5), shifted, np.arange(5))
    assert np.isnan(values).all()
    assert np.isnan(line.slope)


def test_scores_of_0_and_1_are_clipped():
    in_domain, shifted = on_a_line(8)
    for value in (0.0, 1.0):
        ends = np.append(in_domain, value), np.append(shifted, value)
        values, _ = fits.effective_robustness(*ends, np.arange(9))
        edge = np.clip(value, fits.EPS, 1 - fits.EPS)
        assert values[-1] == pytest.approx(value - expit(1.5 * logit(edge) - 0.5))


def noisy(gain, seeds=0.01, images=0.005, seed=0):
    """Gains of pairs of SIZES, and their replicates on resamples of the images."""
    rng = np.random.default_rng(seed)
    gains = gain + rng.normal(0, seeds, len(SIZES))
    return gains, gains[:, None] + rng.normal(0, images, (len(SIZES), 200))


@pytest.mark.parametrize("seed", range(5))
def test_clear_threshold_is_found(seed):
    gains, replicates = noisy(0.02 + 0.1 * np.maximum(0, X - 5), seed=seed)
    result = fits.fit_threshold(SIZES, gains, replicates)
    assert result.found
    assert result.p < 0.01
    assert result.low < 1e5 < result.high
    assert result.high / result.low < 10
    assert f"grows above {result.parameters:,.0f} parameters" in result.reason
    np.testing.assert_allclose(result.knots[:, 0], [3e3, result.parameters, 1e6])
    np.testing.assert_allclose(result.knots[:, 1], [0.02, 0.02, 0.12], atol=0.02)
    assert result.knots[0, 1] == result.knots[1, 1]


@pytest.mark.parametrize(
    ("gain", "reason"),
    [
        (0 * X, "neither a break nor a trend is shown; mean gain [+-]0\\.0[01]\\d"),
        (0 * X + 0.05, "neither a break nor a trend is shown; mean gain \\+0\\.0[45]\\d"),
        (0.1 * X, "the gain grows with size at one rate, without a break"),
        (-0.1 * X, "the gain falls with size at one rate, without a break"),
        (-0.1 * np.maximum(0, 5 - X), "the gain grows .* without a break"),  # then stays constant
        (0.1 * np.abs(X - 4.8), "already falls below its bend near .* parameters"),
        (0.05 * X + 0.1 * np.maximum(0, X - 5), "already grows below its bend near .* parameters"),
    ],
)
def test_other_gains_give_a_reason(gain, reason):
    gains, replicates = noisy(gain, seed=3)
    result = fits.fit_threshold(SIZES, gains, replicates)
    assert not result.found
    assert np.isnan([result.parameters, result.low, result.high]).all()
    assert re.search(reason, result.reason), result.reason
    line = np.interp(X, np.log10(result.knots[:, 0]), result.knots[:, 1])
    np.testing.assert_allclose(line, gain, atol=0.06)


def test_a_jump_is_no_threshold():
    """The closest broken line would start to grow far below the jump."""
    rng = np.random.default_rng(0)
    gains = 0.08 * (SIZES > 50_000) + rng.normal(0, 0.004, SIZES.shape)
    result = fits.fit_threshold(
        SIZES, gains, gains[:, None] + rng.normal(0, 0.002, (len(SIZES), 50))
    )
    assert not result.found
    assert result.p < 0.05
    assert "beyond its bend, the gain does not grow along one line" in result.reason


def test_untestable_gains_give_a_reason():
    gains, replicates = noisy(0.1 * np.maximum(0, X - 5))
    few = SIZES <= 30_000
    first = np.arange(len(SIZES)) % 3 == 0
    blank = np.where(np.arange(200) == 0, replicates, np.nan)
    for result, reason in [
        (
            fits.fit_threshold(SIZES[few], gains[few], replicates[few]),
            "3 sizes, at least 4 are needed",
        ),
        (
            fits.fit_threshold(SIZES[first], gains[first], replicates[first]),
            "with one seed per size",
        ),
        (fits.fit_threshold(SIZES, gains, blank), "too few images"),
    ]:
        assert not result.found
        assert reason in result.reason
        assert result.knots.shape == (0, 2)


def test_missing_pairs_and_order_do_not_matter():
    gains, replicates = noisy(0.1 * np.maximum(0, X - 5))
    order = np.random.default_rng(0).permutation(len(SIZES))
    keep = order[order != 4]
    gains[4] = np.nan
    result = fits.fit_threshold(SIZES, gains, replicates)
    other = fits.fit_threshold(SIZES[keep], gains[keep], replicates[keep])
    assert result.found
    assert result[:5] == pytest.approx(other[:5])


def test_variation_between_images_counts_as_noise():
    """The same gains are no evidence if other images would give other gains."""
    gains, replicates = noisy(0.1 * np.maximum(0, X - 5))
    shared = np.random.default_rng(1).normal(0, 0.1, (6, 200))[np.arange(len(SIZES)) // 3]
    assert fits.fit_threshold(SIZES, gains, replicates).found
    assert not fits.fit_threshold(SIZES, gains, replicates + shared).found


def test_gain_by_size():
    gains, replicates = noisy(0.1 * X)
    sizes, estimates = fits.gain_by_size(SIZES[::-1], gains[::-1], replicates[::-1])
    assert sizes.tolist() == sorted({*SIZES.tolist()})
    assert estimates[0] == pytest.approx(bootstrap.interval(gains[:3], replicates[:3]))
    assert all(estimate.seeds == 3 for estimate in estimates)


@pytest.mark.parametrize("shape", ["no gain", "grows everywhere, 2 per decade"])
def test_false_positive_rate(shape):
    """200 simulations: 5 % are 10, with a standard error of 3."""
    assert coverage.threshold_rates(coverage.CURVES_WITHOUT_THRESHOLD[shape], 200)[0] <= 0.09


def test_power_and_coverage_of_the_interval():
    power, covered = coverage.threshold_rates(coverage.broken_line(8), 100)
    assert power > 0.8
    assert covered > 0.88


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["normal", "tails"])
@pytest.mark.parametrize("shape", coverage.CURVES_WITHOUT_THRESHOLD)
def test_error_rates_are_as_documented(shape, noise):
    max_rate = 0.09 if shape.startswith("jumps") else 0.065
    assert (
        coverage.threshold_rates(coverage.CURVES_WITHOUT_THRESHOLD[shape], 1500, 0.5, noise)[0]
        <= max_rate
    )
