"""Rank correlation of two numbers over networks, with an interval."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri
from scipy.stats import rankdata, spearmanr

from tinyjax.metrics.bootstrap import LEVEL

MIN_NETWORKS = 6  # with fewer the interval covers nearly everything


class Correlation(NamedTuple):
    """Rank correlation with its 95 % interval.

    All numbers are NaN for fewer than `MIN_NETWORKS` networks, or if one of the two variables is
    constant.
    """

    value: float
    low: float
    high: float
    leave_one_out: tuple[float, float]  # lowest and highest value without any one network
    networks: int


def correlation(x: ArrayLike, y: ArrayLike, networks: ArrayLike) -> Correlation:
    """Spearman's rank correlation over networks.

    Members of one network (its seeds) are averaged first: they are not independent networks. The
    interval is Bonett & Wright's (Psychometrika 65, 2000): normal in atanh with variance
    (1 + value² / 2) / (networks - 3). The interval of a perfect order is centered half a step below
    1, which is our own choice. Simulated in tests/metrics/test_correlation.py.

    x, y: [M], numbers of the members; members with a NaN are left out. networks: [M], labels.
    """
    names, a, b = _network_means(x, y, networks)
    count = len(names)
    if count < MIN_NETWORKS:
        return Correlation(np.nan, np.nan, np.nan, (np.nan, np.nan), count)
    value = _spearman(a, b)
    error = ndtri((1 + LEVEL) / 2) * np.sqrt((1 + value**2 / 2) / (count - 3))
    # A perfect order is moved half a step towards the next one: atanh(1) is infinite.
    limit = 1 - 6 / (count * (count**2 - 1))
    center = np.arctanh(np.clip(value, -limit, limit))
    without_one = [_spearman(np.delete(a, k), np.delete(b, k)) for k in range(count)]
    low, high = np.tanh([center - error, center + error]).tolist()
    extremes = float(np.min(without_one)), float(np.max(without_one))
    return Correlation(value, low, high, extremes, count)


def mean_rank_correlation(
    comparisons: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike]],
) -> Correlation:
    """One correlation from several comparisons of the same networks, such as several starts.

    In each comparison the networks are ranked by both numbers; the mean ranks are then correlated.
    More comparisons add no networks, so they do not narrow the interval by themselves. Only
    networks that occur in all comparisons count.

    comparisons: (x, y, networks) of each, as `correlation` takes them.
    """
    means = [_network_means(*comparison) for comparison in comparisons]
    shared = sorted(set.intersection(*({*names} for names, _, _ in means))) if means else []
    ranks = np.zeros((2, len(shared)))
    for names, *variables in means:
        is_shared = np.isin(names, shared)
        ranks += [rankdata(variable[is_shared]) for variable in variables]
    return correlation(ranks[0], ranks[1], np.array(shared))  # sums have the ranks of means


def _network_means(x: ArrayLike, y: ArrayLike, networks: ArrayLike) -> tuple[np.ndarray, ...]:
    """Sorted labels [N] of the networks, and the means of x and y over each network's members."""
    x, y, networks = np.asarray(x, float), np.asarray(y, float), np.asarray(networks)
    known = np.isfinite(x + y)
    names, index = np.unique(networks[known], return_inverse=True)
    members = np.bincount(index)
    return names, *(np.bincount(index, values[known]) / members for values in (x, y))


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)
