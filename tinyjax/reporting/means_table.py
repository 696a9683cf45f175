"""The table report.csv: mean scores and gains of each network, with intervals."""

from collections.abc import Iterator
from typing import Any

from tinyjax.metrics.bootstrap import Estimate
from tinyjax.reporting.estimates import estimate_difference, estimate_score
from tinyjax.reporting.grouping import group_networks, pair_with_scratch, pair_with_unfrozen
from tinyjax.reporting.tables import Condition, Member, Tables


def network_rows(tables: Tables) -> list[dict[str, Any]]:
    """A row for each network, suite and slice; members that differ only in the seed are a network.

    Column "score" is the mean over "seeds" seeds; "gain" is the mean difference from the same
    network trained from scratch, over "pairs" pairs of equal seed. If some members have frozen
    parameters, "freezing_gain" is the mean difference from the same network with all parameters
    trained. All have 95 % intervals.
    """
    pairs = pair_with_scratch(tables.members)
    scratch_of = {member.key: scratch for p in pairs.values() for member, scratch in p}
    unfrozen_of = {
        m.key: other for p in pair_with_unfrozen(tables.members).values() for m, other in p
    }
    fields = dict.fromkeys(f for m in tables.members for f in {**m.varied, **m.start_fields})
    rows = []
    for members in group_networks(tables.members):
        first = members[0]
        values = {**first.varied, **first.start_fields}
        network = {
            "run": first.run,
            "backbone": first.backbone,
            "parameters": first.parameters,
            "trained_parameters": first.trained_parameters,
            "multiply_adds": first.multiply_adds,
            "start": first.start,
            **{field: values.get(field, "") for field in fields},
        }
        network_pairs = [(m, scratch_of[m.key]) for m in members if m.key in scratch_of]
        frozen_pairs = [(m, unfrozen_of[m.key]) for m in members if m.key in unfrozen_of]
        for condition in _uncorrupted_conditions(tables, first):
            score = estimate_score(tables, members, condition)
            gain = estimate_difference(tables, network_pairs, condition)
            freezing = estimate_difference(tables, frozen_pairs, condition)
            rows.append(
                {
                    **network,
                    "suite": condition.suite,
                    "slice": condition.slice,
                    "seeds": score.seeds,
                    **_estimate_columns("score", score),
                    "pairs": gain.seeds if gain else 0,
                    **_estimate_columns("gain", gain),
                    **(_estimate_columns("freezing_gain", freezing) if unfrozen_of else {}),
                }
            )
    return rows


def _uncorrupted_conditions(tables: Tables, member: Member) -> Iterator[Condition]:
    for suite in tables.suites:
        for condition in tables.conditions(suite):
            if not condition.corruption and condition in tables.scores[member.key]:
                yield condition


def _estimate_columns(name: str, estimate: Estimate | None) -> dict[str, Any]:
    """Value and interval; empty if unknown."""
    values = ("", "", "") if estimate is None or not estimate.seeds else estimate[:3]
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
