"""Lines fitted through the members of a sweep: effective robustness, and the capacity threshold.

`benchmarks/coverage.py` simulates how often the test for a threshold errs, and how often its
interval contains the true value; docs/robustness.md has the results.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit, ndtri, stdtrit

from tinyjax.metrics.bootstrap import LEVEL, Estimate, image_variance, interval

EPS = 0.01  # scores are clipped to [EPS, 1 - EPS]: logits are unbounded, scores near 0 are noise
MIN_MEMBERS = 4  # for fitting a line
MIN_SIZES = 4  # with fewer, a break cannot be told from a straight line or from one noisy size
NUM_BREAKS = 101  # candidate positions of the break
NUM_DRAWS = 1000  # simulations of the noise
FIT_LEVEL = 0.99  # quantile of the simulated misfit above which a broken line is rejected
MIN_VARIANCE = 1e-12  # of a gain, because replicates are float32


class Line(NamedTuple):
    """logit(shifted) = slope * logit(in_domain) + intercept, each of shape [...]."""

    slope: np.ndarray
    intercept: np.ndarray

    def __call__(self, in_domain: np.ndarray) -> np.ndarray:
        """The shifted score that the line predicts from an in-domain score."""
        return expit(self.slope * _clipped_logit(in_domain) + self.intercept)


def effective_robustness(
    in_domain: np.ndarray, shifted: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, Line]:
    """Shifted score beyond what the in-domain score predicts (Taori et al. 2020).

    A member is compared with a line fitted to the members of all other groups, so give the seeds of
    one network the same group.

    in_domain, shifted: scores [M, ...], 0 to 1, such as points [M] or replicates [M, B]; each
    column has its own line. groups: [M].

    Returns float64 [M, ...] and the line of all members, for drawing. NaN where a score is NaN, and
    where fewer than MIN_MEMBERS others are left or all have the same in-domain score.
    """
    in_domain, shifted = np.asarray(in_domain, np.float64), np.asarray(shifted, np.float64)
    x, y = _clipped_logit(in_domain), _clipped_logit(shifted)
    known = ~np.isnan(x + y)
    a, b = np.where(known, x, 0), np.where(known, y, 0)
    terms = np.stack([known, a, b, a * a, a * b]).astype(np.float64)
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    others = (group != np.arange(len(names))[:, None]).astype(np.float64)  # [groups, M]
    slope, intercept = _fit_line(np.tensordot(others, terms, (1, 1)).swapaxes(0, 1))
    expected = expit(slope[group] * x + intercept[group])
    return shifted - expected, Line(*_fit_line(terms.sum(1)))


def _clipped_logit(score: np.ndarray) -> np.ndarray:
    return logit(np.clip(score, EPS, 1 - EPS))


def _fit_line(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares slope and intercept from [n, sum x, sum y, sum x², sum xy].

    NaN if there are too few points or all have the same x.
    """
    n, x, y, xx, xy = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = xx / n - (x / n) ** 2
        slope = (xy / n - x * y / n**2) / spread
        slope = np.where((n >= MIN_MEMBERS) & (spread > 1e-9), slope, np.nan)
        return slope, (y - slope * x) / n


class Threshold(NamedTuple):
    """Number of parameters above which a gain grows, with its 95 % interval; NaN if not found."""

    found: bool
    parameters: float
    low: float
    high: float
    p: float  # of a gain that is linear in log10(parameters), constant gains included
    reason: str  # the result in words
    knots: np.ndarray  # float64 [K, 2], parameters and gain: the line to draw; [0, 2] without one


def gain_by_size(
    parameters: np.ndarray, gains: np.ndarray, replicates: np.ndarray
) -> tuple[np.ndarray, list[Estimate]]:
    """Ascending sizes, and the mean gain of each over its seeds; see `fit_threshold`."""
    parameters = np.asarray(parameters)
    sizes = np.unique(parameters)
    masks = [parameters == size for size in sizes]
    return sizes, [interval(np.asarray(gains)[k], np.asarray(replicates)[k]) for k in masks]


def fit_threshold(
    parameters: np.ndarray, gains: np.ndarray, replicates: np.ndarray, seed: int = 0
) -> Threshold:
    """Number of parameters above which a gain, such as that of pretraining, starts to grow.

    With x = log10(parameters), the gain is a up to the break c and a + b (x - c) beyond it: a
    least-squares fit to the mean gain of each size, with c on a grid from the second smallest to
    the second largest size. A threshold is found if all three hold, at 5 %:

    1. A straight line with an upward bend fits better than one without: the largest t of the bend
       over the grid, compared with its simulated distribution, which is the same for all straight
       lines (a flat gain, a gain that grows at one rate).
    2. Below the bend, the slope is no larger than in simulated gains that are flat there.
    3. The misfit of the broken line is no larger than in simulated gains along it (at 1 %). A gain
       that jumps, or that grows and then stays constant, has no single break.

    Noise model: seeds are independent and have one variance at all sizes; the covariance of the
    sizes over resamples of the images is added. The interval covers the breaks fitted to simulated
    gains.

    Args:
        parameters: [P], of the network of each pair.
        gains: [P], score of one member of the pair minus that of the other, which has the same
            seed. NaN is left out.
        replicates: [P, B], the same on resamples of the images; columns with NaN are left out.
        seed: of the simulated noise.
    """
    known = ~np.isnan(gains)
    parameters, gains = np.asarray(parameters)[known], np.asarray(gains, np.float64)[known]
    replicates = np.asarray(replicates, np.float64)[known]
    replicates = replicates[:, ~np.isnan(replicates).any(0)]
    sizes, size_index, counts = np.unique(parameters, return_inverse=True, return_counts=True)
    degrees = len(gains) - len(sizes)
    if len(sizes) < MIN_SIZES:
        return _not_found(f"{len(sizes)} sizes, at least {MIN_SIZES} are needed")
    if not degrees:
        return _not_found("with one seed per size, the variance between seeds is unknown")
    if replicates.shape[1] < 2:
        return _not_found("too few images: fewer than two resamples give a gain for all pairs")
    means = np.bincount(size_index, gains) / counts
    variance = max(MIN_VARIANCE, float(((gains - means[size_index]) ** 2).sum() / degrees))
    noise = _Noise(variance, degrees, 1 / counts, _image_covariance(replicates, size_index))
    return _test_threshold(np.log10(sizes), means, noise, seed)


class _Noise(NamedTuple):
    """Noise of the mean gains of J sizes."""

    seed_variance: float  # variance of a gain between seeds
    degrees: int  # degrees of freedom of that variance
    shares: np.ndarray  # [J], fraction of it in each mean: 1 / seeds
    images: np.ndarray  # [J, J], covariance over images

    def variance(self, weights: np.ndarray, seed_variance: float | np.ndarray) -> np.ndarray:
        """Variance of weighted sums of the means; weights [..., J]."""
        images = ((weights @ self.images) * weights).sum(-1)
        return seed_variance * (weights**2 @ self.shares) + images

    def differs_from_zero(self, weights: np.ndarray, means: np.ndarray) -> bool:
        """Return whether the interval of a weighted sum excludes 0, see `bootstrap.interval`."""
        tail = (1 + LEVEL) / 2
        seeds = stdtrit(self.degrees, tail) ** 2 * self.seed_variance * (weights**2 @ self.shares)
        square = seeds + ndtri(tail) ** 2 * self.variance(weights, 0.0)
        return bool((weights @ means) ** 2 > square)

    def draw(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Simulated errors of the means [NUM_DRAWS, J] and seed variances [NUM_DRAWS, 1]."""
        rng = np.random.default_rng(seed)
        root = np.linalg.cholesky(np.diag(self.seed_variance * self.shares) + self.images)
        errors = rng.normal(size=(NUM_DRAWS, len(root))) @ root.T
        variances = self.seed_variance * rng.chisquare(self.degrees, (NUM_DRAWS, 1)) / self.degrees
        return errors, variances


def _image_covariance(replicates: np.ndarray, size_index: np.ndarray) -> np.ndarray:
    """Covariance [J, J] of the sizes' mean gains over images; the diagonal is `image_variance`."""
    by_size = [replicates[size_index == j] for j in range(size_index.max() + 1)]
    covariance = np.cov([rows.mean(0) for rows in by_size])
    np.fill_diagonal(covariance, [image_variance(rows) for rows in by_size])
    values, vectors = np.linalg.eigh(covariance)  # that diagonal may cause negative eigenvalues
    return vectors * np.maximum(values, 0) @ vectors.T


def _test_threshold(x: np.ndarray, means: np.ndarray, noise: _Noise, seed: int) -> Threshold:
    """Test mean gains [J] at x = log10(parameters) [J], ascending, for a threshold."""
    breaks = np.linspace(x[1], x[-2], NUM_BREAKS)
    beyond = np.maximum(0, x - breaks[:, None])
    ones, slope = np.ones_like(beyond), np.broadcast_to(x, beyond.shape)
    # A fit is a set of weights of the means, which give (level, slope, growth beyond the break).
    bent = np.linalg.pinv(np.stack([ones, slope, beyond], -1))  # [NUM_BREAKS, 3, J]
    broken = np.linalg.pinv(np.stack([ones, beyond], -1))  # [NUM_BREAKS, 2, J]
    straight = np.linalg.pinv(np.stack([ones, slope], -1)[0])  # [2, J]
    to_residuals = np.eye(len(x)) - np.stack([ones, beyond], -1) @ broken
    errors, variances = noise.draw(seed)

    def t_values(term, values, variance):  # [..., NUM_BREAKS]
        weights = bent[:, term]
        return values @ weights.T / np.sqrt(noise.variance(weights, variance))

    def slope_t(values, variance):  # t of the slope below the most significant bend
        bends = t_values(2, values, variance).argmax(-1)
        return np.take_along_axis(t_values(1, values, variance), bends[..., None], -1)[..., 0]

    def squared_residuals(values):  # of the broken line with each break
        return np.stack([((values @ r) ** 2).sum(-1) for r in to_residuals])

    t = t_values(2, means, noise.seed_variance)
    p = float((1 + (t_values(2, errors, variances).max(-1) >= t.max()).sum()) / (1 + NUM_DRAWS))
    best, bend = squared_residuals(means).argmin(0), t.argmax()
    level, growth = broken[best] @ means
    if p > 1 - LEVEL:
        reason, terms = _describe_line(straight, means, noise)
        return _not_found(f"{reason} (p {p:.3f})", p, _knots(x, breaks[best], *terms, 0.0))
    expected = level + growth * beyond[best]
    slopes = np.abs(slope_t(expected + errors, variances))
    if growth <= 0 or np.quantile(slopes, LEVEL) < np.abs(slope_t(means, noise.seed_variance)):
        terms = bent[bend] @ means
        position = f"near {10 ** breaks[bend]:,.0f} parameters"
        reason = f"the gain already {_verb(terms[1])} below its bend {position} (p {p:.3f})"
        return _not_found(reason, p, _knots(x, breaks[bend], *terms))

    # The seed variance is estimated from a few seeds, so errors have the tails of Student's t.
    simulated = expected + errors * np.sqrt(noise.seed_variance / variances)
    residuals = squared_residuals(simulated)
    if squared_residuals(means).min(0) > np.quantile(residuals.min(0), FIT_LEVEL):
        reason = f"beyond its bend, the gain does not grow along one line (p of the bend {p:.3f})"
        return _not_found(reason, p, _knots(x, breaks[best], level, 0.0, growth))
    ends = np.quantile(breaks[residuals.argmin(0)], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    parameters, low, high = (float(10**c) for c in (breaks[best], *ends))
    limits = f"95 %: {low:,.0f} to {high:,.0f}"
    reason = f"the gain grows above {parameters:,.0f} parameters ({limits}; p {p:.3f})"
    knots = _knots(x, breaks[best], level, 0.0, growth)
    return Threshold(True, parameters, low, high, p, reason, knots)


def _describe_line(straight, means, noise: _Noise) -> tuple[str, tuple[float, float]]:
    """A gain without a break in words, and the level and slope of the line to draw."""
    mean = float(means.mean())
    if noise.differs_from_zero(straight[1], means):
        level, slope = straight @ means
        return f"the gain {_verb(slope)} with size at one rate, without a break", (level, slope)
    # Whether the mean is above 0 is answered by an interval over seeds, not here.
    return f"neither a break nor a trend is shown; mean gain {mean:+.3f}", (mean, 0.0)


def _verb(slope: float) -> str:
    return "grows" if slope > 0 else "falls"


def _knots(x: np.ndarray, break_: float, level: float, slope: float, growth: float) -> np.ndarray:
    """float64 [3, 2]: parameters and gain at both ends and at the break."""
    ends = np.array([x[0], break_, x[-1]])
    gain = level + slope * ends + growth * np.maximum(0, ends - break_)
    return np.stack([10**ends, gain], -1)


def _not_found(reason: str, p: float = np.nan, knots: np.ndarray | None = None) -> Threshold:
    knots = np.empty((0, 2)) if knots is None else knots
    return Threshold(False, np.nan, np.nan, np.nan, p, reason, knots)
