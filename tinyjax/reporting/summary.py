"""What a report says in numbers: of every member, of groups of them, of pairs and of all."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tinyjax.metrics import fits
from tinyjax.metrics.bootstrap import Estimate, interval
from tinyjax.metrics.correlation import Correlation, correlation, of_mean_ranks
from tinyjax.metrics.fits import Line, Threshold
from tinyjax.metrics.robustness import gap, mpc, relative_drop, rpc, worst_slice
from tinyjax.reporting.tables import CLASSES, SCRATCH, Member, Part, Tables

MOST_KINDS = 7  # that colors tell apart
MOST_SETTINGS = 3  # in which a start's gain is told one by one


class Numbers(NamedTuple):
    """Of one member. Of several shifted suites the mean is meant; NaN is what there is not."""

    home: float  # in-domain score
    shifted: float
    gap: float
    drop: float  # relative
    effective: float  # robustness
    worst: tuple[str, float]  # "suite/slice" and its score
    mpc: float
    rpc: float
    ece: float


class Gain(NamedTuple):
    """Of starting weights over none in a suite, in P pairs of the same seed and settings; pooled
    settings are averaged.
    """

    start: str  # and in what settings, as `pairs` calls them
    home: str  # the own domain of the pairs
    suite: str
    parameters: np.ndarray  # [P]
    gains: np.ndarray  # [P]
    replicates: np.ndarray  # [P, B]
    threshold: Threshold


class Fitted(NamedTuple):
    """A line through the members of a domain, in-domain against one shifted suite."""

    inside: Part
    suite: str
    members: tuple[Member, ...]
    effective: np.ndarray  # [M]
    replicates: np.ndarray  # [M, B], the same on resampled images
    line: Line


class Gradients(NamedTuple):
    """Relative gradient norms of a kind of members, against what they lose under a shift."""

    kind: str
    suite: str
    members: tuple[Member, ...]
    lost: np.ndarray  # [M], of the in-domain score, its part
    correlation: Correlation


class Summary(NamedTuple):
    numbers: dict[str, Numbers]  # by the member's key
    kinds: dict[str, str]  # what a member is beside its size, in words
    gains: tuple[Gain, ...]
    lines: tuple[Fitted, ...]
    gradients: tuple[Gradients, ...]


def summarize(tables: Tables) -> Summary:
    lines = tuple(_lines(tables))
    effective: dict[str, list[float]] = {member.key: [] for member in tables.members}
    for fitted in lines:
        for member, value in zip(fitted.members, fitted.effective, strict=True):
            effective[member.key].append(float(value))
    numbers = {m.key: _numbers(tables, m, effective[m.key]) for m in tables.members}
    gains, gradients = tuple(_gains(tables)), tuple(_gradients(tables))
    return Summary(numbers, kinds(tables.members), gains, lines, gradients)


def points(tables: Tables, members: Iterable[Member], part: Part, column: str = "") -> np.ndarray:
    """Scores [S] of members."""
    return np.array([tables.of(member, part, column) for member in members])


def replicates(
    tables: Tables, members: Iterable[Member], suite: str, slice: str = ""
) -> np.ndarray:
    """Scores [S, B] on resampled images; NaN where a member has none."""
    name = f"{suite}/{slice}" if slice else suite
    found = [tables.resampled.get(member.key, {}).get(name, ()) for member in members]
    table = np.full((len(found), max(map(len, found), default=0)), np.nan)
    for row, own in zip(table, found, strict=True):
        row[: len(own)] = own
    return table


def estimate(tables: Tables, members: Sequence[Member], part: Part) -> Estimate:
    """Mean score of members, with interval, see `over_seeds`."""
    values = points(tables, members, part)
    return over_seeds(members, values, replicates(tables, members, part.suite, part.slice))


def difference(
    tables: Tables, both: Sequence[tuple[Member, Member]], part: Part
) -> Estimate | None:
    """Mean of what the first of each pair scores beyond the second, see `over_seeds`; None where
    there is nothing to tell.
    """
    sides = [[pair[k] for pair in both] for k in (0, 1)]
    gained = np.subtract(*(points(tables, side, part) for side in sides))
    moved = [replicates(tables, side, part.suite, part.slice) for side in sides]
    if not len(gained) or np.isnan(gained).all() or moved[0].shape != moved[1].shape:
        return None
    return over_seeds(sides[0], gained, moved[0] - moved[1])


def over_seeds(members: Sequence[Member], values: np.ndarray, replicates: np.ndarray) -> Estimate:
    """Mean over members [M] with interval: of each seed first the mean over its networks, so that
    networks are not taken for seeds. Only those count that all seeds have, if there are any.
    """
    own: dict[int, dict[tuple, list[int]]] = {}
    for k, member in enumerate(members):
        if np.isfinite(values[k]):
            own.setdefault(member.seed, {}).setdefault(cell(member), []).append(k)
    shared = set.intersection(*({*cells} for cells in own.values())) if own else set()
    at = [
        [k for key, some in cells.items() if key in shared or not shared for k in some]
        for cells in own.values()
    ]
    means = np.array([values[k].mean() for k in at])
    return interval(means, np.array([replicates[k].mean(0) for k in at]))


def mean(values: Iterable[float]) -> float:
    """Mean of what is known; NaN of nothing."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def of_all(gradients: Iterable[Gradients]) -> Correlation:
    """One answer of all of them, see `of_mean_ranks`."""
    return of_mean_ranks(
        [([m.rgn for m in g.members], g.lost, [m.backbone for m in g.members]) for g in gradients]
    )


# ---- groups


def cell(member: Member) -> tuple:
    """All that a member is, but its seed."""
    return member.run, member.backbone, member.parameters, member.start, *member.varied.items()


def grouped(members: Iterable[Member], by: Callable[[Member], str]) -> dict[str, list[Member]]:
    """Members by a label, in order of their size."""
    found: dict[str, list[Member]] = {}
    for member in sorted(members, key=lambda m: m.parameters):
        found.setdefault(by(member), []).append(member)
    return found


def kinds(members: Sequence[Member]) -> dict[str, str]:
    """Of each member, by key, what it is beside its size: run, start, other fields, as far as the
    members differ in them and colors can tell the kinds apart.
    """
    label = _labels(members)
    for parts in ((True, True, True), (True, True, False), (False, True, False)):
        found = {m.key: label(m, *parts) for m in members}
        if len({*found.values()}) <= MOST_KINDS:
            return found
    return dict.fromkeys(found, "")


def _labels(members: Sequence[Member]) -> Callable[[Member, bool, bool, bool], str]:
    """`label(member, run, start, others)`: in words what of these sets it apart from the others; of
    other fields those that its own run varies, the run's name says the rest.
    """
    every = dict.fromkeys(f for m in members for f in m.varied)
    runs: dict[str, list[Member]] = {}
    for member in members:
        runs.setdefault(member.run, []).append(member)
    fields = {
        run: [f for f in every if len({m.varied.get(f) for m in own}) > 1]
        for run, own in runs.items()
    }
    several = len({m.run for m in members}) > 1, len({m.start for m in members}) > 1

    def label(m: Member, run: bool, start: bool, others: bool) -> str:
        words = [m.run] * (run and several[0]) + [m.start] * (start and several[1])
        words += [f"{f} {m.varied.get(f) or 'default'}" for f in fields[m.run] if others]
        return ", ".join(words)

    return label


def groups(
    members: Sequence[Member], kind: Mapping[str, str], most: int
) -> dict[str, list[Member]]:
    """Members in at most so many groups: by backbone and kind if that does, else by backbone, by
    kind, or by quarters of their sizes.
    """
    sizes = sorted(member.parameters for member in members)
    edges = [sizes[len(sizes) * k // 4] for k in (1, 2, 3)]

    def quarter(m: Member) -> str:
        return f"quarter {1 + sum(m.parameters >= edge for edge in edges)} of the sizes"

    def both(m: Member) -> str:
        return " · ".join(filter(None, (short(m.backbone), kind[m.key])))

    ways: tuple[Callable[[Member], str], ...] = (
        both, lambda m: short(m.backbone), lambda m: kind[m.key] or "all", quarter,
    )  # fmt: skip
    for way in ways:
        found = grouped(members, way)
        if len(found) <= most:
            break
    return found


def short(backbone: str) -> str:
    """A backbone without its family, as "s-2" of "mobilenetv3/s-2"."""
    return backbone.rpartition("/")[2]


def counted(number: int, singular: str, plural: str = "") -> str:
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


# ---- of one member, of all, of pairs


def _numbers(tables: Tables, member: Member, effective: Sequence[float]) -> Numbers:
    home = tables.of(member, Part(member.home))
    shifted = mean(tables.of(member, Part(suite)) for suite in tables.shifted(member))
    count = "boxes" if tables.task == "detect" else "images"
    slices, sizes, corrupted, ratios = {}, {}, [], []
    for part, row in tables.scores[member.key].items():
        if part.slice and not part.slice.startswith(f"{CLASSES}="):
            name = f"{part.suite}/{part.slice}"
            slices[name] = tables.of(member, part)
            sizes[name] = int(row.get(count, 0))
    for suite in tables.corrupted:
        own = {
            (part.corruption, part.severity): np.asarray(tables.of(member, part))
            for part in tables.scores[member.key]
            if part.suite == suite and part.corruption
        }
        if own:
            corrupted.append(float(mpc(own)))
            clean = np.asarray(tables.of(member, Part(suite)))
            ratios.append(float(rpc(np.asarray(corrupted[-1]), clean)))
    inside = mean(tables.of(member, tables.inside(member, s)) for s in tables.shifted(member))
    both = np.asarray(inside), np.asarray(shifted)
    return Numbers(
        home,
        shifted,
        float(gap(*both)),
        float(relative_drop(*both)),
        mean(effective),
        worst_slice(slices, sizes),
        mean(corrupted),
        mean(ratios),
        tables.of(member, Part(member.home), "ECE"),
    )


def _lines(tables: Tables) -> Iterable[Fitted]:
    """For every domain and every suite that is shifted from it; none where no line is found."""
    for home in dict.fromkeys(member.home for member in tables.members):
        own = tuple(member for member in tables.members if member.home == home)
        cells = {c: k for k, c in enumerate(dict.fromkeys(map(cell, own)))}
        for suite in tables.shifted(own[0]):
            inner = tables.inside(own[0], suite)
            inside, shifted = (points(tables, own, part) for part in (inner, Part(suite)))
            which = np.array([cells[cell(member)] for member in own])
            effective, line = fits.effective_robustness(inside, shifted, which)
            if np.isfinite(effective).any():
                again, _ = fits.effective_robustness(
                    replicates(tables, own, home, inner.slice),
                    replicates(tables, own, suite),
                    which,
                )
                yield Fitted(inner, suite, own, effective, again, line)


def pairs(members: Sequence[Member]) -> dict[str, list[tuple[Member, Member]]]:
    """Start -> (a member with it, the one from scratch that has all else the same); apart by run
    and by other fields, if there are few of them, else by run.
    """
    plain = {(*_but_start(m), m.seed): m for m in members if m.start == SCRATCH}
    both = [
        (member, other)
        for member in members
        if member.start != SCRATCH and (other := plain.get((*_but_start(member), member.seed)))
    ]
    label = _labels(members)
    few = len({label(pair[0], True, False, True) for pair in both}) <= MOST_SETTINGS
    found: dict[str, list[tuple[Member, Member]]] = {}
    for pair in both:
        words = label(pair[0], True, False, few)
        start = pair[0].start
        found.setdefault(f"{start} ({words})" if words else start, []).append(pair)
    return found


def _but_start(member: Member) -> tuple:
    return member.run, member.backbone, member.parameters, *member.varied.items()


def _gains(tables: Tables) -> Iterable[Gain]:
    for start, own in pairs(tables.members).items():
        with_start, without = ([pair[k] for pair in own] for k in (0, 1))
        for suite in tables.suites:
            gains = np.subtract(*(points(tables, s, Part(suite)) for s in (with_start, without)))
            both = [replicates(tables, side, suite) for side in (with_start, without)]
            if both[0].shape != both[1].shape or np.isnan(gains).all():
                continue
            parameters, gains, moved = _pooled(with_start, gains, both[0] - both[1])
            found = fits.threshold(parameters, gains, moved)
            yield Gain(start, with_start[0].home, suite, parameters, gains, moved, found)


def _gradients(tables: Tables) -> Iterable[Gradients]:
    """For every run, start, and what else it varies beside sizes and seeds, and every shift."""
    known = [member for member in tables.members if np.isfinite(member.rgn)]
    label = _labels(known)
    for kind, own in grouped(known, lambda m: label(m, True, True, True)).items():
        for suite in tables.suites:
            some = tuple(m for m in own if suite in tables.shifted(m))
            inside = np.array([tables.of(m, tables.inside(m, suite)) for m in some])
            lost = relative_drop(inside, points(tables, some, Part(suite)))
            if not np.isfinite(lost).any():
                continue
            rgn = np.array([m.rgn for m in some])
            networks = np.array([repr(cell(m)) for m in some])
            yield Gradients(kind, suite, some, lost, correlation(rgn, lost, networks))


def _pooled(
    members: Sequence[Member], gains: np.ndarray, moved: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Parameters [P], gains [P] and replicates [P, B], one of each size and seed: settings that
    were pooled are no further seeds. Gains that are NaN are left out.
    """
    known = np.isfinite(gains)
    places = np.array([[member.parameters, member.seed] for member in members])[known]
    units, which = np.unique(places, axis=0, return_inverse=True)
    share = which.ravel() == np.arange(len(units))[:, None]  # unit pair
    share = share / share.sum(1, keepdims=True)
    return units[:, 0], share @ gains[known], share @ moved[known]
