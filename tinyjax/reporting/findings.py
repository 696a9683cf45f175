"""What a report says in words, and no more than the data do.

Each rule gives a sentence or None. A difference is stated with its 95 % interval; where that holds
zero the sentence says that it is not shown.
"""

from collections.abc import Sequence

import numpy as np

from tinyjax.metrics.bootstrap import LEVEL, Estimate
from tinyjax.metrics.correlation import Correlation
from tinyjax.metrics.robustness import worst_slice
from tinyjax.reporting.summary import (
    Summary,
    cell,
    counted,
    difference,
    estimate,
    grouped,
    mean,
    of_all,
    over_seeds,
    pairs,
    points,
    replicates,
)
from tinyjax.reporting.tables import CLASSES, Member, Part, Tables

MOST = 8  # sentences


def findings(tables: Tables, summary: Summary) -> list[str]:
    """At most `MOST` sentences, the first of them on what there is to judge by."""
    rules = (
        seeds, stopped, home, shift, size, pretraining, capacity, gradients, effective, slices,
        corruption,
    )  # fmt: skip
    found = [sentence for rule in rules if (sentence := rule(tables, summary))]
    return found[:MOST]


def seeds(tables: Tables, summary: Summary) -> str:
    members = tables.members
    if len(members) == 1:
        (one,) = members
        return (
            f"One network, {one.backbone} of {one.parameters:,} parameters, trained with one seed: "
            "intervals are over images, and say nothing of how another seed would do."
        )
    sizes = sorted({member.parameters for member in members})
    many = f"{sizes[0]:,} to {sizes[-1]:,}" if len(sizes) > 1 else f"{sizes[0]:,}"
    backbones = counted(len({m.backbone for m in members}), "backbone")
    starts = counted(len({m.start for m in members}), "start")
    numbers = sorted({len({m.seed for m in own}) for own in _cells(members)})
    each = f"{numbers[0]} to {numbers[-1]} seeds" if len(numbers) > 1 else _seeds(numbers[0])
    alone = (
        " Intervals are over images alone, and say nothing of how other seeds would do."
        if numbers == [1]
        else ""
    )
    return (
        f"{len(members):,} networks: {backbones} of {many} parameters, {starts}, {each} of each."
        f"{alone}"
    )


def stopped(tables: Tables, summary: Summary) -> str | None:
    ended = [member for member in tables.members if member.diverged_at >= 0]
    if not ended:
        return None
    steps = sorted(member.diverged_at for member in ended)
    when = f"step {steps[0]:,}" if len(ended) == 1 else f"steps {steps[0]:,} to {steps[-1]:,}"
    many = f"{len(ended)} of {len(tables.members)} networks"
    return f"{many} stopped early, at {when}; their scores are counted as they are."


def home(tables: Tables, summary: Summary) -> str | None:
    """The score in the own domain, of networks of one kind."""
    if len(_cells(tables.members)) > 1:
        return None
    suite = tables.members[0].home
    score = estimate(tables, tables.members, Part(suite))
    if not np.isfinite(score.value):
        return None
    return f"In its own domain, {suite}, {tables.title} is {_number(score)}."


def shift(tables: Tables, summary: Summary) -> str | None:
    """What each shift takes, mean over the members."""
    said: list[str] = []
    number: list[int] = []  # of networks, of each shift
    for home in dict.fromkeys(member.home for member in tables.members):
        own = [member for member in tables.members if member.home == home]
        for suite in tables.shifted(own[0]):
            parts = tables.inside(own[0], suite), Part(suite)
            lost = np.subtract(*(points(tables, own, part) for part in parts))
            at = [replicates(tables, own, part.suite, part.slice) for part in parts]
            if np.isnan(lost).all() or at[0].shape != at[1].shape:
                continue
            found = over_seeds(own, lost, at[0] - at[1])
            number.append(int(np.isfinite(lost).sum()))
            words = f"from {' '.join(filter(None, parts[0][:2]))} to {suite}"
            if shown(found):
                said.append(f"{_way(found, 'falls', 'rises')} by {_number(found, True)} {words}")
            else:
                said.append(f"is not shown to change {words} ({_number(found)})")
    if not said:
        return None
    over = f", mean over {number[0]:,} networks" if len({*number}) == 1 and number[0] > 1 else ""
    return f"Under shift the score {_listed(said)}{over}."


def size(tables: Tables, summary: Summary) -> str | None:
    """Largest against smallest, paired in all else."""
    sentences = []
    for home in dict.fromkeys(member.home for member in tables.members):
        own = [member for member in tables.members if member.home == home]
        sizes = sorted({member.parameters for member in own})
        ends = [[m for m in own if m.parameters == s] for s in (sizes[0], sizes[-1])]
        small = {(*_but_size(member), member.seed): member for member in ends[0]}
        both = [(large, small.get((*_but_size(large), large.seed))) for large in ends[1]]
        found = difference(tables, [(a, b) for a, b in both if b], Part(home))
        if len(sizes) < 2 or found is None:
            continue
        words = f"from {sizes[0]:,} to {sizes[-1]:,} parameters on {home}"
        if shown(found):
            way = f"The score {_way(found, 'grows', 'falls')} by {_number(found, True)}"
            sentences.append(f"{way} {words}, {_seeds(found.seeds)}.")
        else:
            number = f"{_number(found)}, {_seeds(found.seeds)}"
            sentences.append(f"A difference {words} is not shown: {number}.")
    return " ".join(sentences) or None


def pretraining(tables: Tables, summary: Summary) -> str | None:
    """What starting weights bring, mean over sizes, in every suite."""
    sentences = []
    for start, both in pairs(tables.members).items():
        said, number = [], 0
        for suite in tables.suites:
            found = difference(tables, both, Part(suite))
            if found is None:
                continue
            number = max(number, found.seeds)
            if shown(found):
                said.append(f"{_way(found, 'gains', 'loses')} {_number(found, True)} on {suite}")
            else:
                said.append(f"is not shown to gain or lose on {suite} ({_number(found)})")
        if said:
            many = f"{counted(len(both), 'pair')}, {_seeds(number)}"
            sentences.append(f"Against scratch, {start} {_listed(said)}: {many}.")
    return " ".join(sentences) or None


def capacity(tables: Tables, summary: Summary) -> str | None:
    sentences = []
    for gain in summary.gains:
        if gain.suite == gain.home and len(tables.suites) > 1:
            continue
        if gain.threshold.found:
            sentences.append(
                f"Capacity threshold of {gain.start} on {gain.suite}: {gain.threshold.reason}."
            )
        else:
            sentences.append(
                f"No capacity threshold of {gain.start} was found on {gain.suite}: "
                f"{gain.threshold.reason}."
            )
    return " ".join(sentences) or None


def gradients(tables: Tables, summary: Summary) -> str | None:
    """Whether those of high relative gradient norm lose more under shift."""
    asked = [one for one in summary.gradients if not np.isnan(one.correlation.value)]
    if not asked:
        return None
    places = [f"on {one.suite}" + f" ({one.kind})" * bool(one.kind) for one in asked]
    if len(asked) == 1:
        said = _correlated(asked[0].correlation)
        return f"The relative gradient norm {said} with the loss {places[0]}."
    ranked = of_all(asked)
    found = [(place, one.correlation) for one, place in zip(asked, places, strict=True)]
    found = [(place, one) for place, one in found if shown(one)]
    leave = "leaves" if len(found) == 1 else "leave"
    sentences = [
        f"One by one, {len(found)} of {len(asked)} correlations of the relative gradient norm "
        f"{leave} zero out; {(1 - LEVEL) * len(asked):.2g} would by chance."
    ]
    if not np.isnan(ranked.value):
        words = f"with the loss under shift, by mean ranks in {len(asked)} comparisons"
        sentences.insert(0, f"The relative gradient norm {_correlated(ranked)} {words}.")
    sentences += [f"{_sentence(place)[:-1]} it {_correlated(one)}." for place, one in found]
    return " ".join(sentences)


def _correlated(found: Correlation) -> str:
    value, low, high, without, networks = found
    number = f"({value:.2f} [{low:.2f}, {high:.2f}], {networks} networks"
    if shown(found):
        left = f"; {without[0]:.2f} to {without[1]:.2f} if any one of them is left out"
        return f"is correlated {number}{left})"
    return f"is not shown to be correlated {number})"


def effective(tables: Tables, summary: Summary) -> str | None:
    """Effective robustness of starting weights against none."""
    said = []
    for fitted in summary.lines:
        place = {member.key: k for k, member in enumerate(fitted.members)}
        for start, both in pairs(fitted.members).items():
            at = [[place[pair[k].key] for pair in both] for k in (0, 1)]
            gained = fitted.effective[at[0]] - fitted.effective[at[1]]
            moved = fitted.replicates[at[0]] - fitted.replicates[at[1]]
            if np.isnan(gained).all() or not moved.shape[1]:
                continue
            found = over_seeds([pair[0] for pair in both], gained, moved)
            words = f"of {start} over scratch on {fitted.suite}"
            if shown(found):
                said.append(f"the effective robustness {words} is {_number(found)}")
            else:
                said.append(f"effective robustness {words} is not shown ({_number(found)})")
    return _sentence(_listed(said)) if said else None


def slices(tables: Tables, summary: Summary) -> str | None:
    """The slice of lowest mean score, against its suite."""
    count = "boxes" if tables.task == "detect" else "images"
    named = {
        f"{part.suite}: {part.slice}": part
        for suite in tables.suites
        for part in tables.parts(suite)
        if part.slice and not part.slice.startswith(f"{CLASSES}=")
    }
    scores = {n: mean(tables.of(m, p) for m in tables.members) for n, p in named.items()}
    sizes = {n: _least(tables.of(m, p, count) for m in tables.members) for n, p in named.items()}
    name, score = worst_slice(scores, sizes)
    if not name:
        return None
    part = named[name]
    own = [member for member in tables.members if part in tables.scores[member.key]]
    lost = points(tables, own, part) - points(tables, own, Part(part.suite))
    moved = [replicates(tables, own, part.suite, s) for s in (part.slice, "")]
    found = over_seeds(own, lost, moved[0] - moved[1])
    below = (
        f"{_number(found)} against all of {part.suite}"
        if shown(found)
        else f"a difference from all of {part.suite} is not shown ({_number(found)})"
    )
    return f"The lowest of {len(named)} slices is {name}, {score:.3f}: {below}."


def corruption(tables: Tables, summary: Summary) -> str | None:
    numbers = [summary.numbers[member.key] for member in tables.members]
    if np.isnan(kept := mean(one.rpc for one in numbers)):
        return None
    kinds: dict[str, list[float]] = {}
    for suite in tables.corrupted:
        for part in tables.parts(suite):
            if part.corruption:
                kinds.setdefault(part.corruption, []).extend(
                    tables.of(member, part) for member in tables.members
                )
    lowest = min(kinds, key=lambda kind: mean(kinds[kind]))
    return (
        f"Under corruption {kept:.0%} of the clean score is kept (rPC); the mean score is lowest "
        f"under {lowest}, {mean(kinds[lowest]):.3f}, without an interval."
    )


# ---- parts of sentences


def shown(found: Estimate | Correlation) -> bool:
    """Whether the interval is there and does not hold zero."""
    return found.low > 0 or found.high < 0


def _cells(members: Sequence[Member]) -> list[list[Member]]:
    return [*grouped(members, lambda member: repr(cell(member))).values()]


def _but_size(member: Member) -> tuple:
    return member.run, member.start, *member.varied.items()


def _seeds(number: int) -> str:
    return "one seed" if number == 1 else f"{number} seeds"


def _least(values) -> int:
    return int(min((v for v in values if np.isfinite(v)), default=0))


def _number(found: Estimate, size: bool = False) -> str:
    """A value and its interval; size: without its sign."""
    value, low, high, _ = found
    if size and value < 0:
        value, low, high = -value, -high, -low
    near = f"{value:.3f}".replace("-0.000", "0.000")  # of its ends the sign is the finding
    return f"{near} [{low:.3f}, {high:.3f}]"


def _way(found: Estimate, up: str, down: str) -> str:
    return up if found.value > 0 else down


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words[:-1]) + " and " * (len(words) > 1) + words[-1]


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:] + "."
