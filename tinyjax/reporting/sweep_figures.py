"""Two plain figures of a sweep: score against size, and how the members learned."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter, ScalarFormatter

from tinyjax.reporting.figures import BESIDE, ON_WHITE, STYLE, save

Row = Mapping[str, str]
SIZES = 8  # that are named on an axis


def draw(folder: Path, tables: Mapping[str, Sequence[Row]], titles: Mapping[str, str]) -> None:
    """Draw score_by_size.png and learning.png into `folder`.

    tables: rows of members.csv, metrics.csv and results.csv, by these names. titles: metric -> what
    it is called; the first is drawn.
    """
    score, title = next(iter(titles.items()))
    with rc_context(STYLE):
        sizes = by_size(tables["members"], tables["results"], score, title)
        save(sizes, folder / "score_by_size.png")
        save(learning(tables["members"], tables["metrics"]), folder / "learning.png")


def by_size(members: Sequence[Row], results: Iterable[Row], score: str, title: str) -> Figure:
    """Every member's score in every suite against its parameters, the mean of each size with its
    standard deviation; members that were stopped are crosses.
    """
    sizes = {row["member"]: int(row["parameters"]) for row in members}
    points = defaultdict(list)  # suite -> (parameters, score, whether stopped)
    for row in results:
        stopped = int(row["diverged_at"]) >= 0
        points[row["suite"]].append((sizes[row["member"]], float(row[score]), stopped))
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes: Axes = figure.subplots()
    for i, (suite, own) in enumerate(points.items()):
        color = ON_WHITE[i % len(ON_WHITE)]
        for mark, wanted in (("o", False), ("x", True)):
            some = [(size, value) for size, value, stopped in own if stopped == wanted]
            if some:
                x, y = zip(*some, strict=True)
                axes.plot(x, y, mark, markersize=3, color=color, alpha=0.4)
        groups = defaultdict(list)
        for size, value, stopped in own:
            if not stopped:
                groups[size].append(value)
        ladder = sorted(groups)
        means = [np.mean(groups[size]) for size in ladder]
        spread = [np.std(groups[size]) for size in ladder]
        axes.errorbar(ladder, means, spread, color=color, capsize=2, label=suite)
    axes.set(xscale="log", xlabel="parameters", ylabel=title, ylim=(0, None))
    ladder = sorted({*sizes.values()})
    if len(ladder) <= SIZES:
        axes.set_xticks(ladder)
    axes.xaxis.set_major_formatter(EngFormatter(places=0, sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.legend(title="suite: mean ± s. d.", **BESIDE)
    return figure


def learning(members: Sequence[Row], metrics: Iterable[Row]) -> Figure:
    """The training loss of every backbone's members: their median, and from lowest to highest."""
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
        color = ON_WHITE[i % len(ON_WHITE)]
        axes.fill_between(
            steps, [min(v) for v in values], [max(v) for v in values], color=color, alpha=0.15,
            linewidth=0,
        )  # fmt: skip
        axes.plot(steps, [np.median(v) for v in values], color=color, label=backbone)
    axes.set(xlabel="step", ylabel="training loss", yscale="log")
    for of_axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        of_axis(ScalarFormatter())
    axes.legend(title="median and range", **BESIDE)
    return figure
