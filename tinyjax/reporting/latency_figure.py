"""The figure of a sweep's benchmark: score against latency, and against memory."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, ScalarFormatter

from tinyjax.reporting.plotting import (
    LEGEND_RIGHT,
    STYLE,
    label_text,
    make_panels,
    palette,
    save,
    set_log_ticks,
)

# Column -> axis label.
COSTS = {"median_ms": "latency of one image (ms)", "arena_bytes": "int8 activations (bytes)"}
MAX_LABELS = 16  # backbones in the legend


def draw(
    file: Path, rows: Sequence[Mapping[str, Any]], metric: str, label: str, title: str
) -> None:
    """Draw a panel for each of COSTS: a point for each row, and a line along the Pareto front.

    rows: with the columns of COSTS, `metric` and "backbone". label: of the metric's axis. title:
    the machine and the runtime.
    """
    backbones = [*dict.fromkeys(str(row["backbone"]) for row in rows)]
    colors = dict(zip(backbones, palette(len(backbones)), strict=True))
    with rc_context(STYLE):
        figure, panels = make_panels(len(COSTS), 3.4, 3.2, 2, legend_width=1.6, sharey=True)
        for axes, (column, name) in zip(panels, COSTS.items(), strict=True):
            _draw_panel(axes, rows, column, metric, colors)
            axes.set(xscale="log", xlabel=name)
        panels[0].set(ylabel=label)
        set_log_ticks(panels[0].xaxis, ScalarFormatter())
        set_log_ticks(panels[1].xaxis, EngFormatter(places=0, sep=""))
        panels[1].legend(**LEGEND_RIGHT)
        figure.suptitle(label_text(title, 90), fontsize=8)
        save(figure, file)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The points (cost, score) that no other point beats: by ascending cost, with a higher score
    than all cheaper ones. NaN is never one of them.
    """
    front: list[int] = []
    best = -float("inf")
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[i][1] > best:
            front.append(i)
            best = points[i][1]
    return front


def _draw_panel(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    column: str,
    metric: str,
    colors: Mapping[str, Any],
) -> None:
    points = [(float(row[column]), float(row[metric])) for row in rows]
    for backbone, color in colors.items():
        selected = [p for p, r in zip(points, rows, strict=True) if str(r["backbone"]) == backbone]
        name = label_text(backbone) if len(colors) <= MAX_LABELS else None
        axes.plot(*zip(*selected, strict=True), "o", color=color, markersize=4, label=name)
    if front := [points[i] for i in pareto_front(points)]:
        x, y = zip(*front, strict=True)
        axes.plot(
            x, y, "o-", drawstyle="steps-post", color="black", linewidth=0.8,
            markerfacecolor="none", markersize=8, label="Pareto front",
        )  # fmt: skip
