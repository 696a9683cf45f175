"""Figures of a run: its training, and what its detector gets right and wrong.

Colors are Okabe and Ito's, told apart with any color vision (jfly.uni-koeln.de/color).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import (
    Formatter,
    LogLocator,
    MaxNLocator,
    NullFormatter,
    ScalarFormatter,
)

from tinyjax.data.records import Split
from tinyjax.metrics import detection_errors
from tinyjax.reporting.pictures import worst
from tinyjax.run.csv_files import read_rows, write_rows
from tinyjax.run.files import atomic

ON_WHITE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BESIDE: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1.04, 0.5)}  # place of a legend
DASHES = ("-", "--", ":", "-.")

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=ON_WHITE),
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

Series = dict[tuple[str, str], np.ndarray]  # (split, metric) -> float64 [points, 2], step and value


def curves(metrics: Path, folder: Path, titles: Mapping[str, str]) -> None:
    """Draw a run's metrics.csv (columns step, split, metric, value) into `folder`.

    training.png: the loss, its parts (metrics "loss", "*_loss" of split "train") and the learning
    rate ("lr"). scores.png: of every suite the two metrics that `titles` has titles for. A figure
    with nothing in it is not made.
    """
    series = _read(metrics)
    losses = {m: v for (s, m), v in series.items() if s == "train" and m.endswith("loss")}
    rate = series.get(("train", "lr"))
    scores = {
        name: {s: v for (s, m), v in series.items() if m == name and s != "train"}
        for name in titles
    }
    with rc_context(STYLE):
        if losses and rate is not None:
            save(_training(losses, rate), folder / "training.png")
        if any(scores.values()):
            save(_scores(scores, titles), folder / "scores.png")


def _training(losses: Mapping[str, np.ndarray], rate: np.ndarray) -> Figure:
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for i, (name, points) in enumerate(losses.items()):
        step, value = points.T
        above.plot(step, value, color=f"C{i}", alpha=0.25, linewidth=0.8)
        above.plot(step, _running_mean(value), color=f"C{i}", label=name.replace("_", " "))
    above.set(ylabel="training loss", yscale="log")
    ticks(above.yaxis, ScalarFormatter())
    above.legend(ncols=2, title="bold: running mean")
    below.plot(*rate.T, color=ON_WHITE[-1])
    below.set(ylabel="learning rate", xlabel="step", ylim=(0, None), xlim=(0, None))
    below.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    return figure


def _scores(scores: Mapping[str, Mapping[str, np.ndarray]], titles: Mapping[str, str]) -> Figure:
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, 2, sharex=True)
    for axes, (name, suites) in zip(panels, scores.items(), strict=True):
        for suite, points in suites.items():
            axes.plot(*points.T, marker="o", markersize=3, label=suite)
        axes.set(xlabel="step", ylabel=titles[name], ylim=(0, None), xlim=(0, None))
    panels[0].legend(title="suite")
    return figure


def save(figure: Figure, path: Path) -> None:
    """As a PNG, whole or not at all."""
    with atomic(path) as file:
        figure.savefig(file, format="png")


def _read(metrics: Path) -> Series:
    rows = defaultdict(list)
    for row in read_rows(metrics):
        rows[row["split"], row["metric"]].append((float(row["step"]), float(row["value"])))
    return {key: np.array(sorted(points)) for key, points in rows.items()}


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over a centerd window of a twentieth of the curve, cut off at the ends."""
    window = np.ones(2 * (len(values) // 40) + 1)
    total = np.convolve(values, window, "full")
    count = np.convolve(np.ones_like(values), window, "full")
    half = len(window) // 2
    return (total / count)[half : half + len(values)]


def report(
    folder: Path,
    suites: Mapping[str, Split],
    predictions: Mapping[str, Mapping[str, np.ndarray]],
    scores: Mapping[str, Mapping[str, float]],
) -> None:
    """Everything that tells how a detector did, by suite.

    Writes into `folder`: figures/precision_recall.png, f1.png, confusion.png, per_class.png;
    per_class.csv with the rows of `analyze.per_class`; samples/worst_<suite>.png where anything is
    wrong. All at IoU 0.50, and where one threshold is needed, at the one of the best mean F1.

    predictions: suite -> boxes float32 [N, K, 4], scores [N, K], labels [N, K], as they are scored:
    boxes in pixels of the files. scores: suite -> what `score` returns.
    """
    matches = {
        name: detection_errors.match(predictions[name], suites[name].truth) for name in suites
    }
    found = {name: detection_errors.curves(own) for name, own in matches.items()}
    points = {name: detection_errors.operating_point(own) for name, own in found.items()}
    tables = {
        name: detection_errors.per_class(matches[name], found[name], scores[name])
        for name in suites
    }
    rows = [{"suite": name, **row} for name, own in tables.items() for row in own]
    write_rows(folder / "per_class.csv", rows, rows[0])
    confused = {
        name: detection_errors.confusion(predictions[name], split.truth, points[name])
        for name, split in suites.items()
    }
    with rc_context(STYLE):
        for name, figure in {
            "precision_recall": _precision_recall(matches),
            "f1": _f1(matches, found),
            "confusion": _confusion(matches, confused, points),
            "per_class": _per_class(tables),
        }.items():
            save(figure, folder / "figures" / f"{name}.png")
    for name, split in suites.items():
        path = folder / "samples" / f"worst_{name}.png"
        worst(split, predictions[name], matches[name], points[name], path)


def _precision_recall(matches: Mapping[str, detection_errors.Matches]) -> Figure:
    """A panel per suite; the area under each curve is the class's AP50."""
    most, room = _room(matches)
    figure, panels = _panels(len(matches), 2.4 + room, max(2.4, 0.8 + 0.16 * most))
    recall = np.linspace(0, 1, 101)
    for axes, (suite, own) in zip(panels, matches.items(), strict=True):
        for name, precision, line in _lines(own.classes, own.precision):
            # Beyond the highest recall that is reached precision is 0: one such point is drawn.
            reached = 1 + np.count_nonzero(precision)
            label = f"{name}  {_number(precision.mean())}"
            axes.plot(recall[:reached], precision[:reached], label=label, **line)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision", title=suite)
        axes.set_box_aspect(1)
        axes.legend(**BESIDE, handles=axes.lines, title="AP50 (IoU 0.50)")
    return figure


def _f1(
    matches: Mapping[str, detection_errors.Matches], found: Mapping[str, detection_errors.Curves]
) -> Figure:
    """A row per suite: F1, precision and recall against the score threshold."""
    most, room = _room(matches)
    size = (6.8 + room, len(found) * max(2.4, 0.8 + 0.16 * most))
    figure = Figure(figsize=size, layout="constrained")
    rows = figure.subplots(len(found), 3, sharex=True, sharey=True, squeeze=False)
    for row, (suite, own) in zip(rows, found.items(), strict=True):
        classes = matches[suite].classes
        quantities = {"F1": own.f1, "precision": own.precision, "recall": own.recall}
        for axes, (quantity, values) in zip(row, quantities.items(), strict=True):
            for _, curve, line in _lines(classes, values):
                axes.plot(detection_errors.THRESHOLDS, curve, **line)
            axes.set(ylabel=quantity, xlim=(0, 1), ylim=(0, 1.02))
            axes.axvline(
                detection_errors.operating_point(own), color="#888888", linewidth=0.8, zorder=1
            )
        handles = []
        for name, curve, line in _lines(classes, own.f1):
            at, value = (
                detection_errors.THRESHOLDS[detection_errors.best(curve)],
                curve[detection_errors.best(curve)],
            )
            label = f"{name}  {_number(value)}" + ("" if np.isnan(value) else f" at {at:.3f}")
            handles += row[0].plot(at, value, marker="o", markersize=4, label=label, **line)
        row[0].set_title(f"{suite}, IoU 0.50", loc="left")
        row[2].legend(**BESIDE, handles=handles, title="best F1 (dots; gray: of the mean)")
    for axes in rows[-1]:
        axes.set(xlabel="score threshold")
    return figure


def _confusion(
    matches: Mapping[str, detection_errors.Matches],
    confused: Mapping[str, np.ndarray],
    points: Mapping[str, float],
) -> Figure:
    """A panel per suite; rows add up to 100 %."""
    most, room = _room(matches)
    cell = float(np.clip(6 / most, 0.42, 0.62))  # inches
    side = cell * (most + 1)
    figure, panels = _panels(len(confused), side + room, side + 0.3 + 0.8 * room)
    for axes, (suite, table) in zip(panels, confused.items(), strict=True):
        names = [_short(name) for name in matches[suite].classes]
        share = table / np.maximum(table.sum(1, keepdims=True), 1)
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (i, j), count in np.ndenumerate(table):
            if count:
                part = f"{share[i, j]:.0%}" if share[i, j] >= 0.005 else "<1%"
                axes.text(
                    j,
                    i,
                    f"{part}\n{count:,}",
                    color="white" if share[i, j] > 0.55 else "black",
                    fontsize=12.5 * cell,
                    ha="center",
                    va="center",
                )
        axes.set_xticks(
            range(len(table)), [*names, "missed"], rotation=45, ha="right", rotation_mode="anchor"
        )
        axes.set_yticks(range(len(table)), [*names, "background"])
        axes.set(xlabel="prediction", ylabel="truth (rows add up to 100%)")
        axes.set_title(f"{suite}: IoU 0.50, scores from {points[suite]:.3f}")
        axes.grid(False)
        for line in (axes.axhline, axes.axvline):
            line(len(table) - 1.5, color="black", linewidth=0.8)
    return figure


def _per_class(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """A panel per suite: bars of AP50 and AP, counts beside the classes' names."""
    most = max(map(len, tables.values()))
    figure, panels = _panels(len(tables), 4, 1.0 + 0.36 * most)
    bars = {"AP50 (IoU 0.50)": ("AP50", -0.2, 5), "AP (IoU 0.50:0.95)": ("AP", 0.2, 0)}
    for axes, (suite, rows) in zip(panels, tables.items(), strict=True):
        place = np.arange(len(rows))
        for label, (name, shift, color) in bars.items():
            values = np.array([row[name] for row in rows])
            own = axes.barh(
                place + shift, np.nan_to_num(values), 0.4, color=ON_WHITE[color], label=label
            )
            axes.bar_label(own, [_number(v) for v in values], padding=2, fontsize=7)
        names = [
            f"{_short(row['class'])}\n{row['boxes']:,} boxes, {row['images']:,} images"
            for row in rows
        ]
        axes.set_yticks(place, names, fontsize=7)
        axes.set(xlim=(0, 1.1), ylim=(len(rows) - 0.5, -0.5))
        axes.set(xlabel="average precision", title=suite)
        axes.grid(axis="y", visible=False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def labels(split: Split, strides: Sequence[int], path: Path) -> None:
    """What a split's objects are like: counts and sizes by class, objects an image, places.

    Sizes and places are in pixels of the network's input, `strides` of the detector's levels are
    marked among them. Don't-care boxes are left out. Without an object no file is made.
    """
    if not split.valid.any():
        return
    with rc_context(STYLE):
        save(_labels(split, strides), path)


def _labels(split: Split, strides: Sequence[int]) -> Figure:
    n, (images, height, width, _) = len(split.classes), split.images.shape
    boxes, label = split.boxes[split.valid], split.labels[split.valid]
    figure = Figure(figsize=(7.2, 4.0 + 0.3 * n), layout="constrained")
    (count, size), (crowd, place) = figure.subplots(
        2, 2, height_ratios=(0.8 + 0.3 * n, 2.4), width_ratios=(2, 3)
    )
    figure.suptitle(
        f"{len(boxes):,} boxes in {images:,} images of {width} x {height} px; "
        f"{split.ignore.sum():,} don't-care boxes left out",
        fontsize=9,
    )
    number = np.bincount(label, minlength=n)
    bars = count.barh(range(n), number, color=ON_WHITE[0])
    count.bar_label(bars, [f"{one:,}" for one in number], padding=2, fontsize=7)
    count.set_yticks(range(n), [_short(name) for name in split.classes])
    count.set(xlabel="boxes", xlim=(0, 1.3 * number.max()), ylim=(n - 0.4, -0.8))
    count.locator_params(axis="x", nbins=4)

    # A box clipped to nothing has no place on a logarithmic axis.
    side = np.maximum(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)), 0.5)
    edges = np.geomspace(min(side.min(), *strides) / 1.2, max(side.max(), *strides) * 1.2, 49)
    size.set_ylim(count.get_ylim())
    for k in np.flatnonzero(number):
        share, _ = np.histogram(side[label == k], edges)
        top, bottom = k + 0.4 - 0.8 * share / share.max(), k + 0.4
        size.stairs(top, edges, baseline=bottom, fill=True, color=ON_WHITE[0], alpha=0.7)
        size.vlines(np.median(side[label == k]), bottom - 0.8, bottom, color=ON_WHITE[-1])
    for stride in strides:
        size.axvline(stride, color=ON_WHITE[1], linestyle="--", linewidth=1)
        above = (stride, size.get_ylim()[1])
        size.annotate(f"stride {stride}", above, color=ON_WHITE[1], fontsize=7, ha="center")
    size.set_xscale("log", base=2)
    size.xaxis.set_major_formatter(ScalarFormatter())
    size.set_yticks(range(n), [])
    size.set(xlabel="box side $\\sqrt{wh}$ / px; black: median")
    for axes in (count, size):
        axes.grid(axis="y", visible=False)

    each = split.valid.sum(1)
    step = -(-int(each.max()) // 40)  # at most 40 bars
    crowd.hist(each, np.arange(0, each.max() + step + 1, step) - 0.5, color=ON_WHITE[0])
    crowd.set(xlabel="boxes in an image", ylabel="images")
    crowd.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    crowd.yaxis.set_major_locator(MaxNLocator(5, integer=True))

    x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
    cell = max(height, width) / 32
    cells = (round(height / cell), round(width / cell))
    heat, *_ = np.histogram2d(y, x, cells, ((0, height), (0, width)))
    picture = place.imshow(heat, extent=(0, width, height, 0), cmap="cividis", vmin=0)
    figure.colorbar(
        picture,
        ax=place,
        label=f"boxes centerd in a {cell:.3g} px cell",
        ticks=MaxNLocator(5, integer=True),
    )
    place.set(xlabel="x / px", ylabel="y / px")
    place.grid(False)
    return figure


def ticks(axis: Axis, formatter: Formatter) -> None:
    """Of a logarithmic axis 1, 2 and 5, in plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(formatter)
    axis.set_minor_formatter(NullFormatter())


def _panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """So many panels of that size in inches, as many a row as fit on a page."""
    across = min(count, max(1, int(9 // width)))
    down = -(-count // across)
    figure = Figure(figsize=(across * width, down * height), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel().tolist()
    for empty in panels[count:]:
        empty.remove()
    return figure, panels[:count]


def _room(matches: Mapping[str, detection_errors.Matches]) -> tuple[int, float]:
    """How many classes there are, and the inches that a column of their names and numbers takes."""
    names = [_short(name) for own in matches.values() for name in own.classes]
    most = max(len(own.classes) for own in matches.values())
    return most, 1.2 + 0.06 * max(map(len, names))


def _lines(
    classes: Sequence[str], values: np.ndarray
) -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:
    """Name, curve and look of each class of [C, points], and of their mean if there are several.

    The mean ends where one of the classes does: without it, it would jump.
    """
    for k, (name, curve) in enumerate(zip(classes, values, strict=True)):
        yield _short(name), curve, {"color": ON_WHITE[k % 6], "linestyle": DASHES[k // 6 % 4]}
    if len(classes) > 1:
        absent = np.isnan(values).sum(0)
        mean = np.where(absent == absent[0], detection_errors.over_classes(values), np.nan)
        yield "mean", mean, {"color": ON_WHITE[-1], "linewidth": 2.2}


def _short(name: str) -> str:
    """A class's name as text of a figure: cut in the middle if long, "$" without its meaning."""
    name = name if len(name) <= 20 else f"{name[:11]}…{name[-8:]}"
    return name.replace("$", r"\$")


def _number(value: float) -> str:
    return "no objects" if np.isnan(value) else f"{value:.3f}"
