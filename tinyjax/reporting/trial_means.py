"""Means over the trials of a data set, of which each trains networks of its own, as on RegDB."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyjax.metrics.bootstrap import interval
from tinyjax.reporting.tables import FIXED_COLUMNS, KEY_COLUMNS
from tinyjax.run.text import text_table

TRIAL = "data.common.trial"
SCORES = ("R1", "R5", "R10", "R20", "mAP", "mINP")
CONDITION = tuple(name for name in KEY_COLUMNS if name != "member")

Row = Mapping[str, Any]


def mean_rows(scores: Sequence[Row], members: Sequence[Row]) -> list[dict[str, Any]]:
    """The mean of each score over the trials of a network, and its 95 % interval.

    The interval is Student's t over the trials, which are taken as independent: each is another
    random division of the same identities, and has a seed of its own if the sweep varies it. Seeds
    within a trial are averaged first.

    Args:
        scores: rows of an evaluation, see `tables.KEY_COLUMNS`.
        members: rows of members.csv. Members that differ only in trial and seed are a network.

    Returns rows with the network's fields, the condition, "score", "trials", "mean", "low" and
    "high"; none for a network with fewer than two trials.
    """
    networks = {row["member"]: _network_fields(row) for row in members}
    trials = {row["member"]: row.get(TRIAL, "") for row in members}
    groups: dict[tuple, dict[str, list[float]]] = {}
    for row in scores:
        fields, condition = networks[row["member"]], {name: row[name] for name in CONDITION}
        for name in (name for name in SCORES if name in row):
            key = (*fields.items(), *condition.items(), ("score", name))
            by_trial = groups.setdefault(key, {})
            by_trial.setdefault(trials[row["member"]], []).append(float(row[name]))
    rows = []
    for key, by_trial in groups.items():
        if len(by_trial) > 1:
            means = np.array([np.mean(values) for values in by_trial.values()])
            # Trials have other test identities: they share no variance from resampled images.
            mean, low, high, count = interval(means, np.zeros((len(means), 2)))
            rows.append({**dict(key), "trials": count, "mean": mean, "low": low, "high": high})
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows of `mean_rows` as text."""
    columns = [name for name in rows[0] if any(row[name] != "" for row in rows)]
    return text_table([dict(row) for row in rows], columns)


def _network_fields(member: Row) -> dict[str, str]:
    left_out = {TRIAL, *FIXED_COLUMNS} - {"backbone"}
    return {name: value for name, value in member.items() if name not in left_out}
