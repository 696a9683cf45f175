"""Report of a single detection run: tables and figures of its errors, by suite."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tinyjax.data.records import DetectionSplit
from tinyjax.metrics import detection_errors, protocols
from tinyjax.metrics.detection_errors import THRESHOLDS, best_threshold_index
from tinyjax.reporting import plotting
from tinyjax.reporting.fonts import class_names
from tinyjax.reporting.pictures import save_worst
from tinyjax.reporting.plotting import (
    COLORS,
    DASHES,
    LEGEND_RIGHT,
    STYLE,
    label_text,
    most_frequent,
    save,
)
from tinyjax.run.csv_files import write_rows

PAGE_WIDTH = 9  # inches
MAX_NAME_LENGTH = 20  # characters of a class in a figure


def write_report(
    folder: Path,
    suites: Mapping[str, DetectionSplit],
    predictions: Mapping[str, Mapping[str, np.ndarray]],
    scores: Mapping[str, Mapping[str, float]],
    protocol: str = "coco",
) -> None:
    """Write tables and figures of a detector's errors.

    Files: figures/precision_recall.png, f1.png, confusion.png, per_class.png; per_class.csv with
    the rows of `detection_errors.per_class_rows`; samples/worst_<suite>.png for suites with errors.
    Matches are those of the protocol at IoU 0.50, except in the confusion matrix, see
    `protocols.confusion_matrix`. The score threshold of a suite is the one with the highest mean
    F1. Of more than `plotting.MAX_CLASSES` classes, figures show those with the most objects.

    Args:
        predictions: suite -> boxes float32 [N, K, 4] in pixels of the files, scores [N, K], labels
            [N, K].
        scores: suite -> the result of `protocols.score`.
    """
    matches = {
        name: protocols.match(predictions[name], suites[name].truth, protocol) for name in suites
    }
    curves = {name: detection_errors.threshold_curves(m) for name, m in matches.items()}
    thresholds = {name: detection_errors.operating_point(c) for name, c in curves.items()}
    tables = {
        name: detection_errors.per_class_rows(matches[name], curves[name], scores[name])
        for name in suites
    }
    rows = [{"suite": name, **row} for name, table in tables.items() for row in table]
    write_rows(folder / "per_class.csv", rows, rows[0])
    confusion = {
        name: protocols.confusion_matrix(predictions[name], split.truth, thresholds[name], protocol)
        for name, split in suites.items()
    }
    with rc_context(STYLE):
        for name, figure in {
            "precision_recall": _draw_precision_recall(matches, scores, protocol),
            "f1": _draw_f1(matches, curves),
            "confusion": _draw_confusion(matches, confusion, thresholds, protocol),
            "per_class": _draw_per_class(tables, protocol),
        }.items():
            save(figure, folder / "figures" / f"{name}.png")
    for name, split in suites.items():
        path = folder / "samples" / f"worst_{name}.png"
        save_worst(split, predictions[name], matches[name], thresholds[name], path)


def _draw_precision_recall(
    matches: Mapping[str, detection_errors.Matches],
    scores: Mapping[str, Mapping[str, float]],
    protocol: str = "coco",
) -> Figure:
    """A panel per suite, with AP50 in its legend."""
    num_classes, legend_width = _legend_size(matches)
    height = max(2.4, 0.8 + 0.16 * num_classes)
    figure, panels = _make_panels(len(matches), 2.4 + legend_width, height)
    recall = np.linspace(0, 1, 101)
    for axes, (suite, suite_matches) in zip(panels, matches.items(), strict=True):
        suffixes = _line_suffixes(suite_matches)
        lines = _class_lines(suite_matches, suite_matches.precision)
        for suffix, (name, precision, line) in zip(suffixes, lines, strict=True):
            # Precision is 0 beyond the highest recall; only one such point is drawn.
            points = 1 + np.count_nonzero(precision)
            label = f"{name}  {_score_text(scores[suite][f'AP50{suffix}'])}"
            axes.plot(recall[:points], precision[:points], label=label, **line)
        axes.set(
            xlim=(0, 1),
            ylim=(0, 1.02),
            xlabel="recall",
            ylabel="precision",
            title=label_text(suite),
        )
        axes.set_box_aspect(1)
        title = protocols.METRICS[protocol]["AP50"]
        axes.legend(**LEGEND_RIGHT, handles=axes.lines, title=title)
    return figure


def _draw_f1(
    matches: Mapping[str, detection_errors.Matches], curves: Mapping[str, detection_errors.Curves]
) -> Figure:
    """A row per suite: F1, precision and recall against the score threshold."""
    num_classes, legend_width = _legend_size(matches)
    size = (6.8 + legend_width, len(curves) * max(2.4, 0.8 + 0.16 * num_classes))
    figure = Figure(figsize=size, layout="constrained")
    rows = figure.subplots(len(curves), 3, sharex=True, sharey=True, squeeze=False)
    for row, (suite, suite_curves) in zip(rows, curves.items(), strict=True):
        threshold = detection_errors.operating_point(suite_curves)
        quantities = {
            "F1": suite_curves.f1,
            "precision": suite_curves.precision,
            "recall": suite_curves.recall,
        }
        for axes, (quantity, values) in zip(row, quantities.items(), strict=True):
            for _, curve, line in _class_lines(matches[suite], values):
                axes.plot(THRESHOLDS, curve, **line)
            axes.set(ylabel=quantity, xlim=(0, 1), ylim=(0, 1.02))
            axes.axvline(threshold, color="#888888", linewidth=0.8, zorder=1)
        handles = []
        for name, curve, line in _class_lines(matches[suite], suite_curves.f1):
            best = best_threshold_index(curve)
            x, f1 = THRESHOLDS[best], curve[best]
            label = f"{name}  {_score_text(f1)}" + ("" if np.isnan(f1) else f" at {x:.3f}")
            handles += row[0].plot(x, f1, marker="o", markersize=4, label=label, **line)
        row[0].set_title(f"{label_text(suite)}, IoU 0.50", loc="left")
        row[2].legend(**LEGEND_RIGHT, handles=handles, title="best F1 (dots; gray line: mean)")
    for axes in rows[-1]:
        axes.set(xlabel="score threshold")
    return figure


def _draw_confusion(
    matches: Mapping[str, detection_errors.Matches],
    confusion: Mapping[str, np.ndarray],
    thresholds: Mapping[str, float],
    protocol: str = "coco",
) -> Figure:
    """A panel per suite; rows add up to 100 %."""
    note = "" if protocol == "coco" else "\n(matches by COCO's rules, regardless of the class)"
    num_classes, legend_width = _legend_size(matches)
    cell = float(np.clip(6 / num_classes, 0.42, 0.62))  # inches
    side = cell * (num_classes + 1)
    figure, panels = _make_panels(
        len(confusion), side + legend_width, side + 0.3 + 0.8 * legend_width
    )
    for axes, (suite, table) in zip(panels, confusion.items(), strict=True):
        drawn = _drawn_classes(matches[suite])
        names = _class_texts([matches[suite].classes[k] for k in drawn])
        fractions = table / np.maximum(table.sum(1, keepdims=True), 1)
        cells = np.ix_(*[[*drawn, len(table) - 1]] * 2)
        table, fractions = table[cells], fractions[cells]
        axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
        for (i, j), count in np.ndenumerate(table):
            if count:
                percent = f"{fractions[i, j]:.0%}" if fractions[i, j] >= 0.005 else "<1%"
                axes.text(
                    j,
                    i,
                    f"{percent}\n{count:,}",
                    color="white" if fractions[i, j] > 0.55 else "black",
                    fontsize=12.5 * cell,
                    ha="center",
                    va="center",
                )
        axes.set_xticks(
            range(len(table)), [*names, "missed"], rotation=45, ha="right", rotation_mode="anchor"
        )
        axes.set_yticks(range(len(table)), [*names, "background"])
        axes.set(xlabel=f"prediction{note}", ylabel="truth (rows add up to 100%)")
        axes.set_title(f"{label_text(suite)}: IoU 0.50, scores from {thresholds[suite]:.3f}")
        axes.grid(False)
        for line in (axes.axhline, axes.axvline):
            line(len(table) - 1.5, color="black", linewidth=0.8)
    return figure


def _draw_per_class(
    tables: Mapping[str, Sequence[Mapping[str, Any]]], protocol: str = "coco"
) -> Figure:
    """A panel per suite: bars of AP50 and AP, with counts below the classes' names.

    The last row of a table is not a class, but all.
    """
    most_boxes = {
        suite: most_frequent(np.array([row["boxes"] for row in rows]), extra=1)
        for suite, rows in tables.items()
    }
    tables = {suite: [tables[suite][k] for k in rows] for suite, rows in most_boxes.items()}
    max_rows = max(map(len, tables.values()))
    figure, panels = _make_panels(len(tables), 4, 1.0 + 0.36 * max_rows)
    labels = protocols.METRICS[protocol]
    metrics = {labels["AP50"]: ("AP50", -0.2, 5), labels["AP"]: ("AP", 0.2, 0)}
    for axes, (suite, rows) in zip(panels, tables.items(), strict=True):
        y = np.arange(len(rows))
        for label, (metric, offset, color) in metrics.items():
            values = np.array([row[metric] for row in rows])
            bars = axes.barh(
                y + offset, np.nan_to_num(values), 0.4, color=COLORS[color], label=label
            )
            axes.bar_label(bars, [_score_text(v) for v in values], padding=2, fontsize=7)
        names = [
            f"{name}\n{row['boxes']:,} boxes, {row['images']:,} images"
            for name, row in zip(_class_texts([r["class"] for r in rows]), rows, strict=True)
        ]
        axes.set_yticks(y, names, fontsize=7)
        axes.set(xlim=(0, 1.1), ylim=(len(rows) - 0.5, -0.5))
        axes.set(xlabel="average precision", title=label_text(suite))
        axes.grid(axis="y", visible=False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _make_panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    return plotting.make_panels(count, width, height, max(1, int(PAGE_WIDTH // width)))


def _legend_size(matches: Mapping[str, detection_errors.Matches]) -> tuple[int, float]:
    """Number of classes, and width in inches of a legend with their names and scores."""
    drawn = {suite: _drawn_classes(m) for suite, m in matches.items()}
    names = [
        name
        for suite, m in matches.items()
        for name in _class_texts([m.classes[k] for k in drawn[suite]])
    ]
    num_classes = max(map(len, drawn.values()))
    return num_classes, 1.2 + 0.06 * max(map(len, names))


def _drawn_classes(matches: detection_errors.Matches) -> np.ndarray:
    """The indices of the classes in figures, see `most_frequent`."""
    return most_frequent(np.bincount(matches.objects.label, minlength=len(matches.classes)))


def _line_suffixes(matches: detection_errors.Matches) -> list[str]:
    """The suffixes of the scores of the lines of `_class_lines`."""
    suffixes = [f"/{matches.classes[k]}" for k in _drawn_classes(matches)]
    return [*suffixes, ""] if len(matches.classes) > 1 else suffixes


def _class_lines(
    matches: detection_errors.Matches, values: np.ndarray
) -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:
    """Yield name, curve and line style of each class and, if there are several, of their mean.

    The mean ends where the curve of any class ends: over fewer classes, it would jump.

    values: [C, points], of all classes.
    """
    drawn, classes = _drawn_classes(matches), matches.classes
    names = _class_texts([classes[k] for k in drawn])
    for k, (name, curve) in enumerate(zip(names, values[drawn], strict=True)):
        yield name, curve, {"color": COLORS[k % 6], "linestyle": DASHES[k // 6 % 4]}
    if len(classes) > 1:
        num_missing = np.isnan(values).sum(0)
        complete = num_missing == num_missing[0]
        mean = np.where(complete, detection_errors.mean_over_classes(values), np.nan)
        yield "mean", mean, {"color": COLORS[-1], "linewidth": 2.2}


def _class_texts(classes: Sequence[str]) -> list[str]:
    return [label_text(name, MAX_NAME_LENGTH) for name in class_names(classes)]


def _score_text(value: float) -> str:
    return "no objects" if np.isnan(value) else f"{value:.3f}"
