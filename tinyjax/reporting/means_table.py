"""The table of a report that can be quoted: networks, means of their seeds, with intervals."""

from collections.abc import Iterator
from typing import Any

from tinyjax.metrics.bootstrap import Estimate
from tinyjax.reporting.summary import cell, difference, estimate, grouped, pairs
from tinyjax.reporting.tables import Member, Part, Tables


def means(tables: Tables) -> list[dict[str, Any]]:
    """A row for every network (members alike in all but their seed), suite and slice: "score" with
    its 95 % interval over "seeds", and "gain", with its own, over the same network from scratch, in
    "pairs" of the same seed.
    """
    other = {a.key: b for both in pairs(tables.members).values() for a, b in both}
    fields = dict.fromkeys(f for m in tables.members for f in {**m.varied, **m.tied})
    rows = []
    for members in grouped(tables.members, lambda m: repr(cell(m))).values():
        first = members[0]
        more = {field: {**first.varied, **first.tied}.get(field, "") for field in fields}
        about = {
            "run": first.run,
            "backbone": first.backbone,
            "parameters": first.parameters,
            "multiply_adds": first.multiply_adds,
            "start": first.start,
            **more,
        }
        both = [(member, other[member.key]) for member in members if member.key in other]
        for part in _parts(tables, first):
            found = estimate(tables, members, part)
            gained = difference(tables, both, part)
            rows.append(
                {
                    **about,
                    "suite": part.suite,
                    "slice": part.slice,
                    "seeds": found.seeds,
                    **_numbers("score", found),
                    "pairs": gained.seeds if gained else 0,
                    **_numbers("gain", gained),
                }
            )
    return rows


def _parts(tables: Tables, member: Member) -> Iterator[Part]:
    for suite in tables.suites:
        yield from (
            part
            for part in tables.parts(suite)
            if not part.corruption and part in tables.scores[member.key]
        )


def _numbers(name: str, found: Estimate | None) -> dict[str, Any]:
    """Empty where there is none."""
    values = ("", "", "") if found is None or not found.seeds else found[:3]
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
