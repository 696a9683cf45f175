"""Figures of a report along an axis: scores with their intervals, learning, size, shift, gain."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import (
    EngFormatter,
    LogLocator,
    NullFormatter,
    ScalarFormatter,
)

from tinyjax.metrics.correlation import Correlation
from tinyjax.metrics.fits import gain_by_size
from tinyjax.reporting.figures import BESIDE, DASHES, ON_WHITE, ticks
from tinyjax.reporting.heatmaps import Shown, text
from tinyjax.reporting.summary import Gain, Summary, estimate, grouped, groups, points, short
from tinyjax.reporting.tables import Member, Part, Tables

WIDTH, HEIGHT = 3.6, 2.9  # of a panel, inches
ALL_LINES = 12  # members whose curves are drawn one by one
NAMED_SIZES = 7  # on an axis
DODGE = 1.05  # factor between the places of kinds of the same size
MANY = 25  # sizes, beyond which means of each say little
FAMILIES = " A line joins the sizes of one family."


def scores(tables: Tables, summary: Summary) -> Shown | None:
    """Of one member: its score in every suite and slice, with the interval over images."""
    if len(tables.members) > 1:
        return None
    parts = [part for suite in tables.suites for part in tables.parts(suite) if not part.corruption]
    figure = Figure(figsize=(6.4, 0.8 + 0.26 * len(parts)), layout="constrained")
    axes: Axes = figure.subplots()
    for y, part in enumerate(parts):
        value, low, high, _ = estimate(tables, tables.members, part)
        color = ON_WHITE[part.suite != tables.members[0].home]
        axes.plot([low, high], [y, y], color=color, linewidth=2 if part.slice else 3.5, alpha=0.5)
        axes.plot(value, y, "o", color=color, markersize=4 if part.slice else 6)
    names = [text(f"    {part.slice}" if part.slice else part.suite) for part in parts]
    axes.set_yticks(range(len(parts)), names)
    for label, part in zip(axes.get_yticklabels(), parts, strict=True):
        label.set_fontweight("normal" if part.slice else "bold")
    axes.set(xlabel=tables.title, ylim=(len(parts) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)
    return Shown(
        "scores",
        "Scores",
        figure,
        f"{tables.title} of the suites {', '.join(tables.suites)} and their slices",
        "Bars: 95 % interval over images; of one seed it says nothing about other seeds.",
    )


def learning(tables: Tables, summary: Summary) -> Shown | None:
    """Loss and in-domain score over the steps: of every member, or median and range of groups."""
    known = [member for member in tables.members if tables.curves[member.key]]
    if not known:
        return None
    names = {"loss": "training loss", "score": f"in domain: {tables.title}"}
    names = {n: s for n, s in names.items() if any(n in tables.curves[m.key] for m in known)}
    figure, panels = _panels(len(names), 4.2)
    few = len(known) <= ALL_LINES
    own = groups(known, summary.kinds, len(ON_WHITE))
    for axes, (name, label) in zip(panels, names.items(), strict=True):
        for color, (group, members) in zip(_colors(len(own)), own.items(), strict=True):
            lines = [c[name] for m in members if name in (c := tables.curves[m.key])]
            if few:
                for k, line in enumerate(lines):
                    axes.plot(*line.T, color=color, linewidth=1, marker="." * (name == "score"),
                              label=text(group) if not k else None)  # fmt: skip
            elif lines:
                steps, low, middle, high = _range(lines)
                axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
                dots = "." * (name == "score")  # of which there may be one
                axes.plot(steps, middle, color=color, marker=dots, label=text(group))
        axes.set(xlabel="step", ylabel=label, xlim=(0, None))
        if name == "loss":
            axes.set_yscale("log")
            ticks(axes.yaxis, ScalarFormatter())
    if len(own) > 1:
        panels[-1].legend(title="" if few else "median and range", **BESIDE)
    return Shown(
        "learning",
        "Learning",
        figure,
        f"Training loss and in-domain score over the steps, {_many(known)}",
        "" if few else "Line: median of the members of a group; band: from lowest to highest.",
    )


def by_size(tables: Tables, summary: Summary) -> Shown | None:
    """Score against parameters and multiply-adds, a row for each suite."""
    if len({member.parameters for member in tables.members}) < 2:
        return None
    figure, panels = _panels(2 * len(tables.suites), WIDTH, HEIGHT, across=2)
    sizes = {"parameters": "parameters", "multiply_adds": "multiply-adds of an image"}
    places = [(field, suite) for suite in tables.suites for field in sizes]
    own = grouped(tables.members, lambda m: summary.kinds[m.key])
    means = len({member.parameters for member in tables.members}) <= MANY
    dashes = _dashes(tables.members)
    for axes, (field, suite) in zip(panels, places, strict=True):
        for k, members in enumerate(own.values()):
            color, aside = _colors(len(own))[k], DODGE ** (k - (len(own) - 1) / 2)
            x = aside * np.array([getattr(m, field) for m in members])
            _stopped_apart(axes, x, points(tables, members, Part(suite)), members, color)
            for family, dash in dashes.items() if means else ():
                ladder = [m for m in members if _family(m) == family]
                at = sorted({getattr(m, field) for m in ladder})
                each = [[m for m in ladder if getattr(m, field) == size] for size in at]
                found = [estimate(tables, group, Part(suite)) for group in each]
                _errors(axes, aside * np.array(at), found, color, dash)
        axes.set(xscale="log", xlabel=sizes[field], ylabel=tables.title)
        axes.set_title(text(suite), fontsize=9)
        _sizes_on(axes.xaxis, sorted({getattr(m, field) for m in tables.members}))
    _share_y(panels)
    if means and len(own) * len(dashes) > 1:
        kinds = dict(zip(own, _colors(len(own)), strict=True))
        _legend(panels[1], kinds, dashes)
    return Shown(
        "size",
        "Score and size",
        figure,
        f"{tables.title} against parameters and multiply-adds, {_many(tables.members)}",
        "Points: members, crosses those that were stopped."
        + " Bars: mean of each size and its 95 % interval over seeds and images." * means
        + FAMILIES * (means and len(dashes) > 1),
    )


def shift(tables: Tables, summary: Summary) -> Shown | None:
    """In-domain against shifted score, with the line that effective robustness is measured from."""
    if not summary.lines:
        return None
    figure, panels = _panels(len(summary.lines), WIDTH + 0.3)
    labels = list(dict.fromkeys(summary.kinds[m.key] for m in _by_size(tables.members)))
    colors = dict(zip(labels, _colors(len(labels)), strict=True))
    for axes, fitted in zip(panels, summary.lines, strict=True):
        parts = fitted.inside, Part(fitted.suite)
        x, y = (points(tables, fitted.members, part) for part in parts)
        kinds = np.array([summary.kinds[m.key] for m in fitted.members])
        for kind in labels:
            own = kinds == kind
            axes.plot(x[own], y[own], "o", color=colors[kind], label=text(kind), **_point(len(x)))
        grid = np.linspace(np.nanmin(x), np.nanmax(x), 100)
        axes.plot(grid, fitted.line(grid), color="black", linewidth=1, label="line of all members")
        axes.plot(grid, grid, ":", color="#888888", label="no loss by the shift")
        inside = " ".join(filter(None, (fitted.inside.suite, fitted.inside.slice)))
        axes.set(xlabel=f"{text(inside)}: {tables.title}", ylabel=text(fitted.suite))
    panels[-1].legend(**BESIDE)
    return Shown(
        "shift",
        "In the own domain and under shift",
        figure,
        f"Shifted score against in-domain score, {_many(tables.members)}, with a fitted line",
        "The line is straight in logits of the scores. Effective robustness is a member's "
        "distance to the line of all others, without its own seeds.",
    )


def gains(tables: Tables, summary: Summary) -> Shown | None:
    """What starting weights bring, paired by seed, against the parameters."""
    if not summary.gains:
        return None
    suites = list(dict.fromkeys(gain.suite for gain in summary.gains))
    starts = list(dict.fromkeys(gain.start for gain in summary.gains))
    figure, panels = _panels(len(summary.gains), WIDTH + 0.5, HEIGHT + 0.3, across=len(suites))
    colors = {start: ON_WHITE[(1 + k) % len(ON_WHITE)] for k, start in enumerate(starts)}
    dashes = _dashes(tables.members)
    dash_of = {m.parameters: dashes[_family(m)] for m in tables.members}
    for axes, gain in zip(panels, summary.gains, strict=True):
        _gain(axes, gain, colors[gain.start], dash_of)
        axes.set(ylabel=f"gain in {tables.title}")
        axes.set_title(text(f"{gain.start}: {gain.suite}", 50), fontsize=9)
    _share_y(panels)
    if len(dashes) > 1:
        _legend(panels[min(len(suites), 3) - 1], colors, dashes)
    return Shown(
        "gain",
        "Gain of pretraining",
        figure,
        f"Gain of {', '.join(starts)} over scratch against parameters in {', '.join(suites)}",
        "Points: pairs of the same seed. Bars: mean of each size and its 95 % interval over seeds "
        "and images. Black: the fitted break, gray its 95 % interval, where a capacity threshold "
        "was found." + FAMILIES * (len(dashes) > 1),
    )


def gradients(tables: Tables, summary: Summary) -> Shown | None:
    """Relative gradient norm against the loss under shift."""
    found = [one for one in summary.gradients if len(one.members) > 2]
    if not found:
        return None
    suites = list(dict.fromkeys(one.suite for one in found))
    figure, panels = _panels(len(suites), WIDTH + 1)
    for axes, suite in zip(panels, suites, strict=True):
        own = [one for one in found if one.suite == suite]
        for one, color in zip(own, _colors(len(own)), strict=True):
            x = [member.rgn for member in one.members]
            label = f"{text(one.kind, 40)}\n{_correlated(one.correlation)}".strip()
            axes.plot(x, one.lost, "o", color=color, label=label, **_point(len(x)))
        axes.set(xlabel="relative gradient norm", ylabel=f"lost of {tables.title}")
        axes.set(xscale="log", title=text(suite))
        axes.title.set_fontsize(9)
        axes.legend(**BESIDE)
    return Shown(
        "rgn",
        "Relative gradient norm and shift",
        figure,
        f"Relative gradient norm against the part of {tables.title} that is lost under shift, "
        + _many([member for one in found if one.suite == suites[0] for member in one.members]),
        "r: rank correlation over networks, means of their seeds, its 95 % interval, and between "
        "what it lies if any one network is left out.",
    )


# ---- parts of figures


def _gain(axes: Axes, gain: Gain, color: Any, dash_of: Mapping[int, str]) -> None:
    axes.axhline(0, color="#555555", linewidth=1)
    axes.plot(gain.parameters, gain.gains, "o", color=color, **_point(len(gain.gains)))
    sizes, found = gain_by_size(gain.parameters, gain.gains, gain.replicates)
    for dash in sorted({*dash_of.values()}) if len(sizes) <= MANY else ():
        own = [k for k, size in enumerate(sizes) if dash_of[size] == dash]
        _errors(axes, sizes[own].tolist(), [found[k] for k in own], color, dash)
    threshold = gain.threshold
    if threshold.found:
        axes.axvspan(threshold.low, threshold.high, color="#BBBBBB", alpha=0.4, linewidth=0)
        axes.plot(*threshold.knots.T, color="black", linewidth=1)
        said = f"capacity threshold: {threshold.parameters:,.0f} parameters"
    else:
        said = f"no threshold found\n{threshold.reason}"
    axes.set(xscale="log")
    axes.set_xlabel(f"parameters\n\n{said}", fontsize=8)
    _sizes_on(axes.xaxis, sizes.tolist())


def _errors(axes: Axes, at: Sequence[float], found: Sequence, color: Any, dash: str) -> None:
    """Means with intervals, joined by a line."""
    middle = np.array([one.value for one in found])
    half = np.array([one.high - one.value for one in found])
    axes.errorbar(at, middle, half, color=color, capsize=2.5, linestyle=dash)


def _family(member: Member) -> str:
    return member.backbone.partition("/")[0]


def _dashes(members: Sequence[Member]) -> dict[str, str]:
    """Of each family the line that joins its sizes."""
    return dict(zip(sorted({_family(m) for m in members}), cycle(DASHES), strict=False))


def _legend(axes: Axes, colors: Mapping[str, Any], dashes: Mapping[str, Any]) -> None:
    """What the colors mean, and below it the dashes, where there are several."""
    lines = [Line2D([], [], color=color, label=text(name)) for name, color in colors.items()]
    if len(dashes) > 1:
        lines += [Line2D([], [], color="black", linestyle=d, label=f) for f, d in dashes.items()]
    axes.legend(handles=lines, **BESIDE)


def _stopped_apart(axes: Axes, x, y, members: Sequence[Member], color: Any) -> None:
    stopped = np.array([member.diverged_at >= 0 for member in members])
    for mark, own in (("o", ~stopped), ("x", stopped)):
        if own.any():
            axes.plot(np.array(x)[own], y[own], mark, color=color, **_point(len(members)))


def _correlated(found: Correlation) -> str:
    if np.isnan(found.value):
        return f"{found.networks} networks: no r"
    low, high = found.without
    return (
        f"r {found.value:.2f} [{found.low:.2f}, {found.high:.2f}]; {found.networks} networks\n"
        f"without one {low:.2f} to {high:.2f}"
    )


def _point(many: int) -> dict[str, Any]:
    """Size and opacity of so many points."""
    return {"markersize": 3.5, "alpha": 0.45} if many < 200 else {"markersize": 2.5, "alpha": 0.2}


def _range(lines: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Steps, lowest, median and highest value of curves [points, 2]; NaN ones are left out."""
    values: dict[float, list[float]] = {}
    for line in lines:
        for step, value in line[np.isfinite(line[:, 1])].tolist():
            values.setdefault(step, []).append(value)
    steps = sorted(values)
    each = [np.quantile(values[step], (0, 0.5, 1)) for step in steps]
    return np.array(steps), *np.array(each).reshape(-1, 3).T


def _panels(
    count: int, width: float, height: float = HEIGHT, across: int = 3
) -> tuple[Figure, list[Axes]]:
    """So many panels of that size in inches, at most `across` and three in a row."""
    across = min(count, across, 3)
    down = -(-count // across)
    figure = Figure(figsize=(across * width + 1.2, down * height), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel().tolist()
    for empty in panels[count:]:
        empty.remove()
    return figure, panels[:count]


def _share_y(panels: Sequence[Axes]) -> None:
    for axes in panels[1:]:
        axes.sharey(panels[0])
    panels[0].autoscale(axis="y")


def _colors(count: int) -> Sequence[Any]:
    if count <= len(ON_WHITE):
        return ON_WHITE[:count]
    return [matplotlib.colormaps["viridis"](0.92 * k / (count - 1)) for k in range(count)]


def _by_size(members: Sequence[Member]) -> list[Member]:
    return sorted(members, key=lambda member: member.parameters)


def _sizes_on(axis: Axis, sizes: Sequence[float]) -> None:
    """Sizes as ticks of a logarithmic axis, if they are few."""
    if len(sizes) <= NAMED_SIZES:
        least, apart = sizes[-1], (sizes[-1] / sizes[0]) ** (1 / NAMED_SIZES)
        named = [sizes[-1]]
        for size in sizes[-2::-1]:  # those whose names would not lie on each other
            if least / size > apart:
                named.append(least := size)
        axis.set_ticks(named)
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(EngFormatter(places=0, sep=""))
    axis.set_minor_formatter(NullFormatter())


def _many(members: Sequence[Member]) -> str:
    backbones = {short(member.backbone) for member in members}
    return f"{len(members):,} members of {len(backbones)} backbones"
