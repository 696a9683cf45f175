"""Whether one number of a network says another."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri
from scipy.stats import rankdata, spearmanr

from tinyjax.metrics.bootstrap import LEVEL

LEAST = 6  # networks, below which an interval holds nearly everything


class Correlation(NamedTuple):
    """Of ranks, with its 95 % interval, and the lowest and highest that is left when any one
    network is not looked at; NaN of fewer than `LEAST` networks, or where one number is constant.
    """

    value: float
    low: float
    high: float
    without: tuple[float, float]
    networks: int


def correlation(x: ArrayLike, y: ArrayLike, networks: ArrayLike) -> Correlation:
    """Spearman's rank correlation over networks.

    x, y: [M], numbers of members; those where one is NaN are left out. networks: [M], labels; what
    is correlated are their means over members, since the seeds of a network are no further
    networks. The interval is Bonett & Wright's (Psychometrika 65, 2000): normal in atanh, variance
    (1 + value² / 2) / (networks - 3); that of a perfect order begins half a step below it, our own
    choice. Simulated: tests/metrics/test_correlation.py.
    """
    names, a, b = _means(x, y, networks)
    count = len(names)
    if count < LEAST:
        return Correlation(np.nan, np.nan, np.nan, (np.nan, np.nan), count)
    value = _spearman(a, b)
    error = ndtri((1 + LEVEL) / 2) * np.sqrt((1 + value**2 / 2) / (count - 3))
    # A perfect order is as if half a step from the next: no interval is a point.
    most = 1 - 6 / (count * (count**2 - 1))
    middle = np.arctanh(np.clip(value, -most, most))
    left = [_spearman(np.delete(a, k), np.delete(b, k)) for k in range(count)]
    low, high = np.tanh([middle - error, middle + error]).tolist()
    return Correlation(value, low, high, (float(np.min(left)), float(np.max(left))), count)


def of_mean_ranks(asked: Sequence[tuple[ArrayLike, ArrayLike, ArrayLike]]) -> Correlation:
    """One answer to a question that was asked several times of the same networks, as after each of
    several starts: each time they are ranked by either number, and the means of their ranks are
    correlated. Asking more often adds no networks, and does not narrow the interval by itself.

    asked: each the x, y and networks of `correlation`; of networks those that all of them know.
    """
    each = [_means(*one) for one in asked]
    shared = sorted(set.intersection(*({*names} for names, _, _ in each))) if each else []
    ranks = np.zeros((2, len(shared)))
    for names, *numbers in each:
        own = np.isin(names, shared)
        ranks += [rankdata(number[own]) for number in numbers]
    return correlation(ranks[0], ranks[1], np.array(shared))  # sums have the ranks of means


def _means(x: ArrayLike, y: ArrayLike, networks: ArrayLike) -> tuple[np.ndarray, ...]:
    """Networks [N] in order, and of each the means of what is known of both numbers."""
    x, y, networks = np.asarray(x, float), np.asarray(y, float), np.asarray(networks)
    known = np.isfinite(x + y)
    names, own = np.unique(networks[known], return_inverse=True)
    each = np.bincount(own)
    return names, *(np.bincount(own, values[known]) / each for values in (x, y))


def _spearman(a: np.ndarray, b: np.ndarray) -> float:
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)
