"""Figure of a detection split's labels: counts, sizes, objects per image, positions."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from tinyjax.data.records import DetectionSplit
from tinyjax.reporting.fonts import class_names
from tinyjax.reporting.plotting import COLORS, STYLE, label_text, most_frequent, save

MAX_BARS = 40  # of a histogram


def draw(split: DetectionSplit, strides: Sequence[int], path: Path) -> None:
    """Draw counts and sizes by class, objects per image, and positions; of many classes, counts and
    sizes of the most frequent ones.

    Sizes and positions are in pixels of the network's input; dashed lines mark the `strides`
    of the detector's levels. Ignored boxes are left out. Without objects no file is written.
    """
    if not split.valid.any():
        return
    with rc_context(STYLE):
        save(_draw(split, strides), path)


def _draw(split: DetectionSplit, strides: Sequence[int]) -> Figure:
    images, height, width, _ = split.inputs["image"].shape
    boxes, labels = split.boxes[split.valid], split.labels[split.valid]
    drawn = most_frequent(np.bincount(labels, minlength=len(split.classes)))
    num_classes = len(drawn)
    figure = Figure(figsize=(7.2, 4.0 + 0.3 * num_classes), layout="constrained")
    (count_axes, size_axes), (per_image_axes, position_axes) = figure.subplots(
        2, 2, height_ratios=(0.8 + 0.3 * num_classes, 2.4), width_ratios=(2, 3)
    )
    figure.suptitle(
        f"{len(boxes):,} boxes in {images:,} images of {width} x {height} px; "
        f"{split.ignore.sum():,} ignored boxes left out"
        + f"; the {num_classes} most frequent classes"
        * (num_classes < len(split.classes)),
        fontsize=9,
    )
    of_drawn = np.isin(labels, drawn)
    rows = np.searchsorted(drawn, labels[of_drawn])
    _draw_counts(count_axes, rows, [split.classes[k] for k in drawn])
    size_axes.set_ylim(count_axes.get_ylim())
    _draw_sizes(size_axes, boxes[of_drawn], rows, num_classes, strides)
    _draw_objects_per_image(per_image_axes, split.valid.sum(1))
    _draw_positions(position_axes, boxes, (height, width))
    return figure


def _draw_counts(axes: Axes, labels: np.ndarray, classes: Sequence[str]) -> None:
    n = len(classes)
    counts = np.bincount(labels, minlength=n)
    bars = axes.barh(range(n), counts, color=COLORS[0])
    axes.bar_label(bars, [f"{count:,}" for count in counts], padding=2, fontsize=7)
    axes.set_yticks(range(n), [label_text(name, 20) for name in class_names(classes)])
    axes.set(xlabel="boxes", xlim=(0, 1.3 * counts.max()), ylim=(n - 0.4, -0.8))
    axes.locator_params(axis="x", nbins=4)
    axes.grid(axis="y", visible=False)


def _draw_sizes(
    axes: Axes, boxes: np.ndarray, labels: np.ndarray, num_classes: int, strides: Sequence[int]
) -> None:
    # A box clipped to size 0 would be at minus infinity on the logarithmic axis.
    sides = np.maximum(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)), 0.5)
    edges = np.geomspace(min(sides.min(), *strides) / 1.2, max(sides.max(), *strides) * 1.2, 49)
    for k in np.unique(labels):
        counts, _ = np.histogram(sides[labels == k], edges)
        top, bottom = k + 0.4 - 0.8 * counts / counts.max(), k + 0.4
        axes.stairs(top, edges, baseline=bottom, fill=True, color=COLORS[0], alpha=0.7)
        axes.vlines(np.median(sides[labels == k]), bottom - 0.8, bottom, color=COLORS[-1])
    for stride in strides:
        axes.axvline(stride, color=COLORS[1], linestyle="--", linewidth=1)
        top = (stride, axes.get_ylim()[1])
        axes.annotate(f"stride {stride}", top, color=COLORS[1], fontsize=7, ha="center")
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set_yticks(range(num_classes), [])
    axes.set(xlabel="box side $\\sqrt{wh}$ / px; black: median")
    axes.grid(axis="y", visible=False)


def _draw_objects_per_image(axes: Axes, counts: np.ndarray) -> None:
    step = -(-int(counts.max()) // MAX_BARS)
    edges = np.arange(0, counts.max() + step + 1, step) - 0.5
    axes.hist(counts, edges.tolist(), color=COLORS[0])
    axes.set(xlabel="boxes per image", ylabel="images")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))


def _draw_positions(axes: Axes, boxes: np.ndarray, image_size: tuple[int, int]) -> None:
    height, width = image_size
    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
    cell = max(height, width) / 32
    cells = (round(height / cell), round(width / cell))
    counts, *_ = np.histogram2d(y, x, cells, ((0, height), (0, width)))
    picture = axes.imshow(counts, extent=(0, width, height, 0), cmap="cividis", vmin=0)
    axes.figure.colorbar(
        picture,
        ax=axes,
        label=f"boxes centered in a {cell:.3g} px cell",
        ticks=MaxNLocator(5, integer=True),
    )
    axes.set(xlabel="x / px", ylabel="y / px")
    axes.grid(False)
