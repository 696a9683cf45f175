"""Findings of a report, at its top.

Each rule returns a finding (one or more sentences) or None. A difference is stated with its 95 %
interval; if the interval contains zero, it is called not significant.
"""

from collections.abc import Sequence

import numpy as np

from tinyjax.metrics.bootstrap import CONFIDENCE_LEVEL, Estimate
from tinyjax.metrics.correlation import Correlation
from tinyjax.metrics.robustness import worst_slice
from tinyjax.metrics.slices import CLASS_SLICE_PREFIX
from tinyjax.reporting.estimates import (
    estimate_difference,
    estimate_over_seeds,
    estimate_score,
    nan_mean,
    paired_differences,
)
from tinyjax.reporting.grouping import count_text, group_networks, pair_with_scratch
from tinyjax.reporting.summary import FreezingGain, Summary, overall_correlation
from tinyjax.reporting.tables import GAP_COLUMNS, PROBE_COLUMN, Condition, Member, Tables
from tinyjax.run.text import value_range

MAX_FINDINGS = 8


def make_findings(tables: Tables, summary: Summary) -> list[str]:
    """The first `MAX_FINDINGS` findings, in the order of the rules."""
    rules = (
        describe_experiment,
        describe_divergence,
        describe_in_domain_score,
        describe_modality_gap,
        describe_shift,
        describe_size,
        describe_pretraining,
        describe_freezing,
        describe_capacity,
        describe_gradient_norms,
        describe_effective_robustness,
        describe_worst_slice,
        describe_corruption,
    )
    findings = [finding for rule in rules if (finding := rule(tables, summary))]
    return findings[:MAX_FINDINGS]


def describe_experiment(tables: Tables, summary: Summary) -> str:
    """Number of networks and seeds."""
    members = tables.members
    if len(members) == 1:
        (member,) = members
        return (
            f"One network ({member.backbone}, {member.parameters:,} parameters), trained with one "
            f"seed: intervals cover other {tables.task.words.resampled}, not other seeds."
        )
    sizes = value_range([member.parameters for member in members], ",")
    backbones = count_text(len({m.backbone for m in members}), "backbone")
    starts = count_text(len({m.start for m in members}), "start")
    num_seeds = [len({m.seed for m in network}) for network in group_networks(members)]
    seeds = _seed_text(num_seeds[0])
    if len({*num_seeds}) > 1:
        seeds = f"{value_range(num_seeds, 'd')} seeds"
    single_seed = {*num_seeds} == {1}
    return (
        f"{len(members):,} members: {backbones} ({sizes} parameters), {starts}, {seeds} each."
        + f" Intervals cover other {tables.task.words.resampled}, not other seeds." * single_seed
    )


def describe_divergence(tables: Tables, summary: Summary) -> str | None:
    """Number of diverged members."""
    steps = [member.diverged_at for member in tables.members if member.diverged_at >= 0]
    if not steps:
        return None
    step = f"{'step' if len(steps) == 1 else 'steps'} {value_range(steps, ',')}"
    count = f"{len(steps)} of {count_text(len(tables.members), 'member')}"
    return f"{count} diverged, at {step}; their scores are included."


def describe_in_domain_score(tables: Tables, summary: Summary) -> str | None:
    """In-domain score, if there is a single network."""
    if len(group_networks(tables.members)) > 1:
        return None
    suite = tables.members[0].in_domain
    score = estimate_score(tables, tables.members, Condition(suite))
    if not np.isfinite(score.value):
        return None
    return f"On the in-domain suite {suite}, {tables.metric_label} is {_estimate_text(score)}."


def describe_modality_gap(tables: Tables, summary: Summary) -> str | None:
    """In-domain retrieval within modalities and across, and the domain probe; members' means."""

    def mean(column: str) -> float:
        return nan_mean(tables.score(m, Condition(m.in_domain), column) for m in tables.members)

    scores = {label: mean(column) for column, label in GAP_COLUMNS.items()}
    clauses = [f"{score:.3f} {label}" for label, score in scores.items() if not np.isnan(score)]
    if not clauses:
        return None
    accuracy = mean(PROBE_COLUMN)
    members = count_text(len(tables.members), "member")
    average = f" (means over {members})" if len(tables.members) > 1 else ""
    probe = (
        ""
        if np.isnan(accuracy)
        else f"; a linear probe tells the modalities apart with accuracy {accuracy:.3f} (chance: "
        "0.5)"
    )
    return f"In domain, mAP is {_join_clauses(clauses)}{probe}{average}."


def describe_shift(tables: Tables, summary: Summary) -> str | None:
    """Change of the score under each shift, mean over the members."""
    clauses: list[str] = []
    num_members: set[int] = set()
    for in_domain in dict.fromkeys(member.in_domain for member in tables.members):
        members = [member for member in tables.members if member.in_domain == in_domain]
        for suite in tables.shifted_suites(members[0]):
            reference = tables.reference(members[0], suite)
            drops = paired_differences(tables, (members, reference), (members, Condition(suite)))
            if drops is None:
                continue
            drop = estimate_over_seeds(members, *drops)
            num_members.add(int(np.isfinite(drops[0]).sum()))
            suites = f"from {' '.join(filter(None, reference[:2]))} to {suite}"
            if is_significant(drop):
                verb = _choose_verb(drop, "falls", "rises")
                clauses.append(f"{verb} by {_magnitude_text(drop)} {suites}")
            else:
                clauses.append(f"does not change significantly {suites} ({_estimate_text(drop)})")
    if not clauses:
        return None
    mean = ""
    if len(num_members) == 1 and num_members != {1}:
        mean = f" (mean over {num_members.pop():,} members)"
    return f"{tables.task.words.other_suites}, the score {_join_clauses(clauses)}{mean}."


def describe_size(tables: Tables, summary: Summary) -> str | None:
    """Score of the largest minus that of the smallest networks, paired by all other fields."""
    sentences = []
    for suite in dict.fromkeys(member.in_domain for member in tables.members):
        members = [member for member in tables.members if member.in_domain == suite]
        sizes = [member.parameters for member in members]
        small = {(*_key_without_size(m), m.seed): m for m in members if m.parameters == min(sizes)}
        large = [m for m in members if m.parameters == max(sizes)]
        pairs = [(m, other) for m in large if (other := small.get((*_key_without_size(m), m.seed)))]
        gain = estimate_difference(tables, pairs, Condition(suite))
        if min(sizes) == max(sizes) or gain is None:
            continue
        subject = f"From {value_range(sizes, ',')} parameters, the score on {suite}"
        seeds = _seed_text(gain.seeds)
        if is_significant(gain):
            verb = _choose_verb(gain, "grows", "falls")
            sentences.append(f"{subject} {verb} by {_magnitude_text(gain)} ({seeds}).")
        else:
            sentences.append(
                f"{subject} does not change significantly: {_estimate_text(gain)} ({seeds})."
            )
    return " ".join(sentences) or None


def describe_pretraining(tables: Tables, summary: Summary) -> str | None:
    """Gain of starting weights over scratch on each suite, mean over sizes."""
    sentences = []
    for start, pairs in pair_with_scratch(tables.members).items():
        clauses, seeds = [], 0
        for suite in tables.suites:
            gain = estimate_difference(tables, pairs, Condition(suite))
            if gain is None:
                continue
            seeds = max(seeds, gain.seeds)
            if is_significant(gain):
                verb = _choose_verb(gain, "gains", "loses")
                clauses.append(f"{verb} {_magnitude_text(gain)} on {suite}")
            else:
                clauses.append(
                    f"has no significant gain or loss on {suite} ({_estimate_text(gain)})"
                )
        if clauses:
            counts = f"{count_text(len(pairs), 'pair')}, {_seed_text(seeds)}"
            sentences.append(
                f"Compared with training from scratch, {start} {_join_clauses(clauses)} ({counts})."
            )
    return " ".join(sentences) or None


def describe_freezing(tables: Tables, summary: Summary) -> str | None:
    """Gain of frozen parameters, and whether it depends on the trained share."""
    sentences = []
    for treatment in dict.fromkeys(gain.treatment for gain in summary.freezing):
        gains = [gain for gain in summary.freezing if gain.treatment == treatment]
        changes = _join_clauses([_change_clause(gain) for gain in gains])
        subject = f"With {treatment} instead of training all parameters, the score"
        sentences.append(f"{subject} {changes}.")
        trends = [
            f"{_correlation_text(gain.correlation)} on {gain.suite}"
            for gain in gains
            if not np.isnan(gain.correlation.value)
        ]
        if trends:
            subject = "With the trained share of the parameters, this change"
            sentences.append(f"{subject} {_join_clauses(trends)}.")
    return " ".join(sentences) or None


def _change_clause(gain: FreezingGain) -> str:
    members = [frozen for frozen, _ in gain.pairs]
    change = estimate_over_seeds(members, gain.gains, gain.replicates)
    if is_significant(change):
        verb = _choose_verb(change, "rises", "falls")
        return f"{verb} by {_magnitude_text(change)} on {gain.suite}"
    return f"does not change significantly on {gain.suite} ({_estimate_text(change)})"


def describe_capacity(tables: Tables, summary: Summary) -> str | None:
    """Capacity thresholds of starting weights, or why none was found."""
    sentences = []
    for gain in summary.gains:
        if gain.suite == gain.in_domain and len(tables.suites) > 1:
            continue
        subject = "Capacity threshold" if gain.threshold.found else "No capacity threshold found"
        sentences.append(f"{subject} for {gain.start} on {gain.suite}: {gain.threshold.reason}.")
    return " ".join(sentences) or None


def describe_gradient_norms(tables: Tables, summary: Summary) -> str | None:
    """Whether networks with a higher relative gradient norm lose more under shift."""
    known = [g for g in summary.gradients if not np.isnan(g.correlation.value)]
    if not known:
        return None
    contexts = [f"on {g.suite}" + f" ({g.variant})" * bool(g.variant) for g in known]
    if len(known) == 1:
        correlated = _correlation_text(known[0].correlation)
        return f"The relative gradient norm {correlated} with the relative drop {contexts[0]}."
    sentences = []
    overall = overall_correlation(known)
    if not np.isnan(overall.value):
        sentences.append(
            f"The relative gradient norm {_correlation_text(overall)} with the relative drop under "
            f"shift, by mean ranks over {len(known)} comparisons."
        )
    significant = [
        (context, g.correlation)
        for context, g in zip(contexts, known, strict=True)
        if is_significant(g.correlation)
    ]
    sentences.append(
        f"{len(significant)} of the {len(known)} correlations "
        f"{'is' if len(significant) == 1 else 'are'} significant; "
        f"{(1 - CONFIDENCE_LEVEL) * len(known):.2g} are expected by chance."
    )
    sentences += [
        f"{context[0].upper() + context[1:]}, it {_correlation_text(correlation)}."
        for context, correlation in significant
    ]
    return " ".join(sentences)


def _correlation_text(correlation: Correlation) -> str:
    value, low, high, leave_one_out, networks = correlation
    numbers = f"({value:.2f} [{low:.2f}, {high:.2f}], {networks} networks"
    if is_significant(correlation):
        limits = value_range(leave_one_out, ".2f")
        return f"is correlated {numbers}; {limits} when leaving out one at a time)"
    return f"is not significantly correlated {numbers})"


def describe_effective_robustness(tables: Tables, summary: Summary) -> str | None:
    """Effective robustness of starting weights compared with scratch."""
    clauses = []
    for line in summary.lines:
        index = {member.key: k for k, member in enumerate(line.members)}
        for start, pairs in pair_with_scratch(line.members).items():
            first, second = ([index[pair[k].key] for pair in pairs] for k in (0, 1))
            gains = line.effective[first] - line.effective[second]
            replicates = line.replicates[first] - line.replicates[second]
            if np.isnan(gains).all() or not replicates.shape[1]:
                continue
            gain = estimate_over_seeds([pair[0] for pair in pairs], gains, replicates)
            subject = f"the difference between {start} and scratch on {line.suite}"
            if is_significant(gain):
                clauses.append(f"{subject} is {_estimate_text(gain)}")
            else:
                clauses.append(f"{subject} is not significant ({_estimate_text(gain)})")
    return f"Effective robustness: {_join_clauses(clauses)}." if clauses else None


def describe_worst_slice(tables: Tables, summary: Summary) -> str | None:
    """Slice with the lowest mean score, compared with its suite."""
    conditions = {
        f"{condition.suite}: {condition.slice}": condition
        for suite in tables.suites
        for condition in tables.conditions(suite)
        if condition.slice and not condition.slice.startswith(CLASS_SLICE_PREFIX)
    }
    scores = {
        name: nan_mean(tables.score(m, condition) for m in tables.members)
        for name, condition in conditions.items()
    }
    sizes = {
        name: _min_size(tables.size(m, condition) for m in tables.members)
        for name, condition in conditions.items()
    }
    name, score = worst_slice(scores, sizes)
    if not name:
        return None
    condition = conditions[name]
    suite = Condition(condition.suite)
    members = [m for m in tables.members if condition in tables.scores[m.key]]
    differences = paired_differences(tables, (members, condition), (members, suite))
    if differences is None:
        return None
    difference = estimate_over_seeds(members, *differences)
    number = _estimate_text(difference)
    comparison = (
        f"the difference from all of {suite.suite} is {number}"
        if is_significant(difference)
        else f"the difference from all of {suite.suite} is not significant ({number})"
    )
    return f"The lowest of {len(conditions)} slices is {name} with {score:.3f}; {comparison}."


def describe_corruption(tables: Tables, summary: Summary) -> str | None:
    """Fraction of the score that remains under corruption, and the worst corruption."""
    rpc = nan_mean(summary.members[member.key].rpc for member in tables.members)
    if np.isnan(rpc):
        return None
    scores: dict[str, list[float]] = {}
    for suite in tables.corrupted_suites:
        for condition in tables.conditions(suite):
            if condition.corruption:
                values = (tables.score(member, condition) for member in tables.members)
                scores.setdefault(condition.corruption, []).extend(values)
    means = {name: nan_mean(values) for name, values in scores.items()}
    worst = min(means, key=means.__getitem__)
    return (
        f"Under corruption, {rpc:.0%} of the clean score remains (rPC). The mean score is lowest "
        f"under {worst}: {means[worst]:.3f} (no interval)."
    )


# ---- elements of sentences


def is_significant(result: Estimate | Correlation) -> bool:
    """Return whether the interval is known and excludes zero."""
    return result.low > 0 or result.high < 0


def _key_without_size(member: Member) -> tuple:
    return member.run, member.start, *member.varied.items()


def _seed_text(number: int) -> str:
    return "one seed" if number == 1 else f"{number} seeds"


def _min_size(sizes) -> int:
    return int(min((size for size in sizes if np.isfinite(size)), default=0))


def _estimate_text(estimate: Estimate) -> str:
    """A value and its interval."""
    value, low, high, _ = estimate
    # The value is never "-0.000". The limits keep their signs, which show the significance.
    value_text = f"{value:.3f}".replace("-0.000", "0.000")
    return f"{value_text} [{low:.3f}, {high:.3f}]"


def _magnitude_text(estimate: Estimate) -> str:
    """The absolute value and its interval."""
    value, low, high, seeds = estimate
    return _estimate_text(Estimate(-value, -high, -low, seeds) if value < 0 else estimate)


def _choose_verb(estimate: Estimate, up: str, down: str) -> str:
    return up if estimate.value > 0 else down


def _join_clauses(clauses: Sequence[str]) -> str:
    return ", ".join(clauses[:-1]) + " and " * (len(clauses) > 1) + clauses[-1]
