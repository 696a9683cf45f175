"""Intervals of what was measured with several seeds on one set of images.

Scores of seeds are independent draws. Images are the same for all members, so what they add to a
score does not average out over seeds. Both are random: the interval is for new seeds *and* new
images. How often it holds the truth is simulated by `benchmarks/coverage.py`.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit

LEVEL = 0.95


class Estimate(NamedTuple):
    """A value and its 95 % interval. With seeds = 1 the interval is of images alone and says
    nothing about other seeds; with 0 there is none, and all is NaN.
    """

    value: float
    low: float
    high: float
    seeds: int


def interval(points: np.ndarray, replicates: np.ndarray) -> Estimate:
    """Mean over the seeds of a group, with its interval.

    points: [S], a score of every seed, or any number made of scores; NaN ones (a member that was
    stopped, a slice without objects) are left out. replicates: [S, B], the same numbers on B
    resamples of the images, column b the same for all; columns that hold a NaN are left out.

        mean ± sqrt(t² s² / S + z² v)

    s² is the variance of the points, t Student's quantile with S - 1 degrees of freedom, v the
    variance that the images add to all seeds alike (`image_variance`), z the normal quantile. Sums
    of squared half widths of two independent sources are as Howe's and MOVER's (Zou & Donner 2008).
    In simulation it holds the truth in 95 to 98 % of cases from S = 2 on, percentiles of a
    hierarchical bootstrap in 77 to 99.8 %: docs/robustness.md. It may reach beyond 0 and 1.
    """
    points, replicates = np.asarray(points, np.float64), np.asarray(replicates, np.float64)
    known = ~np.isnan(points)
    points, seeds = points[known], int(known.sum())
    if not seeds:
        return Estimate(np.nan, np.nan, np.nan, 0)
    value = float(points.mean())
    square = ndtri((1 + LEVEL) / 2) ** 2 * image_variance(replicates[known])
    if seeds > 1:
        square += stdtrit(seeds - 1, (1 + LEVEL) / 2) ** 2 * points.var(ddof=1) / seeds
    half = float(np.sqrt(square))
    return Estimate(value, value - half, value + half, seeds)


def image_variance(replicates: np.ndarray) -> float:
    """Variance of the mean over seeds [S, B] that is common to all seeds; NaN if fewer than two
    columns are without NaN.

    That is the mean covariance of two seeds over the resamples, 0 if negative. What images do to a
    single seed is in the spread of the seeds already; resampling both seeds and images counts it
    twice (Owen 2007, The pigeonhole bootstrap). Of one seed it is its whole variance.
    """
    replicates = replicates[:, ~np.isnan(replicates).any(0)]
    seeds, columns = replicates.shape
    if columns < 2:
        return float("nan")
    of_mean = replicates.mean(0).var(ddof=1)
    if seeds == 1:
        return float(of_mean)
    single = replicates.var(1, ddof=1).mean()
    return float(max(0.0, (seeds * of_mean - single) / (seeds - 1)))
