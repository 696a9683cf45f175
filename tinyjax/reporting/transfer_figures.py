"""Figures of what transfer does to a network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    EngFormatter,
    MaxNLocator,
    ScalarFormatter,
)

from tinyjax.reporting.figures import BESIDE, ON_WHITE, STYLE, save, ticks

NAMED = 20  # classes whose names fit into a figure


def draw_rgn(
    rows: Sequence[Mapping[str, Any]],
    numbers: Mapping[str, float],
    sizes: Mapping[str, int],
    path: Path,
) -> None:
    """Relative gradient norm along the depth of the backbone and, of several members, each one's
    number against its size.

    rows: of `rgn.layers`, with "member" and "backbone". numbers, sizes: of each member its
    `of_backbone` and its parameters.
    """
    with rc_context(STYLE):
        several = len(numbers) > 1
        figure = Figure(figsize=(9 if several else 5.2, 3.4), layout="constrained")
        left, *right = figure.subplots(1, 2 if several else 1, squeeze=False)[0]
        _along_depth(left, rows, sorted(numbers, key=lambda member: -sizes[member]))
        for axes in right:
            axes.plot([sizes[m] for m in numbers], [*numbers.values()], "o", markersize=4)
            axes.set(xscale="log", yscale="log", xlabel="parameters", ylabel="mean over layers")
            ticks(axes.xaxis, EngFormatter(sep=""))
            ticks(axes.yaxis, ScalarFormatter())
        save(figure, path)


def draw_between(rows: Sequence[Mapping[str, Any]], score: str, title: str, path: Path) -> None:
    """The score of every suite on the way from a start, part 0, to an end, part 1."""
    with rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes: Axes = figure.subplots()
        for suite in dict.fromkeys(row["suite"] for row in rows):
            own = sorted((row["part"], row[score]) for row in rows if row["suite"] == suite)
            axes.plot(*zip(*own, strict=True), "o-", markersize=3, label=suite)
        axes.set(xlabel="part of the end's weights", ylabel=title, ylim=(0, None))
        axes.legend(title="suite", **BESIDE)
        save(figure, path)


def draw_tail(
    training: Mapping[str, tuple[int, int]], scores: Mapping[str, Mapping[str, float]], path: Path
) -> None:
    """Each class's AP in every suite against the number of its training objects.

    training: see `detect.tail.counts`. scores: suite -> what `detect.score` returns.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes: Axes = figure.subplots()
        for suite, own in scores.items():
            points = [
                (objects, own[f"AP/{name}"], name)
                for name, (_, objects) in training.items()
                if own[f"AP/{name}"] == own[f"AP/{name}"] and objects  # not NaN
            ]
            axes.plot([p[0] for p in points], [p[1] for p in points], "o", label=suite)
            for objects, score, name in points if len(points) <= NAMED else []:
                axes.annotate(name, (objects, score), xytext=(4, 2), textcoords="offset points",
                              fontsize=6)  # fmt: skip
        axes.set(xscale="log", xlabel="training objects of the class", ylim=(0, None))
        axes.set(ylabel="AP (IoU 0.50:0.95)")
        ticks(axes.xaxis, EngFormatter(sep=""))
        axes.legend(title="suite", **BESIDE)
        save(figure, path)


def _along_depth(axes: Axes, rows: Sequence[Mapping[str, Any]], members: Sequence[str]) -> None:
    """Of one member mean, median and a band of percentiles, of several the medians: near-zero
    weights decide a mean.
    """
    backbones = dict.fromkeys(
        row["backbone"] for m in members for row in rows if row["member"] == m
    )
    colors = {name: ON_WHITE[i % len(ON_WHITE)] for i, name in enumerate(backbones)}
    for member in members:
        own = [row for row in rows if row["member"] == member]
        depth, color = range(1, len(own) + 1), colors[own[0]["backbone"]]
        label = "median" if len(members) == 1 else own[0]["backbone"]
        axes.plot(depth, [row["median"] for row in own], color=color, label=label, linewidth=1)
        if len(members) == 1:
            low, high = ([row[name] for row in own] for name in ("p5", "p95"))
            axes.fill_between(depth, low, high, color=color, alpha=0.15, linewidth=0,
                              label="5 to 95 % of kernels")  # fmt: skip
            axes.plot(depth, [row["mean"] for row in own], "--", color=ON_WHITE[1], label="mean")
    axes.set(yscale="log", xlabel="layer, from the stem on", ylabel="relative gradient norm")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    ticks(axes.yaxis, ScalarFormatter())
    axes.legend(once.values(), once.keys(), **BESIDE)
