"""Style and helpers that all figures share.

Colors are Okabe and Ito's, which can be told apart with any color vision
(jfly.uni-koeln.de/color).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import Formatter, LogLocator, NullFormatter

from tinyjax.reporting.fonts import drawable, families
from tinyjax.run.files import atomic

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MAX_CLASSES = 80  # in a figure, as many as COCO has; LVIS has 1203
DASHES = ("-", "--", ":", "-.")
LEGEND_RIGHT: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.04, 0.5)}

STYLE: dict[Any, Any] = {
    "font.family": [*families()],
    "font.size": 9,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=COLORS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.title_fontsize": 8,
    "lines.linewidth": 1.4,
    "savefig.bbox": "tight",
    "savefig.dpi": 200,
}


class ReportFigure(NamedTuple):
    """A figure of a report."""

    name: str  # of its file
    title: str
    figure: Figure
    alt: str  # description for readers who cannot see it
    note: str  # how to read it


def save(figure: Figure, path: Path) -> None:
    """Write a PNG file atomically."""
    with atomic(path) as file:
        figure.savefig(file, format="png")


def label_text(name: str, max_length: int = 30) -> str:
    """A name as text of a figure: drawable, shortened in the middle, and "$" escaped."""
    name = drawable(name)
    if len(name) > max_length:
        name = f"{name[: max_length // 2]}…{name[-(max_length // 2 - 1) :]}"
    return name.replace("$", r"\$")


def most_frequent(counts: np.ndarray, extra: int = 0) -> np.ndarray:
    """The indices of the `MAX_CLASSES` + `extra` highest counts, in ascending order."""
    return np.sort(np.argsort(-counts, kind="stable")[: MAX_CLASSES + extra])


def palette(count: int) -> Sequence[Any]:
    """`count` colors: Okabe and Ito's if they suffice, else those of a sequential color map."""
    if count <= len(COLORS):
        return COLORS[:count]
    return [matplotlib.colormaps["viridis"](0.92 * k / (count - 1)) for k in range(count)]


def make_panels(
    count: int,
    width: float,
    height: float,
    max_columns: int,
    legend_width: float = 0.0,
    **options: Any,
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels of that size in inches, at most `max_columns` in a row.

    legend_width: inches to the right of the panels. options: for `Figure.subplots`.
    """
    columns = min(count, max_columns)
    rows = -(-count // columns)
    size = (columns * width + legend_width, rows * height)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False, **options).ravel().tolist()
    for empty in panels[count:]:
        empty.remove()
    return figure, panels[:count]


def draw_interval(
    axes: Axes,
    y: float,
    interval: tuple[float, float, float],
    color: Any,
    linewidth: float = 3.0,
    markersize: float = 6.0,
) -> None:
    """Draw a dot at the value and a horizontal bar from low to high.

    interval: (value, low, high).
    """
    value, low, high = interval
    axes.plot([low, high], [y, y], color=color, linewidth=linewidth, alpha=0.45)
    axes.plot(value, y, "o", color=color, markersize=markersize)


def label_rows(axes: Axes, names: Sequence[str]) -> None:
    """Label the rows of a horizontal chart, the first row at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)


def set_log_ticks(axis: Axis, formatter: Formatter) -> None:
    """Ticks at 1, 2 and 5 of each decade, as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(formatter)
    axis.set_minor_formatter(NullFormatter())
