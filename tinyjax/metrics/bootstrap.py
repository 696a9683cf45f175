"""Confidence intervals of scores measured with several seeds on one set of images.

Seeds and images are both random samples: an interval covers new seeds *and* new images. The scores
of different seeds are independent, but all seeds are scored on the same images, so the variation
between images does not average out over seeds. `benchmarks/coverage.py` simulates how often the
interval contains the true value.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit

CONFIDENCE_LEVEL = 0.95


class Estimate(NamedTuple):
    """A value with its 95 % interval.

    With seeds = 1 the interval covers new images only, not new seeds. With seeds = 0 all numbers
    are NaN.
    """

    value: float
    low: float
    high: float
    seeds: int


def interval(points: np.ndarray, replicates: np.ndarray) -> Estimate:
    """Return the mean over S seeds, with its interval.

        mean ± sqrt(t² s² / S + z² v)

    s² is the variance of the points, t Student's quantile with S - 1 degrees of freedom, v the
    variance from images that all seeds share (`image_variance`), z the normal quantile. The squared
    half widths of these two independent sources are added, as in the methods of Howe and MOVER (Zou
    & Donner 2008). In simulation, the interval contains the true value in 95 to 98 % of cases if S
    is 2 or more; percentiles of a hierarchical bootstrap do so in 77 to 99.8 %
    (docs/robustness.md). The interval may extend below 0 and above 1.

    Args:
        points: [S], one number per seed: a score or a function of scores. NaN (a diverged member, a
            slice without objects) is ignored.
        replicates: [S, B], the same numbers on B resamples of the images; column b is the same
            resample for all seeds. Columns that contain NaN are ignored.
    """
    points, replicates = np.asarray(points, np.float64), np.asarray(replicates, np.float64)
    valid = ~np.isnan(points)
    points, seeds = points[valid], int(valid.sum())
    if not seeds:
        return Estimate(np.nan, np.nan, np.nan, 0)
    value = float(points.mean())
    squared_half_width = ndtri((1 + CONFIDENCE_LEVEL) / 2) ** 2 * image_variance(replicates[valid])
    if seeds > 1:
        t = stdtrit(seeds - 1, (1 + CONFIDENCE_LEVEL) / 2)
        squared_half_width += t**2 * points.var(ddof=1) / seeds
    half_width = float(np.sqrt(squared_half_width))
    return Estimate(value, value - half_width, value + half_width, seeds)


def image_variance(replicates: np.ndarray) -> float:
    """Return the variance from images that all seeds share, from scores [S, B] on B resamples.

    It is the mean covariance between two seeds over the resamples, or 0 if that is negative. The
    rest of the variance over resamples is different for each seed and already contained in the
    variance between seeds; resampling both seeds and images counts it twice (Owen 2007, The
    pigeonhole bootstrap). With one seed it is the variance of that seed. It is NaN if fewer than
    two columns are without NaN.
    """
    replicates = replicates[:, ~np.isnan(replicates).any(0)]
    seeds, columns = replicates.shape
    if columns < 2:
        return float("nan")
    variance_of_mean = replicates.mean(0).var(ddof=1)
    if seeds == 1:
        return float(variance_of_mean)
    mean_variance = replicates.var(1, ddof=1).mean()
    return float(max(0.0, (seeds * variance_of_mean - mean_variance) / (seeds - 1)))
