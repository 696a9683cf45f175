"""Lines through the members of a sweep: effective robustness, and the capacity threshold.

How often the threshold's test errs, and its interval holds the truth, is simulated by
`benchmarks/coverage.py`; the figures are in docs/robustness.md.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit, logit, ndtri, stdtrit

from tinyjax.metrics.bootstrap import LEVEL, Estimate, image_variance, interval

EPS = 0.01  # scores are clipped to [EPS, 1 - EPS]: a logit has no end, a score near 0 is noise
LEAST_MEMBERS = 4  # that a line is fitted to
LEAST_SIZES = 4  # below it every break is also a straight line, or one noisy size
BREAKS = 101  # places that are tried
DRAWS = 1000  # of the noise
FITS = 0.99  # of simulated gains leave over less of a broken line than what is called one
FLOOR = 1e-12  # least variance of a gain: replicates are float32


class Line(NamedTuple):
    """logit(shifted) = slope * logit(inside) + intercept, each of shape [...]."""

    slope: np.ndarray
    intercept: np.ndarray

    def __call__(self, inside: np.ndarray) -> np.ndarray:
        """The shifted score that the line expects of an in-domain score."""
        return expit(self.slope * _logit(inside) + self.intercept)


def effective_robustness(
    inside: np.ndarray, shifted: np.ndarray, groups: np.ndarray
) -> tuple[np.ndarray, Line]:
    """What a member scores under the shift beyond what its in-domain score lets expect (Taori et
    al. 2020), and the line of all members, for drawing.

    inside, shifted: scores [M, ...], 0 to 1, such as points [M] or replicates [M, B], each column
    with a line of its own. groups: [M]; the line that a member is held against is fitted to those
    of other groups, so give seeds of one network one group. Returns float64 [M, ...]. NaN where a
    score is, and where fewer than LEAST_MEMBERS are left or all have one in-domain score.
    """
    inside, shifted = np.asarray(inside, np.float64), np.asarray(shifted, np.float64)
    x, y = _logit(inside), _logit(shifted)
    known = ~np.isnan(x + y)
    a, b = np.where(known, x, 0), np.where(known, y, 0)
    terms = np.stack([known, a, b, a * a, a * b]).astype(np.float64)
    names, own = np.unique(np.asarray(groups), return_inverse=True)
    others = own != np.arange(len(names))[:, None]  # [groups, M]
    slope, intercept = _line(np.tensordot(others.astype(np.float64), terms, (1, 1)).swapaxes(0, 1))
    return shifted - expit(slope[own] * x + intercept[own]), Line(*_line(terms.sum(1)))


def _logit(score: np.ndarray) -> np.ndarray:
    return logit(np.clip(score, EPS, 1 - EPS))


def _line(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept by least squares, from [n, sum x, sum y, sum x², sum xy]; NaN of none."""
    n, x, y, xx, xy = sums
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = xx / n - (x / n) ** 2
        slope = (xy / n - x * y / n**2) / spread
        fits = (n >= LEAST_MEMBERS) & (spread > 1e-9)
        slope = np.where(fits, slope, np.nan)
        return slope, (y - slope * x) / n


class Threshold(NamedTuple):
    """Above how many parameters a gain grows, and the 95 % interval; NaN where none is found."""

    found: bool
    parameters: float
    low: float
    high: float
    p: float  # of a gain that is a straight line in log10(parameters), a constant among them
    reason: str  # the finding in words
    knots: np.ndarray  # float64 [K, 2], parameters and gain: the line to draw; [0, 2] of none


def gain_by_size(
    parameters: np.ndarray, gains: np.ndarray, replicates: np.ndarray
) -> tuple[np.ndarray, list[Estimate]]:
    """Sizes, ascending, and the mean gain of each over its seeds, with interval; arguments as of
    `threshold`.
    """
    parameters = np.asarray(parameters)
    sizes = np.unique(parameters)
    own = [parameters == size for size in sizes]
    return sizes, [interval(np.asarray(gains)[k], np.asarray(replicates)[k]) for k in own]


def threshold(
    parameters: np.ndarray, gains: np.ndarray, replicates: np.ndarray, seed: int = 0
) -> Threshold:
    """The number of parameters above which a gain, such as that of pretraining, starts to grow.

    parameters: [P], of the network of each pair. gains: [P], score of one member of the pair less
    that of the other, of the same seed; NaN ones are left out. replicates: [P, B], the same on
    resamples of the images, columns with NaN left out. seed: of the noise that is simulated.

    With x = log10(parameters) the gain is a up to the break c and a + b (x - c) beyond, by least
    squares through the mean gain of each size, c on a grid from the second smallest size to the
    second largest. It is found if, at 5 %, (1) a straight line with a bend upwards fits better than
    without (largest t of the bend over the grid, against its simulated distribution, which is the
    same for every straight line: a flat gain, one that grows everywhere), (2) below the bend it has
    no more slope than simulated gains that are flat there, and (3) at 1 % what the broken line
    leaves over is no more than of simulated gains along it: a gain that jumps, or grows and then
    stays, has no one break to tell of. Noise: seeds independent, of one
    variance at all sizes, plus the covariance of the sizes over resamples of the images. The
    interval is of the breaks that simulated gains are fitted with.
    """
    pairs = ~np.isnan(gains)
    parameters, gains = np.asarray(parameters)[pairs], np.asarray(gains, np.float64)[pairs]
    replicates = np.asarray(replicates, np.float64)[pairs]
    replicates = replicates[:, ~np.isnan(replicates).any(0)]
    sizes, own, counts = np.unique(parameters, return_inverse=True, return_counts=True)
    free = len(gains) - len(sizes)
    if len(sizes) < LEAST_SIZES:
        return _unknown(f"too few sizes: {len(sizes)}, at least {LEAST_SIZES} are needed")
    if not free:
        return _unknown("one seed of each size: how much seeds differ is not known")
    if replicates.shape[1] < 2:
        return _unknown("too few images: no two resamples give every pair a gain")
    means = np.bincount(own, gains) / counts
    scatter = max(FLOOR, float(((gains - means[own]) ** 2).sum() / free))
    noise = _Noise(scatter, free, 1 / counts, _image_covariance(replicates, own))
    return _judge(np.log10(sizes), means, noise, seed)


class _Noise(NamedTuple):
    """Of the mean gains of J sizes."""

    scatter: float  # variance of a gain between seeds
    free: int  # degrees of freedom it is known with
    shares: np.ndarray  # [J], of it in each mean: 1 / seeds
    images: np.ndarray  # [J, J], covariance over images

    def variance(self, weights: np.ndarray, scatter: float | np.ndarray) -> np.ndarray:
        """Of sums of the means, weights [..., J]."""
        images = ((weights @ self.images) * weights).sum(-1)
        return scatter * (weights**2 @ self.shares) + images

    def differs(self, weights: np.ndarray, means: np.ndarray) -> bool:
        """Whether a sum of the means differs from 0, by an interval as `bootstrap.interval`'s."""
        tail = (1 + LEVEL) / 2
        seeds = stdtrit(self.free, tail) ** 2 * self.scatter * (weights**2 @ self.shares)
        square = seeds + ndtri(tail) ** 2 * self.variance(weights, 0.0)
        return bool((weights @ means) ** 2 > square)

    def draw(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Errors of the means, [DRAWS, J], and the scatter that would be found, [DRAWS, 1]."""
        rng = np.random.default_rng(seed)
        root = np.linalg.cholesky(np.diag(self.scatter * self.shares) + self.images)
        errors = rng.normal(size=(DRAWS, len(root))) @ root.T
        return errors, self.scatter * rng.chisquare(self.free, (DRAWS, 1)) / self.free


def _image_covariance(replicates: np.ndarray, own: np.ndarray) -> np.ndarray:
    """[J, J], of the mean gain of each size; its diagonal is `image_variance`."""
    each = [replicates[own == j] for j in range(own.max() + 1)]
    covariance = np.cov([one.mean(0) for one in each])
    np.fill_diagonal(covariance, [image_variance(one) for one in each])
    values, vectors = np.linalg.eigh(covariance)  # with that diagonal it may have negative ones
    return vectors * np.maximum(values, 0) @ vectors.T


def _judge(x: np.ndarray, means: np.ndarray, noise: _Noise, seed: int) -> Threshold:
    """The finding from mean gains [J] at x = log10(parameters) [J], ascending."""
    breaks = np.linspace(x[1], x[-2], BREAKS)
    beyond = np.maximum(0, x - breaks[:, None])
    one, slope = np.ones_like(beyond), np.broadcast_to(x, beyond.shape)
    # Fits are weights of the means: of (level, slope, growth beyond the break).
    bent = np.linalg.pinv(np.stack([one, slope, beyond], -1))  # [BREAKS, 3, J]
    broken = np.linalg.pinv(np.stack([one, beyond], -1))  # [BREAKS, 2, J]
    straight = np.linalg.pinv(np.stack([one, slope], -1)[0])  # [2, J]
    left_over = np.eye(len(x)) - np.stack([one, beyond], -1) @ broken
    errors, scatter = noise.draw(seed)

    def t_values(term, values, scatter):  # [..., BREAKS]
        weights = bent[:, term]
        return values @ weights.T / np.sqrt(noise.variance(weights, scatter))

    def t_below(values, scatter):  # of the slope, where the bend is clearest
        bends = t_values(2, values, scatter).argmax(-1)
        return np.take_along_axis(t_values(1, values, scatter), bends[..., None], -1)[..., 0]

    def squares(values):  # that each break leaves over
        return np.stack([((values @ r) ** 2).sum(-1) for r in left_over])

    def best_break(values):
        return squares(values).argmin(0)

    def misfit(values):
        return squares(values).min(0)

    t = t_values(2, means, noise.scatter)
    p = float((1 + (t_values(2, errors, scatter).max(-1) >= t.max()).sum()) / (1 + DRAWS))
    at, bend = best_break(means), t.argmax()
    level, growth = broken[at] @ means
    if p > 1 - LEVEL:
        reason, terms = _unbroken(straight, means, noise)
        return _unknown(f"{reason} (p {p:.3f})", p, _knots(x, breaks[at], *terms, 0.0))
    expected = level + growth * beyond[at]
    slopes = np.abs(t_below(expected + errors, scatter))
    if growth <= 0 or np.quantile(slopes, LEVEL) < np.abs(t_below(means, noise.scatter)):
        terms = bent[bend] @ means
        reason = f"the gain {_way(terms[1])} below a bend near {10 ** breaks[bend]:,.0f} parameters"
        return _unknown(f"{reason}, too (p {p:.3f})", p, _knots(x, breaks[bend], *terms))

    # The scatter is itself known from a few seeds, so that errors have Student's tails.
    simulated = expected + errors * np.sqrt(noise.scatter / scatter)
    if misfit(means) > np.quantile(misfit(simulated), FITS):
        reason = f"the gain does not grow along one line beyond its bend (p of a bend {p:.3f})"
        return _unknown(reason, p, _knots(x, breaks[at], level, 0.0, growth))
    ends = np.quantile(breaks[best_break(simulated)], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    found, low, high = (float(10**c) for c in (breaks[at], *ends))
    reason = f"the gain grows above {found:,.0f} parameters (95 %: {low:,.0f} to {high:,.0f}"
    knots = _knots(x, breaks[at], level, 0.0, growth)
    return Threshold(True, found, low, high, p, f"{reason}; p {p:.3f})", knots)


def _unbroken(straight, means, noise: _Noise) -> tuple[str, tuple[float, float]]:
    """What a gain does that has no break, and the level and slope of the line to draw."""
    mean = float(means.mean())
    if noise.differs(straight[1], means):
        level, slope = straight @ means
        return f"no break: the gain {_way(slope)} with size at one rate", (level, slope)
    # Whether it is above 0 is another question, which an interval over seeds answers.
    return f"no break or trend is shown; mean {mean:+.3f}", (mean, 0.0)


def _way(slope: float) -> str:
    return "grows" if slope > 0 else "falls"


def _knots(x: np.ndarray, at: float, level: float, slope: float, growth: float) -> np.ndarray:
    """float64 [3, 2]: parameters and gain at both ends and at the break."""
    ends = np.array([x[0], at, x[-1]])
    gain = level + slope * ends + growth * np.maximum(0, ends - at)
    return np.stack([10**ends, gain], -1)


def _unknown(reason: str, p: float = np.nan, knots: np.ndarray | None = None) -> Threshold:
    knots = np.empty((0, 2)) if knots is None else knots
    return Threshold(False, np.nan, np.nan, np.nan, p, reason, knots)
