"""Two figures that a sweep writes when it ends: score against size, and the training losses."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter, ScalarFormatter

from tinyjax.reporting.plotting import COLORS, LEGEND_RIGHT, STYLE, label_text, save

Row = Mapping[str, str]
MAX_SIZE_LABELS = 8  # on an axis


def draw(folder: Path, tables: Mapping[str, Sequence[Row]], labels: Mapping[str, str]) -> None:
    """Draw score_by_size.png and learning.png into `folder`.

    tables: "members", "metrics" and "results" -> rows of that CSV file. labels: metric -> axis
    label; the first metric is drawn.
    """
    metric, label = next(iter(labels.items()))
    with rc_context(STYLE):
        figure = draw_score_by_size(tables["members"], tables["results"], metric, label)
        save(figure, folder / "score_by_size.png")
        save(draw_losses(tables["members"], tables["metrics"]), folder / "learning.png")


def draw_score_by_size(
    members: Sequence[Row], results: Iterable[Row], metric: str, label: str
) -> Figure:
    """Each member's score on each suite against its parameters, with mean and standard deviation of
    each size. Crosses are diverged members.
    """
    sizes = {row["member"]: int(row["parameters"]) for row in members}
    points = defaultdict(list)  # suite -> (parameters, score, whether diverged)
    for row in results:
        diverged = int(row["diverged_at"]) >= 0
        points[row["suite"]].append((sizes[row["member"]], float(row[metric]), diverged))
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes: Axes = figure.subplots()
    for i, (suite, suite_points) in enumerate(points.items()):
        color = COLORS[i % len(COLORS)]
        for marker, diverged in (("o", False), ("x", True)):
            xy = [(size, value) for size, value, d in suite_points if d == diverged]
            if xy:
                axes.plot(*zip(*xy, strict=True), marker, markersize=3, color=color, alpha=0.4)
        by_size = defaultdict(list)
        for size, value, diverged in suite_points:
            if not diverged:
                by_size[size].append(value)
        suite_sizes = sorted(by_size)
        means = [np.mean(by_size[size]) for size in suite_sizes]
        deviations = [np.std(by_size[size]) for size in suite_sizes]
        axes.errorbar(
            suite_sizes, means, deviations, color=color, capsize=2, label=label_text(suite)
        )
    axes.set(xscale="log", xlabel="parameters", ylabel=label, ylim=(0, None))
    unique_sizes = sorted({*sizes.values()})
    if len(unique_sizes) <= MAX_SIZE_LABELS:
        axes.set_xticks(unique_sizes)
    axes.xaxis.set_major_formatter(EngFormatter(places=0, sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(title="suite: mean ± s. d.", **LEGEND_RIGHT)
    return figure


def draw_losses(members: Sequence[Row], metrics: Iterable[Row]) -> Figure:
    """Median and range of the training losses of each backbone's members, over the steps."""
    members = sorted(members, key=lambda row: -int(row["parameters"]))
    backbones = {row["member"]: row["backbone"] for row in members}
    losses: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in metrics:
        if (row["split"], row["metric"]) == ("train", "loss"):
            value = float(row["value"])
            if np.isfinite(value):
                losses[backbones[row["member"]]][int(row["step"])].append(value)
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes: Axes = figure.subplots()
    for i, backbone in enumerate(dict.fromkeys(backbones.values())):
        steps = sorted(losses[backbone])
        values = [losses[backbone][step] for step in steps]
        color = COLORS[i % len(COLORS)]
        low, high = [min(v) for v in values], [max(v) for v in values]
        axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
        axes.plot(steps, [np.median(v) for v in values], color=color, label=backbone)
    has_losses = any(losses.values())  # matplotlib cannot scale an axis of none logarithmically
    axes.set(xlabel="step", ylabel="training loss", yscale="log" if has_losses else "linear")
    axes.yaxis.set_major_formatter(ScalarFormatter())
    axes.yaxis.set_minor_formatter(ScalarFormatter())
    axes.legend(title="median and range", **LEGEND_RIGHT)
    return figure
