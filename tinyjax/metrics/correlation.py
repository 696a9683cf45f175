"""Rank correlation of two variables over networks, with an interval."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri
from scipy.stats import rankdata, spearmanr

from tinyjax.metrics.bootstrap import CONFIDENCE_LEVEL

MIN_NETWORKS = 6  # with fewer, the interval contains nearly all values


class Correlation(NamedTuple):
    """Rank correlation with its 95 % interval.

    All values are NaN for fewer than `MIN_NETWORKS` networks, and if a variable is constant.
    """

    value: float
    low: float
    high: float
    leave_one_out: tuple[float, float]  # lowest and highest value if one network is left out
    networks: int


def correlation(x: ArrayLike, y: ArrayLike, networks: ArrayLike) -> Correlation:
    """Return Spearman's rank correlation over networks.

    The members of one network, its seeds, are averaged first, because they are not independent
    networks. The interval is Bonett & Wright's (Psychometrika 65, 2000): normal in atanh with
    variance (1 + value² / 2) / (networks - 3). For a perfect correlation its center is moved by
    half a step towards 0, which is our own choice; tests/metrics/test_correlation.py simulates it.

    x, y: [M], values of the members; members with a NaN are ignored. networks: [M], labels.
    """
    names, x_means, y_means = _network_means(x, y, networks)
    count = len(names)
    if count < MIN_NETWORKS:
        return Correlation(np.nan, np.nan, np.nan, (np.nan, np.nan), count)
    value = _spearman(x_means, y_means)
    half_width = ndtri((1 + CONFIDENCE_LEVEL) / 2) * np.sqrt((1 + value**2 / 2) / (count - 3))
    # A step is the difference between the two largest possible values; atanh(1) is infinite.
    limit = 1 - 6 / (count * (count**2 - 1))
    center = np.arctanh(np.clip(value, -limit, limit))
    without_one = [_spearman(np.delete(x_means, k), np.delete(y_means, k)) for k in range(count)]
    low, high = np.tanh([center - half_width, center + half_width]).tolist()
    extremes = float(np.min(without_one)), float(np.max(without_one))
    return Correlation(value, low, high, extremes, count)


def mean_rank_correlation(
    comparisons: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike]],
) -> Correlation:
    """Return one correlation from several comparisons of the same networks.

    For example, each comparison has different initial weights. In each comparison, the networks are
    ranked by x and by y; then the mean ranks are correlated. Comparisons add no networks, so more
    of them do not by themselves narrow the interval. Networks that are missing in a comparison are
    ignored.

    comparisons: arguments (x, y, networks) of `correlation`, for each comparison.
    """
    means = [_network_means(*comparison) for comparison in comparisons]
    shared = sorted(set.intersection(*({*names} for names, _, _ in means))) if means else []
    ranks = np.zeros((2, len(shared)))
    for names, *variables in means:
        is_shared = np.isin(names, shared)
        ranks += [rankdata(variable[is_shared]) for variable in variables]
    return correlation(ranks[0], ranks[1], np.array(shared))  # sums have the ranks of means


def _network_means(x: ArrayLike, y: ArrayLike, networks: ArrayLike) -> tuple[np.ndarray, ...]:
    """Return sorted labels [N] of networks, and means of x and y over each network's members."""
    x, y, networks = np.asarray(x, float), np.asarray(y, float), np.asarray(networks)
    finite = np.isfinite(x + y)
    names, index = np.unique(networks[finite], return_inverse=True)
    num_members = np.bincount(index)
    return names, *(np.bincount(index, values[finite]) / num_members for values in (x, y))


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)
