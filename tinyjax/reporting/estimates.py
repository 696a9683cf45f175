"""Means of members' scores, with intervals over seeds and images."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from tinyjax.metrics.bootstrap import Estimate, interval
from tinyjax.reporting.grouping import network_key
from tinyjax.reporting.tables import Condition, Member, Tables


def member_scores(
    tables: Tables, members: Iterable[Member], condition: Condition, column: str = ""
) -> np.ndarray:
    """Scores [M] of members."""
    return np.array([tables.score(member, condition, column) for member in members])


def resampled_scores(tables: Tables, members: Iterable[Member], condition: Condition) -> np.ndarray:
    """Scores [M, B] of members on resampled images; NaN for members without resamples."""
    suite, slice, *_ = condition
    name = f"{suite}/{slice}" if slice else suite
    rows = [tables.resampled.get(member.key, {}).get(name, ()) for member in members]
    scores = np.full((len(rows), max(map(len, rows), default=0)), np.nan)
    for scores_row, row in zip(scores, rows, strict=True):
        scores_row[: len(row)] = row
    return scores


def estimate_score(tables: Tables, members: Sequence[Member], condition: Condition) -> Estimate:
    """Mean score of members, see `estimate_over_seeds`."""
    scores = member_scores(tables, members, condition)
    return estimate_over_seeds(members, scores, resampled_scores(tables, members, condition))


def estimate_difference(
    tables: Tables, pairs: Sequence[tuple[Member, Member]], condition: Condition
) -> Estimate | None:
    """Mean score of the first member of each pair minus that of the second.

    See `estimate_over_seeds`. None if all differences are NaN or the resamples do not match.
    """
    first, second = ([pair[k] for pair in pairs] for k in (0, 1))
    paired = paired_differences(tables, (first, condition), (second, condition))
    return paired and estimate_over_seeds(first, *paired)


def paired_differences(
    tables: Tables,
    first: tuple[Sequence[Member], Condition],
    second: tuple[Sequence[Member], Condition],
) -> tuple[np.ndarray, np.ndarray] | None:
    """Differences of scores [M], and of scores on resampled images [M, B].

    first, second: M members each, and the condition of their scores. None if all differences are
    NaN or the resamples do not match.
    """
    differences = member_scores(tables, *first) - member_scores(tables, *second)
    replicates = [resampled_scores(tables, *side) for side in (first, second)]
    if np.isnan(differences).all() or replicates[0].shape != replicates[1].shape:
        return None
    return differences, replicates[0] - replicates[1]


def estimate_over_seeds(
    members: Sequence[Member], values: np.ndarray, replicates: np.ndarray
) -> Estimate:
    """Mean of values [M] with its interval; replicates [M, B] are the values on resampled images.

    Values are first averaged over the networks of each seed, so that networks do not count as
    seeds. Networks that some seed lacks are left out, unless this would leave out all.
    """
    by_seed: dict[int, dict[tuple, list[int]]] = {}
    for k, member in enumerate(members):
        if np.isfinite(values[k]):
            networks = by_seed.setdefault(member.seed, {})
            networks.setdefault(network_key(member), []).append(k)
    shared = set.intersection(*({*n} for n in by_seed.values())) if by_seed else set()
    indices = [
        [k for key, rows in networks.items() if key in shared or not shared for k in rows]
        for networks in by_seed.values()
    ]
    means = np.array([values[k].mean() for k in indices])
    return interval(means, np.array([replicates[k].mean(0) for k in indices]))


def nan_mean(values: Iterable[float]) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
