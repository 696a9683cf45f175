"""Figures of transfer: relative gradient norms, interpolated weights, rare classes."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator, ScalarFormatter

from tinyjax.reporting.fonts import class_names
from tinyjax.reporting.plotting import (
    COLORS,
    LEGEND_RIGHT,
    STYLE,
    label_text,
    save,
    set_log_ticks,
)

MAX_CLASS_NAMES = 20  # in a figure


def draw_rgn(
    rows: Sequence[Mapping[str, Any]],
    means: Mapping[str, float],
    sizes: Mapping[str, int],
    path: Path,
) -> None:
    """Draw relative gradient norms over the depth of the backbone and, for several members, their
    means over layers against the number of parameters.

    Args:
        rows: of `rgn.layer_rows`, with "member" and "backbone".
        means: member -> its `rgn.backbone_rgn`.
        sizes: member -> number of parameters.
    """
    with rc_context(STYLE):
        several = len(means) > 1
        figure = Figure(figsize=(9 if several else 5.2, 3.4), layout="constrained")
        depth_axes, *size_axes = figure.subplots(1, 2 if several else 1, squeeze=False)[0]
        _draw_depth(depth_axes, rows, sorted(means, key=lambda member: -sizes[member]))
        for axes in size_axes:
            axes.plot([sizes[m] for m in means], [*means.values()], "o", markersize=4)
            axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel="mean over layers")
            set_log_ticks(axes.xaxis, EngFormatter(sep=""))
            set_log_ticks(axes.yaxis, ScalarFormatter())
        save(figure, path)


def draw_interpolation(
    rows: Sequence[Mapping[str, Any]], metric: str, label: str, path: Path
) -> None:
    """Draw the score of each suite along the line from start weights to end weights.

    rows: with "suite", "fraction" (of the end weights) and the metric.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes: Axes = figure.subplots()
        for suite in dict.fromkeys(row["suite"] for row in rows):
            points = sorted((row["fraction"], row[metric]) for row in rows if row["suite"] == suite)
            axes.plot(*zip(*points, strict=True), "o-", markersize=3, label=label_text(suite))
        axes.set(xlabel="fraction of the end weights", ylabel=label, ylim=(0, None))
        axes.legend(title="suite", **LEGEND_RIGHT)
        save(figure, path)


def draw_class_frequency(
    class_counts: Mapping[str, tuple[int, int]],
    scores: Mapping[str, Mapping[str, float]],
    label: str,
    path: Path,
) -> None:
    """Draw each class's AP in each suite against the number of its training objects.

    class_counts: see `class_frequency.class_counts`. scores: suite -> result of `protocols.score`.
    label: name of the AP.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes: Axes = figure.subplots()
        names = [label_text(name) for name in class_names([*class_counts])]
        for suite, suite_scores in scores.items():
            points = [
                (objects, suite_scores[f"AP/{name}"], drawn)
                for drawn, (name, (_, objects)) in zip(names, class_counts.items(), strict=True)
                if objects and not math.isnan(suite_scores[f"AP/{name}"])
            ]
            axes.plot([p[0] for p in points], [p[1] for p in points], "o", label=label_text(suite))
            for objects, score, name in points if len(points) <= MAX_CLASS_NAMES else []:
                offset: dict[str, Any] = {"xytext": (4, 2), "textcoords": "offset points"}
                axes.annotate(name, (objects, score), **offset, fontsize=6)
        axes.set(xscale="log", xlabel="training objects of the class", ylim=(0, None))
        axes.set(ylabel=label)
        set_log_ticks(axes.xaxis, EngFormatter(sep=""))
        axes.legend(title="suite", **LEGEND_RIGHT)
        save(figure, path)


def _draw_depth(axes: Axes, rows: Sequence[Mapping[str, Any]], members: Sequence[str]) -> None:
    """For one member, draw mean, median and percentiles; for several only medians, because
    near-zero weights dominate the mean.
    """
    backbones = dict.fromkeys(
        row["backbone"] for m in members for row in rows if row["member"] == m
    )
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(backbones)}
    for member in members:
        layers = [row for row in rows if row["member"] == member]
        depth, color = range(1, len(layers) + 1), colors[layers[0]["backbone"]]
        label = "median" if len(members) == 1 else layers[0]["backbone"]
        axes.plot(depth, [row["median"] for row in layers], color=color, label=label, linewidth=1)
        if len(members) == 1:
            low, high = ([row[name] for row in layers] for name in ("p5", "p95"))
            band: dict[str, Any] = {"color": color, "alpha": 0.15, "linewidth": 0}
            axes.fill_between(depth, low, high, **band, label="5 to 95 % of kernels")
            axes.plot(depth, [row["mean"] for row in layers], "--", color=COLORS[1], label="mean")
    axes.set(yscale="log", xlabel="layer, starting at the stem", ylabel="relative gradient norm")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    set_log_ticks(axes.yaxis, ScalarFormatter())
    axes.legend(unique.values(), unique.keys(), **LEGEND_RIGHT)
