"""Lines fitted to the members of a sweep: effective robustness, and the capacity threshold.

`benchmarks/coverage.py` simulates how often the test for a threshold is wrong, and how often the
threshold's interval contains the true value; docs/robustness.md has the results.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit, ndtri, stdtrit

from tinyjax.metrics.bootstrap import CONFIDENCE_LEVEL, Estimate, image_variance, interval

EPS = 0.01  # scores are clipped to [EPS, 1 - EPS]: logits are unbounded, scores near 0 are noise
MIN_MEMBERS = 4  # for fitting a line
MIN_SIZES = 4  # with fewer, a break looks like a straight line or like one noisy size
NUM_BREAKS = 101  # candidate positions of the break
NUM_DRAWS = 1000  # simulations of the noise
FIT_LEVEL = 0.99  # quantile of the simulated misfit above which a broken line is rejected
MIN_VARIANCE = 1e-12  # lower bound for a gain's variance, because replicates are float32


class Line(NamedTuple):
    """logit(shifted) = slope * logit(in_domain) + intercept, each of shape [...]."""

    slope: np.ndarray
    intercept: np.ndarray

    def __call__(self, in_domain: np.ndarray) -> np.ndarray:
        """Return the shifted score that the line predicts for an in-domain score."""
        return expit(self.slope * _clipped_logit(in_domain) + self.intercept)


def effective_robustness(
    in_domain: np.ndarray, shifted: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, Line]:
    """Return the shifted score minus its prediction from the in-domain score (Taori et al. 2020).

    The prediction for a member is a line fitted to the members of all other groups, so the seeds of
    one network must be in one group.

    in_domain, shifted: scores [M, ...], 0 to 1, such as points [M] or replicates [M, B]; each
    column has its own line. groups: [M].

    Returns float64 [M, ...], and the line fitted to all members, for plots. The result is NaN if a
    score is NaN, if there are fewer than MIN_MEMBERS others, or if all others have the same
    in-domain score.
    """
    in_domain, shifted = np.asarray(in_domain, np.float64), np.asarray(shifted, np.float64)
    x, y = _clipped_logit(in_domain), _clipped_logit(shifted)
    valid = ~np.isnan(x + y)
    a, b = np.where(valid, x, 0), np.where(valid, y, 0)
    terms = np.stack([valid, a, b, a * a, a * b]).astype(np.float64)
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    others = (group != np.arange(len(names))[:, None]).astype(np.float64)  # [groups, M]
    slope, intercept = _fit_line(np.tensordot(others, terms, (1, 1)).swapaxes(0, 1))
    predicted = expit(slope[group] * x + intercept[group])
    return shifted - predicted, Line(*_fit_line(terms.sum(1)))


def _clipped_logit(score: np.ndarray) -> np.ndarray:
    return logit(np.clip(score, EPS, 1 - EPS))


def _fit_line(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return least-squares slope and intercept from [n, sum x, sum y, sum x², sum xy].

    They are NaN if there are too few points, or if all have the same x.
    """
    n, x, y, xx, xy = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = xx / n - (x / n) ** 2
        slope = (xy / n - x * y / n**2) / variance
        slope = np.where((n >= MIN_MEMBERS) & (variance > 1e-9), slope, np.nan)
        return slope, (y - slope * x) / n


class Threshold(NamedTuple):
    """Number of parameters above which a gain grows, with its 95 % interval; NaN if not found."""

    found: bool
    parameters: float
    low: float
    high: float
    p: float  # p-value; null hypothesis: the gain is linear in log10(parameters), or constant
    reason: str  # the result as text
    knots: np.ndarray  # float64 [K, 2], parameters and gain of the line to plot; K = 0: no line


def gain_by_size(
    parameters: np.ndarray, gains: np.ndarray, replicates: np.ndarray
) -> tuple[np.ndarray, list[Estimate]]:
    """Return ascending sizes, and each size's mean gain over its seeds; see `fit_threshold`."""
    parameters = np.asarray(parameters)
    sizes = np.unique(parameters)
    masks = [parameters == size for size in sizes]
    return sizes, [interval(np.asarray(gains)[k], np.asarray(replicates)[k]) for k in masks]


def fit_threshold(
    parameters: np.ndarray, gains: np.ndarray, replicates: np.ndarray, seed: int = 0
) -> Threshold:
    """Find the number of parameters above which a gain, such as that of pretraining, grows.

    With x = log10(parameters), the model is a broken line: the gain is a up to the break c, and
    a + b (x - c) above it. It is a least-squares fit to the mean gain of each size, with c on a
    grid from the second smallest to the second largest size. A threshold is found if three tests
    are passed, at 5 %:

    1. A straight line with an upward bend fits better than one without. The statistic is the
       largest t of the bend over the grid. Its simulated distribution is the same for all straight
       lines (a constant gain, a gain that grows at one rate).
    2. Below the bend, the slope is not larger than in simulations in which the gain is constant
       there.
    3. The misfit of the broken line is not larger than in simulations of that line (at 1 %). A gain
       that jumps, or that grows and then stays constant, has no single break.

    Noise model: seeds are independent, with one variance at all sizes; the covariance of the sizes
    over resamples of the images is added. The interval contains 95 % of the breaks that are fitted
    to simulated gains.

    Args:
        parameters: [P], number of parameters of the network of each pair.
        gains: [P], score of one member of the pair minus the score of the other, which has the same
            seed. NaN is ignored.
        replicates: [P, B], the same on resamples of the images; columns with NaN are ignored.
        seed: seed of the simulated noise.
    """
    valid = ~np.isnan(gains)
    parameters, gains = np.asarray(parameters)[valid], np.asarray(gains, np.float64)[valid]
    replicates = np.asarray(replicates, np.float64)[valid]
    replicates = replicates[:, ~np.isnan(replicates).any(0)]
    sizes, size_index, counts = np.unique(parameters, return_inverse=True, return_counts=True)
    degrees_of_freedom = len(gains) - len(sizes)
    if len(sizes) < MIN_SIZES:
        return _not_found(f"{len(sizes)} sizes, at least {MIN_SIZES} are needed")
    if not degrees_of_freedom:
        return _not_found("with one seed per size, the variance between seeds is unknown")
    if replicates.shape[1] < 2:
        return _not_found("too few images: fewer than two resamples give a gain for all pairs")
    means = np.bincount(size_index, gains) / counts
    squared_residuals = float(((gains - means[size_index]) ** 2).sum())
    variance = max(MIN_VARIANCE, squared_residuals / degrees_of_freedom)
    image_covariance = _image_covariance(replicates, size_index)
    noise = _Noise(variance, degrees_of_freedom, 1 / counts, image_covariance)
    return _test_threshold(np.log10(sizes), means, noise, seed)


class _Noise(NamedTuple):
    """Noise of the mean gains of J sizes."""

    seed_variance: float  # variance of a gain between seeds
    degrees_of_freedom: int  # of `seed_variance`
    inverse_seeds: np.ndarray  # [J], 1 / number of seeds
    image_covariance: np.ndarray  # [J, J]

    def variance(self, weights: np.ndarray, seed_variance: float | np.ndarray) -> np.ndarray:
        """Return the variance of weighted sums of the means; weights [..., J]."""
        from_images = ((weights @ self.image_covariance) * weights).sum(-1)
        return seed_variance * (weights**2 @ self.inverse_seeds) + from_images

    def differs_from_zero(self, weights: np.ndarray, means: np.ndarray) -> bool:
        """Return whether the interval of a weighted sum excludes 0, see `bootstrap.interval`."""
        quantile = (1 + CONFIDENCE_LEVEL) / 2
        t, z = stdtrit(self.degrees_of_freedom, quantile), ndtri(quantile)
        from_seeds = t**2 * self.seed_variance * (weights**2 @ self.inverse_seeds)
        squared_half_width = from_seeds + z**2 * self.variance(weights, 0.0)
        return bool((weights @ means) ** 2 > squared_half_width)

    def draw(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Simulate errors of the means [NUM_DRAWS, J], and seed variances [NUM_DRAWS, 1]."""
        rng = np.random.default_rng(seed)
        seed_covariance = np.diag(self.seed_variance * self.inverse_seeds)
        root = np.linalg.cholesky(seed_covariance + self.image_covariance)
        errors = rng.normal(size=(NUM_DRAWS, len(root))) @ root.T
        chi_square = rng.chisquare(self.degrees_of_freedom, (NUM_DRAWS, 1))
        variances = self.seed_variance * chi_square / self.degrees_of_freedom
        return errors, variances


def _image_covariance(replicates: np.ndarray, size_index: np.ndarray) -> np.ndarray:
    """Return the covariance [J, J] of mean gains over images; its diagonal is `image_variance`."""
    by_size = [replicates[size_index == j] for j in range(size_index.max() + 1)]
    covariance = np.cov([rows.mean(0) for rows in by_size])
    np.fill_diagonal(covariance, [image_variance(rows) for rows in by_size])
    values, vectors = np.linalg.eigh(covariance)  # due to the new diagonal, some can be < 0
    return vectors * np.maximum(values, 0) @ vectors.T


def _test_threshold(x: np.ndarray, means: np.ndarray, noise: _Noise, seed: int) -> Threshold:
    """Test mean gains [J] at x = log10(parameters) [J], ascending, for a threshold."""
    breaks = np.linspace(x[1], x[-2], NUM_BREAKS)
    hinge = np.maximum(0, x - breaks[:, None])
    ones, slope = np.ones_like(hinge), np.broadcast_to(x, hinge.shape)
    # Each fit is a matrix that maps means to coefficients (level, slope, growth above the break).
    bent = np.linalg.pinv(np.stack([ones, slope, hinge], -1))  # [NUM_BREAKS, 3, J]
    broken = np.linalg.pinv(np.stack([ones, hinge], -1))  # [NUM_BREAKS, 2, J]
    straight = np.linalg.pinv(np.stack([ones, slope], -1)[0])  # [2, J]
    to_residuals = np.eye(len(x)) - np.stack([ones, hinge], -1) @ broken
    errors, variances = noise.draw(seed)

    def t_values(coefficient, values, variance):  # [..., NUM_BREAKS]
        weights = bent[:, coefficient]
        return values @ weights.T / np.sqrt(noise.variance(weights, variance))

    def slope_t(values, variance):  # t of the slope, with the break of the most significant bend
        bends = t_values(2, values, variance).argmax(-1)
        return np.take_along_axis(t_values(1, values, variance), bends[..., None], -1)[..., 0]

    def squared_residuals(values):  # sum for the broken line with each break
        return np.stack([((values @ r) ** 2).sum(-1) for r in to_residuals])

    t = t_values(2, means, noise.seed_variance)
    p = float((1 + (t_values(2, errors, variances).max(-1) >= t.max()).sum()) / (1 + NUM_DRAWS))
    best, bend = squared_residuals(means).argmin(0), t.argmax()
    level, growth = broken[best] @ means
    if p > 1 - CONFIDENCE_LEVEL:
        reason, line = _describe_line(straight, means, noise)
        return _not_found(f"{reason} (p {p:.3f})", p, _knots(x, breaks[best], *line, 0.0))
    fitted = level + growth * hinge[best]
    slopes = np.abs(slope_t(fitted + errors, variances))
    max_slope = np.quantile(slopes, CONFIDENCE_LEVEL)
    if growth <= 0 or np.abs(slope_t(means, noise.seed_variance)) > max_slope:
        coefficients = bent[bend] @ means
        position = f"near {10 ** breaks[bend]:,.0f} parameters"
        verb = _trend_verb(coefficients[1])
        reason = f"the gain already {verb} below its bend {position} (p {p:.3f})"
        return _not_found(reason, p, _knots(x, breaks[bend], *coefficients))

    # The seed variance is estimated from few seeds, so the errors are Student's t, not normal.
    simulated = fitted + errors * np.sqrt(noise.seed_variance / variances)
    residuals = squared_residuals(simulated)
    if squared_residuals(means).min(0) > np.quantile(residuals.min(0), FIT_LEVEL):
        reason = f"beyond its bend, the gain does not grow along one line (p of the bend {p:.3f})"
        return _not_found(reason, p, _knots(x, breaks[best], level, 0.0, growth))
    quantiles = np.quantile(
        breaks[residuals.argmin(0)], [(1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2]
    )
    parameters, low, high = (float(10**c) for c in (breaks[best], *quantiles))
    limits = f"95 %: {low:,.0f} to {high:,.0f}"
    reason = f"the gain grows above {parameters:,.0f} parameters ({limits}; p {p:.3f})"
    knots = _knots(x, breaks[best], level, 0.0, growth)
    return Threshold(True, parameters, low, high, p, reason, knots)


def _describe_line(straight, means, noise: _Noise) -> tuple[str, tuple[float, float]]:
    """Describe a gain without a break; return the text, and level and slope of the line to plot."""
    mean = float(means.mean())
    if noise.differs_from_zero(straight[1], means):
        level, slope = straight @ means
        reason = f"the gain {_trend_verb(slope)} with size at one rate, without a break"
        return reason, (level, slope)
    # The report has an interval over seeds for the mean, so it is not tested here.
    return f"neither a break nor a trend is shown; mean gain {mean:+.3f}", (mean, 0.0)


def _trend_verb(slope: float) -> str:
    return "grows" if slope > 0 else "falls"


def _knots(x: np.ndarray, break_: float, level: float, slope: float, growth: float) -> np.ndarray:
    """Return float64 [3, 2]: parameters and gain at both ends and at the break."""
    knots = np.array([x[0], break_, x[-1]])
    gain = level + slope * knots + growth * np.maximum(0, knots - break_)
    return np.stack([10**knots, gain], -1)


def _not_found(reason: str, p: float = np.nan, knots: np.ndarray | None = None) -> Threshold:
    knots = np.empty((0, 2)) if knots is None else knots
    return Threshold(False, np.nan, np.nan, np.nan, p, reason, knots)
