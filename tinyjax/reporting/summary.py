"""The numbers of a report: of members, pairs of members, shifted suites and gradient norms."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tinyjax.metrics import fits
from tinyjax.metrics.correlation import Correlation, correlation, mean_rank_correlation
from tinyjax.metrics.fits import Line, Threshold
from tinyjax.metrics.robustness import gap, mpc, relative_drop, rpc, worst_slice
from tinyjax.metrics.slices import CLASS_SLICE_PREFIX
from tinyjax.reporting.estimates import (
    member_scores,
    nan_mean,
    paired_differences,
    resampled_scores,
)
from tinyjax.reporting.grouping import (
    group_members,
    network_key,
    pair_with_scratch,
    pair_with_unfrozen,
    variant_labels,
)
from tinyjax.reporting.tables import Condition, Member, Tables


class MemberSummary(NamedTuple):
    """Numbers of one member; those under shift are means over shifted suites. NaN if unknown."""

    in_domain: float  # score
    shifted: float  # score
    gap: float
    relative_drop: float
    effective_robustness: float
    worst_slice: tuple[str, float]  # "suite/slice" and its score
    mpc: float
    rpc: float
    ece: float


class Gain(NamedTuple):
    """Gains of starting weights over training from scratch on a suite.

    There is one gain for each of P pairs of size and seed: the mean over settings, see
    `_pool_settings`.
    """

    start: str  # with its settings, see `pair_with_scratch`
    in_domain: str  # the in-domain suite of the pairs
    suite: str
    parameters: np.ndarray  # [P]
    gains: np.ndarray  # [P]
    replicates: np.ndarray  # [P, B]
    threshold: Threshold


class FreezingGain(NamedTuple):
    """Gains of frozen parameters over training all of them on a suite, for P pairs of members."""

    treatment: str  # the fields in which the pairs differ, see `pair_with_unfrozen`
    suite: str
    pairs: tuple[tuple[Member, Member], ...]
    gains: np.ndarray  # [P]
    replicates: np.ndarray  # [P, B]
    correlation: Correlation  # between the trained share of the parameters and the gain


class RobustnessLine(NamedTuple):
    """Line fitted to the in-domain and shifted scores of M members, for one shifted suite."""

    reference: Condition  # in-domain
    suite: str
    members: tuple[Member, ...]
    effective: np.ndarray  # [M], effective robustness
    replicates: np.ndarray  # [M, B], the same on resampled images
    line: Line


class GradientCorrelation(NamedTuple):
    """Correlation between relative gradient norm and relative drop of M members, for one shift."""

    variant: str
    suite: str
    members: tuple[Member, ...]
    drops: np.ndarray  # [M], relative drops
    correlation: Correlation


class Summary(NamedTuple):
    """All numbers of a report."""

    members: dict[str, MemberSummary]  # by the member's key
    variants: dict[str, str]  # member key -> its variant, see `variant_labels`
    gains: tuple[Gain, ...]
    freezing: tuple[FreezingGain, ...]
    lines: tuple[RobustnessLine, ...]
    gradients: tuple[GradientCorrelation, ...]


def summarize(tables: Tables) -> Summary:
    """Compute the numbers of a report."""
    lines = tuple(_fit_lines(tables))
    effective: dict[str, list[float]] = {member.key: [] for member in tables.members}
    for line in lines:
        for member, value in zip(line.members, line.effective, strict=True):
            effective[member.key].append(float(value))
    members = {m.key: _summarize_member(tables, m, effective[m.key]) for m in tables.members}
    return Summary(
        members,
        variant_labels(tables.members),
        tuple(_compute_gains(tables)),
        tuple(_compute_freezing_gains(tables)),
        lines,
        tuple(_correlate_gradients(tables)),
    )


def overall_correlation(gradients: Iterable[GradientCorrelation]) -> Correlation:
    """One correlation for all variants and shifts, see `mean_rank_correlation`."""
    return mean_rank_correlation(
        [([m.rgn for m in g.members], g.drops, [m.backbone for m in g.members]) for g in gradients]
    )


def _summarize_member(tables: Tables, member: Member, effective: Sequence[float]) -> MemberSummary:
    slices, sizes = {}, {}
    for condition in tables.scores[member.key]:
        if condition.slice and not condition.slice.startswith(CLASS_SLICE_PREFIX):
            name = f"{condition.suite}/{condition.slice}"
            slices[name] = tables.score(member, condition)
            size = tables.size(member, condition)
            sizes[name] = 0 if np.isnan(size) else int(size)
    mpcs, rpcs = [], []
    for suite in tables.corrupted_suites:
        corrupted = {
            (c.corruption, c.severity): np.asarray(tables.score(member, c))
            for c in tables.scores[member.key]
            if c.suite == suite and c.corruption
        }
        if corrupted:
            clean = np.asarray(tables.score(member, Condition(suite)))
            mpcs.append(float(mpc(corrupted)))
            rpcs.append(float(rpc(np.asarray(mpcs[-1]), clean)))
    suites = tables.shifted_suites(member)
    shifted = nan_mean(tables.score(member, Condition(suite)) for suite in suites)
    reference = nan_mean(tables.score(member, tables.reference(member, s)) for s in suites)
    scores = np.asarray(reference), np.asarray(shifted)
    in_domain = Condition(member.in_domain)
    return MemberSummary(
        in_domain=tables.score(member, in_domain),
        shifted=shifted,
        gap=float(gap(*scores)),
        relative_drop=float(relative_drop(*scores)),
        effective_robustness=nan_mean(effective),
        worst_slice=worst_slice(slices, sizes),
        mpc=nan_mean(mpcs),
        rpc=nan_mean(rpcs),
        ece=tables.score(member, in_domain, "ECE"),
    )


def _fit_lines(tables: Tables) -> Iterable[RobustnessLine]:
    """A line for each shifted suite of each in-domain suite, if one can be fitted."""
    for in_domain in dict.fromkeys(member.in_domain for member in tables.members):
        members = tuple(member for member in tables.members if member.in_domain == in_domain)
        indices = {key: k for k, key in enumerate(dict.fromkeys(map(network_key, members)))}
        networks = np.array([indices[network_key(member)] for member in members])
        for suite in tables.shifted_suites(members[0]):
            conditions = tables.reference(members[0], suite), Condition(suite)
            in_domain_scores, shifted = (member_scores(tables, members, c) for c in conditions)
            effective, line = fits.effective_robustness(in_domain_scores, shifted, networks)
            if np.isfinite(effective).any():
                resampled = [resampled_scores(tables, members, c) for c in conditions]
                replicates, _ = fits.effective_robustness(resampled[0], resampled[1], networks)
                yield RobustnessLine(conditions[0], suite, members, effective, replicates, line)


def _compute_gains(tables: Tables) -> Iterable[Gain]:
    for start, pairs in pair_with_scratch(tables.members).items():
        pretrained, scratch = ([pair[k] for pair in pairs] for k in (0, 1))
        for suite in tables.suites:
            condition = Condition(suite)
            paired = paired_differences(tables, (pretrained, condition), (scratch, condition))
            if paired is None:
                continue
            parameters, gains, replicates = _pool_settings(pretrained, *paired)
            threshold = fits.fit_threshold(parameters, gains, replicates)
            yield Gain(
                start, pretrained[0].in_domain, suite, parameters, gains, replicates, threshold
            )


def _compute_freezing_gains(tables: Tables) -> Iterable[FreezingGain]:
    for treatment, pairs in pair_with_unfrozen(tables.members).items():
        frozen, unfrozen = ([pair[k] for pair in pairs] for k in (0, 1))
        shares = [member.trained_share for member in frozen]
        networks = [repr(network_key(member)) for member in frozen]
        for suite in tables.suites:
            condition = Condition(suite)
            paired = paired_differences(tables, (frozen, condition), (unfrozen, condition))
            if paired is not None:
                result = correlation(shares, paired[0], networks)
                yield FreezingGain(treatment, suite, tuple(pairs), *paired, result)


def _pool_settings(
    members: Sequence[Member], gains: np.ndarray, replicates: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average gains over the settings of each size and seed, which would else count as seeds.

    Returns parameters [P], gains [P] and replicates [P, B]. NaN gains are left out.
    """
    known = np.isfinite(gains)
    size_and_seed = np.array([[member.parameters, member.seed] for member in members])[known]
    unique, index = np.unique(size_and_seed, axis=0, return_inverse=True)
    weights = index.ravel() == np.arange(len(unique))[:, None]  # [P, gains]
    weights = weights / weights.sum(1, keepdims=True)
    return unique[:, 0], weights @ gains[known], weights @ replicates[known]


def _correlate_gradients(tables: Tables) -> Iterable[GradientCorrelation]:
    """A correlation for each variant (run, start, varied fields) and each shift."""
    measured = [member for member in tables.members if np.isfinite(member.rgn)]
    variants = variant_labels(measured, math.inf)
    for variant, members in group_members(measured, lambda m: variants[m.key]).items():
        for suite in tables.suites:
            shifted = tuple(m for m in members if suite in tables.shifted_suites(m))
            reference = np.array([tables.score(m, tables.reference(m, suite)) for m in shifted])
            drops = relative_drop(reference, member_scores(tables, shifted, Condition(suite)))
            if not np.isfinite(drops).any():
                continue
            rgn = np.array([m.rgn for m in shifted])
            networks = np.array([repr(network_key(m)) for m in shifted])
            result = correlation(rgn, drops, networks)
            yield GradientCorrelation(variant, suite, shifted, drops, result)
