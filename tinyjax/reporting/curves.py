"""Report figures of scores and gradient norms: intervals, and curves over steps, size or shift."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter, ScalarFormatter

from tinyjax.metrics.bootstrap import Estimate
from tinyjax.metrics.correlation import Correlation
from tinyjax.metrics.fits import gain_by_size
from tinyjax.reporting import plotting
from tinyjax.reporting.estimates import estimate_score, member_scores
from tinyjax.reporting.grouping import group_members, limited_groups, short_backbone
from tinyjax.reporting.plotting import (
    COLORS,
    DASHES,
    LEGEND_RIGHT,
    ReportFigure,
    draw_interval,
    label_rows,
    label_text,
    palette,
    set_log_ticks,
)
from tinyjax.reporting.summary import Gain, Summary
from tinyjax.reporting.tables import Condition, Member, Tables
from tinyjax.run.text import value_range

WIDTH, HEIGHT = 3.6, 2.9  # of a panel, inches
MAX_COLUMNS = 3  # of panels
MAX_INDIVIDUAL_CURVES = 12  # with more members, median and range of groups are drawn
MAX_SIZE_LABELS = 7  # on an axis
MAX_SIZE_MEANS = 25  # with more sizes, the mean of each has too few members
DODGE = 1.05  # ratio between the positions of variants of the same size, which would overlap
FAMILY_NOTE = " Lines connect the sizes of one family."


def draw_scores(tables: Tables, summary: Summary) -> ReportFigure | None:
    """Scores of a single member on each suite and slice, with intervals."""
    if len(tables.members) > 1:
        return None
    (member,) = tables.members
    conditions = [c for s in tables.suites for c in tables.conditions(s) if not c.corruption]
    figure = Figure(figsize=(6.4, 0.8 + 0.26 * len(conditions)), layout="constrained")
    axes: Axes = figure.subplots()
    for y, condition in enumerate(conditions):
        estimate = estimate_score(tables, tables.members, condition)
        color = COLORS[condition.suite != member.in_domain]
        line, marker = (2, 4) if condition.slice else (3.5, 6)
        draw_interval(axes, y, estimate[:3], color, linewidth=line, markersize=marker)
    label_rows(axes, [label_text(f"    {c.slice}" if c.slice else c.suite) for c in conditions])
    for label, condition in zip(axes.get_yticklabels(), conditions, strict=True):
        label.set_fontweight("normal" if condition.slice else "bold")
    axes.set(xlabel=tables.metric_label)
    words, has_slices = tables.task.words, any(condition.slice for condition in conditions)
    return ReportFigure(
        "scores",
        "Scores",
        figure,
        f"{tables.metric_label} on the suites {', '.join(tables.suites)} and their {words.slices}",
        f"Bars: 95 % intervals over {words.resampled}; with one seed, they do not cover other "
        "seeds." + f" Bold: {words.whole_suite}." * has_slices,
    )


def draw_learning_curves(tables: Tables, summary: Summary) -> ReportFigure | None:
    """Loss and in-domain score over the steps: of each member, or median and range of groups."""
    recorded = [member for member in tables.members if tables.curves[member.key]]
    if not recorded:
        return None
    labels = {"loss": "training loss", "score": f"in domain: {tables.metric_label}"}
    names = {name for member in recorded for name in tables.curves[member.key]}
    labels = {name: label for name, label in labels.items() if name in names}
    figure, panels = _make_panels(len(labels), 4.2)
    individual = len(recorded) <= MAX_INDIVIDUAL_CURVES
    groups = limited_groups(recorded, summary.variants, len(COLORS))
    for axes, (name, label) in zip(panels, labels.items(), strict=True):
        marker = "." if name == "score" else ""  # a curve may have a single point
        for color, (group, members) in zip(palette(len(groups)), groups.items(), strict=True):
            curves = [c[name] for m in members if name in (c := tables.curves[m.key])]
            style = {"color": color, "marker": marker}
            if individual:
                for k, curve in enumerate(curves):
                    line_label = None if k else label_text(group)
                    axes.plot(*curve.T, linewidth=1, label=line_label, **style)
            elif curves:
                steps, low, median, high = _curve_range(curves)
                axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
                axes.plot(steps, median, label=label_text(group), **style)
        axes.set(xlabel="step", ylabel=label, xlim=(0, None))
        if name == "loss":
            axes.set_yscale("log")
            set_log_ticks(axes.yaxis, ScalarFormatter())
    if len(groups) > 1:
        panels[-1].legend(title="" if individual else "median and range", **LEGEND_RIGHT)
    return ReportFigure(
        "learning",
        "Learning",
        figure,
        f"Training loss and in-domain score over the steps, {_describe_members(recorded)}",
        "" if individual else "Lines: median of the members of a group; bands: minimum to maximum.",
    )


def draw_score_by_size(tables: Tables, summary: Summary) -> ReportFigure | None:
    """Score against parameters and multiply-adds, a row for each suite."""
    if len({member.parameters for member in tables.members}) < 2:
        return None
    figure, panels = _make_panels(2 * len(tables.suites), WIDTH, HEIGHT, max_columns=2)
    sizes = {"parameters": "parameters", "multiply_adds": "multiply-adds per image"}
    fields_and_suites = [(field, suite) for suite in tables.suites for field in sizes]
    groups = group_members(tables.members, lambda m: summary.variants[m.key])
    has_means = len({member.parameters for member in tables.members}) <= MAX_SIZE_MEANS
    dashes, resampled = _family_dashes(tables.members), tables.task.words.resampled
    for axes, (field, suite) in zip(panels, fields_and_suites, strict=True):
        for k, members in enumerate(groups.values()):
            color, dodge = palette(len(groups))[k], DODGE ** (k - (len(groups) - 1) / 2)
            x = dodge * np.array([getattr(m, field) for m in members])
            _plot_members(axes, x, member_scores(tables, members, Condition(suite)), members, color)
            for family, dash in dashes.items() if has_means else ():
                of_family = [m for m in members if _family(m) == family]
                xs = sorted({getattr(m, field) for m in of_family})
                by_x = [[m for m in of_family if getattr(m, field) == size] for size in xs]
                estimates = [estimate_score(tables, group, Condition(suite)) for group in by_x]
                _plot_means(axes, dodge * np.array(xs), estimates, color, dash)
        axes.set(xscale="log", xlabel=sizes[field], ylabel=tables.metric_label)
        axes.set_title(label_text(suite), fontsize=9)
        _set_size_ticks(axes.xaxis, sorted({getattr(m, field) for m in tables.members}))
    _share_y(panels)
    if has_means and len(groups) * len(dashes) > 1:
        colors = dict(zip(groups, palette(len(groups)), strict=True))
        _add_legend(panels[1], colors, dashes)
    return ReportFigure(
        "size",
        "Score and size",
        figure,
        f"{tables.metric_label} against parameters and multiply-adds, "
        f"{_describe_members(tables.members)}",
        "Points: members; crosses: diverged members."
        + f" Bars: mean of each size with its 95 % interval over seeds and {resampled}." * has_means
        + FAMILY_NOTE * (has_means and len(dashes) > 1),
    )


def draw_shift(tables: Tables, summary: Summary) -> ReportFigure | None:
    """In-domain against shifted score, with the line that defines effective robustness."""
    if not summary.lines:
        return None
    figure, panels = _make_panels(len(summary.lines), WIDTH + 0.3)
    by_parameters = sorted(tables.members, key=lambda member: member.parameters)
    variants = list(dict.fromkeys(summary.variants[m.key] for m in by_parameters))
    colors = dict(zip(variants, palette(len(variants)), strict=True))
    for axes, fit in zip(panels, summary.lines, strict=True):
        conditions = fit.reference, Condition(fit.suite)
        x, y = (member_scores(tables, fit.members, condition) for condition in conditions)
        variant_of = np.array([summary.variants[m.key] for m in fit.members])
        for variant in variants:
            mask, label = variant_of == variant, label_text(variant)
            style = _marker_style(len(x))
            axes.plot(x[mask], y[mask], "o", color=colors[variant], label=label, **style)
        grid = np.linspace(np.nanmin(x), np.nanmax(x), 100)
        axes.plot(grid, fit.line(grid), color="black", linewidth=1, label="line of all members")
        axes.plot(grid, grid, ":", color="#888888", label="no loss under shift")
        reference = " ".join(filter(None, (fit.reference.suite, fit.reference.slice)))
        axes.set_xlabel(f"{label_text(reference)}: {tables.metric_label}")
        axes.set_ylabel(label_text(fit.suite))
    panels[-1].legend(**LEGEND_RIGHT)
    return ReportFigure(
        "shift",
        "In domain and under shift",
        figure,
        f"Shifted score against in-domain score, {_describe_members(tables.members)}, with a "
        "fitted line",
        "The line is linear in the logits of the scores. Effective robustness is a member's "
        "vertical distance from a line fitted to the members of all other networks.",
    )


def draw_gains(tables: Tables, summary: Summary) -> ReportFigure | None:
    """Gain of starting weights over scratch, paired by seed, against parameters."""
    if not summary.gains:
        return None
    suites = list(dict.fromkeys(gain.suite for gain in summary.gains))
    starts = list(dict.fromkeys(gain.start for gain in summary.gains))
    figure, panels = _make_panels(
        len(summary.gains), WIDTH + 0.5, HEIGHT + 0.3, max_columns=len(suites)
    )
    colors = {start: COLORS[(1 + k) % len(COLORS)] for k, start in enumerate(starts)}
    dashes = _family_dashes(tables.members)
    dash_of_size = {m.parameters: dashes[_family(m)] for m in tables.members}
    for axes, gain in zip(panels, summary.gains, strict=True):
        _plot_gain(axes, gain, colors[gain.start], dash_of_size)
        axes.set(ylabel=f"gain in {tables.metric_label}")
        axes.set_title(label_text(f"{gain.start}: {gain.suite}", 50), fontsize=9)
    _share_y(panels)
    if len(dashes) > 1:
        _add_legend(panels[min(len(suites), MAX_COLUMNS) - 1], colors, dashes)
    return ReportFigure(
        "gain",
        "Gain of pretraining",
        figure,
        f"Gain of {', '.join(starts)} over scratch against parameters on {', '.join(suites)}",
        "Points: pairs of equal seed. Bars: mean of each size with its 95 % interval over seeds "
        f"and {tables.task.words.resampled}. If a capacity threshold was found, the black line is "
        "the fit and the gray band the 95 % interval of the threshold."
        + FAMILY_NOTE
        * (len(dashes) > 1),
    )


def draw_gradient_norms(tables: Tables, summary: Summary) -> ReportFigure | None:
    """Relative gradient norm against the relative drop under shift."""
    plotted = [g for g in summary.gradients if len(g.members) > 2]
    if not plotted:
        return None
    suites = list(dict.fromkeys(g.suite for g in plotted))
    figure, panels = _make_panels(len(suites), WIDTH + 1)
    for axes, suite in zip(panels, suites, strict=True):
        correlations = [g for g in plotted if g.suite == suite]
        for g, color in zip(correlations, palette(len(correlations)), strict=True):
            x = [member.rgn for member in g.members]
            label = f"{label_text(g.variant, 40)}\n{correlation_text(g.correlation)}".strip()
            axes.plot(x, g.drops, "o", color=color, label=label, **_marker_style(len(x)))
        axes.set(xlabel="relative gradient norm", ylabel=f"relative drop of {tables.metric_label}")
        axes.set(xscale="log", title=label_text(suite))
        axes.title.set_fontsize(9)
        axes.legend(**LEGEND_RIGHT)
    members = [member for g in plotted if g.suite == suites[0] for member in g.members]
    return ReportFigure(
        "rgn",
        "Relative gradient norm and shift",
        figure,
        f"Relative gradient norm against the relative drop of {tables.metric_label} under shift, "
        f"{_describe_members(members)}",
        "r: rank correlation over networks (means of their seeds), its 95 % interval, and its "
        "range when leaving out one network at a time.",
    )


# ---- elements of figures


def _plot_gain(axes: Axes, gain: Gain, color: Any, dash_of_size: Mapping[int, str]) -> None:
    axes.axhline(0, color="#555555", linewidth=1)
    axes.plot(gain.parameters, gain.gains, "o", color=color, **_marker_style(len(gain.gains)))
    sizes, estimates = gain_by_size(gain.parameters, gain.gains, gain.replicates)
    for dash in sorted({*dash_of_size.values()}) if len(sizes) <= MAX_SIZE_MEANS else ():
        indices = [k for k, size in enumerate(sizes) if dash_of_size[size] == dash]
        _plot_means(axes, sizes[indices].tolist(), [estimates[k] for k in indices], color, dash)
    threshold = gain.threshold
    if threshold.found:
        axes.axvspan(threshold.low, threshold.high, color="#BBBBBB", alpha=0.4, linewidth=0)
        axes.plot(*threshold.knots.T, color="black", linewidth=1)
        text = f"capacity threshold: {threshold.parameters:,.0f} parameters"
    else:
        text = f"no threshold found\n{threshold.reason}"
    axes.set(xscale="log")
    axes.set_xlabel(f"parameters\n\n{text}", fontsize=8)
    _set_size_ticks(axes.xaxis, sizes.tolist())


def _plot_means(
    axes: Axes,
    x: Sequence[float] | np.ndarray,
    estimates: Sequence[Estimate],
    color: Any,
    dash: str,
) -> None:
    """Plot means with intervals, connected by a line."""
    values = np.array([estimate.value for estimate in estimates])
    half_widths = np.array([estimate.high - estimate.value for estimate in estimates])
    axes.errorbar(x, values, half_widths, color=color, capsize=2.5, linestyle=dash)


def _plot_members(axes: Axes, x, y, members: Sequence[Member], color: Any) -> None:
    diverged = np.array([member.diverged_at >= 0 for member in members])
    for marker, mask in (("o", ~diverged), ("x", diverged)):
        if mask.any():
            axes.plot(x[mask], y[mask], marker, color=color, **_marker_style(len(members)))


def _marker_style(count: int) -> dict[str, Any]:
    """Size and opacity of `count` markers."""
    return {"markersize": 3.5, "alpha": 0.45} if count < 200 else {"markersize": 2.5, "alpha": 0.2}


def _family(member: Member) -> str:
    return member.backbone.partition("/")[0]


def _family_dashes(members: Sequence[Member]) -> dict[str, str]:
    """Family -> style of the line that connects its sizes."""
    return dict(zip(sorted({_family(m) for m in members}), cycle(DASHES), strict=False))


def _add_legend(axes: Axes, colors: Mapping[str, Any], dashes: Mapping[str, Any]) -> None:
    """Explain the colors and, for several families, the dashes."""
    lines = [Line2D([], [], color=color, label=label_text(name)) for name, color in colors.items()]
    if len(dashes) > 1:
        lines += [Line2D([], [], color="black", linestyle=d, label=f) for f, d in dashes.items()]
    axes.legend(handles=lines, **LEGEND_RIGHT)


def correlation_text(correlation: Correlation) -> str:
    """A correlation as text of a legend, in two lines."""
    if np.isnan(correlation.value):
        return f"{correlation.networks} networks, r undefined"
    limits = f"{correlation.low:.2f}, {correlation.high:.2f}"
    return (
        f"r {correlation.value:.2f} [{limits}]; {correlation.networks} networks\n"
        f"leave-one-out {value_range(correlation.leave_one_out, '.2f')}"
    )


def _curve_range(curves: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Steps, minimum, median and maximum of curves [points, 2], without NaN."""
    values: dict[float, list[float]] = {}
    for curve in curves:
        for step, value in curve[np.isfinite(curve[:, 1])].tolist():
            values.setdefault(step, []).append(value)
    steps = sorted(values)
    quantiles = [np.quantile(values[step], (0, 0.5, 1)) for step in steps]
    return np.array(steps), *np.array(quantiles).reshape(-1, 3).T


def _make_panels(
    count: int, width: float, height: float = HEIGHT, max_columns: int = MAX_COLUMNS
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels of that size in inches, and room for a legend at the right."""
    columns = min(max_columns, MAX_COLUMNS)
    return plotting.make_panels(count, width, height, columns, legend_width=1.2)


def _share_y(panels: Sequence[Axes]) -> None:
    for axes in panels[1:]:
        axes.sharey(panels[0])
    panels[0].autoscale(axis="y")


def _set_size_ticks(axis: Axis, sizes: Sequence[float]) -> None:
    """Put ticks of a logarithmic axis at the sizes if they are few, without overlapping labels."""
    if len(sizes) <= MAX_SIZE_LABELS:
        last, min_ratio = sizes[-1], (sizes[-1] / sizes[0]) ** (1 / MAX_SIZE_LABELS)
        ticks = [last]
        for size in sizes[-2::-1]:
            if last / size > min_ratio:
                ticks.append(last := size)
        axis.set_ticks(ticks)
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(EngFormatter(places=0, sep=""))
    axis.set_minor_formatter(NullFormatter())


def _describe_members(members: Sequence[Member]) -> str:
    backbones = {short_backbone(member.backbone) for member in members}
    return f"{len(members):,} members of {len(backbones)} backbones"
