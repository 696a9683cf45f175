"""Report of a single classification run: tables, figures and images, by suite."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from tinyjax.data.records import ClassificationSplit
from tinyjax.metrics.classification import (
    confusion_matrix,
    per_class_accuracy,
    predicted_classes,
)
from tinyjax.reporting import pictures, plotting
from tinyjax.reporting.fonts import class_names
from tinyjax.reporting.plotting import COLORS, label_text
from tinyjax.run.csv_files import write_rows

STYLE = {**plotting.STYLE, "text.parse_math": False}  # class names may contain "$"
MAX_CLASS_NAMES = 20  # in a figure
COLUMNS, ROWS = 6, 4  # of a sheet of images


def save_samples(split: ClassificationSplit, logits: np.ndarray, path: Path) -> None:
    """Write a sheet of evenly spaced images with predicted class and, if wrong, true class."""
    chosen = np.linspace(0, len(split.names) - 1, COLUMNS * ROWS).round().astype(int)
    _save_sheet(split, logits, np.unique(chosen), path)


def write_report(
    folder: Path, suites: Mapping[str, ClassificationSplit], logits: Mapping[str, np.ndarray]
) -> None:
    """Write tables and figures of a classifier.

    Files: per_class.csv; figures/confusion.png and per_class.png; samples/worst_<suite>.png, the
    misclassified images whose largest logit exceeds that of the true class by the most.

    logits: suite -> float32 [N, classes].
    """
    rows = []
    for name, split in suites.items():
        accuracy = per_class_accuracy(logits[name], split.labels)
        counts = np.bincount(split.labels, minlength=len(split.classes))
        mistakes = confusion_matrix(logits[name], split.labels)
        np.fill_diagonal(mistakes, 0)
        for k, class_name in enumerate(split.classes):
            mistaken_for = split.classes[mistakes[k].argmax()] if mistakes[k].any() else ""
            row = {"suite": name, "class": class_name, "images": int(counts[k])}
            rows.append({**row, "accuracy": float(accuracy[k]), "mistaken_for": mistaken_for})
    write_rows(folder / "per_class.csv", rows, rows[0])
    with rc_context(STYLE):
        plotting.save(_draw_confusion(suites, logits), folder / "figures" / "confusion.png")
        plotting.save(_draw_per_class(suites, logits), folder / "figures" / "per_class.png")
    for name, split in suites.items():
        _save_worst(split, logits[name], folder / "samples" / f"worst_{name}.png")


def _save_worst(split: ClassificationSplit, logits: np.ndarray, path: Path) -> None:
    margin = logits.max(1) - logits[np.arange(len(logits)), split.labels]
    wrong = np.flatnonzero(predicted_classes(logits, split.labels) != split.labels)
    worst = wrong[np.argsort(-margin[wrong], kind="stable")]
    if len(worst):
        _save_sheet(split, logits, worst[: COLUMNS * ROWS], path)
    else:
        path.unlink(missing_ok=True)


def _save_sheet(
    split: ClassificationSplit, logits: np.ndarray, chosen: np.ndarray, path: Path
) -> None:
    predicted = predicted_classes(logits[chosen], split.labels[chosen])
    panels, names = [], class_names(split.classes)
    for i, label in zip(chosen, predicted, strict=True):
        truth = split.labels[i]
        correct = label == truth
        picture = Image.fromarray(pictures.enlarge(split.inputs["image"][i], 240))
        lines = names[label], "" if correct else f"not {names[truth]}"
        panels.append(pictures.add_caption(picture, *lines, color=COLORS[6 if correct else 1]))
    rows = [panels[k : k + COLUMNS] for k in range(0, len(panels), COLUMNS)]
    pictures.save(pictures.tile(rows), path)


def _draw_confusion(
    suites: Mapping[str, ClassificationSplit], logits: Mapping[str, np.ndarray]
) -> Figure:
    figure = Figure(figsize=(4.6 * len(suites), 4.2), layout="constrained")
    panels = figure.subplots(1, len(suites), squeeze=False)[0]
    for axes, (name, split) in zip(panels, suites.items(), strict=True):
        counts = confusion_matrix(logits[name], split.labels)
        fractions = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        image = axes.imshow(fractions, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
        axes.set(title=label_text(name), xlabel="predicted class", ylabel="true class")
        axes.grid(visible=False)
        if len(split.classes) <= MAX_CLASS_NAMES:
            names = [label_text(each) for each in class_names(split.classes)]
            axes.set_xticks(range(len(names)), names, rotation=90)
            axes.set_yticks(range(len(names)), names)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set(xlabel="predicted class (number)", ylabel="true class (number)")
    figure.colorbar(image, ax=panels, label="fraction of the true class", shrink=0.8)
    return figure


def _draw_per_class(
    suites: Mapping[str, ClassificationSplit], logits: Mapping[str, np.ndarray]
) -> Figure:
    """A panel per suite: accuracy of each class, best first.

    With more than `MAX_CLASS_NAMES` classes, only the best and the worst are shown.
    """
    figure = Figure(figsize=(3.6 * len(suites), 4.4), layout="constrained")
    panels = figure.subplots(1, len(suites), squeeze=False)[0]
    half = MAX_CLASS_NAMES // 2
    for axes, (name, split) in zip(panels, suites.items(), strict=True):
        accuracy = per_class_accuracy(logits[name], split.labels)
        order = [k for k in np.argsort(-accuracy, kind="stable") if np.isfinite(accuracy[k])]
        truncated = len(order) > MAX_CLASS_NAMES
        shown = [*order[:half], *order[-half:]] if truncated else order
        y = np.arange(len(shown)) + (np.arange(len(shown)) >= half) * truncated
        axes.barh(y, accuracy[shown], color=COLORS[0])
        names = [label_text(each) for each in class_names(split.classes)]
        axes.set_yticks(y, [names[k] for k in shown])
        axes.axvline(np.nanmean(accuracy), color=COLORS[1], label="mean of all classes")
        axes.set(xlabel="accuracy", title=label_text(name), xlim=(0, 1), ylim=(y[-1] + 0.6, -0.6))
        axes.grid(axis="y", visible=False)
    if truncated:
        figure.supylabel(f"the {half} best and {half} worst of {len(order)} classes", fontsize=8)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center")
    return figure
