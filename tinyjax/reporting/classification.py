"""What a classifier gets right and wrong, in pictures and tables."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from tinyjax.data.records import Labeled
from tinyjax.metrics.classification import confusion, per_class, taken_for
from tinyjax.reporting import figures, pictures
from tinyjax.reporting.figures import ON_WHITE
from tinyjax.run.csv_files import write_rows

STYLE = {**figures.STYLE, "text.parse_math": False}  # a class's name may hold "$"
SHOWN = 20  # classes in the figure of the best and the worst
COLUMNS, ROWS = 6, 4  # of a sheet of images


def samples(split: Labeled, logits: np.ndarray, path: Path) -> None:
    """A sheet of images evenly spaced through the split, each with what it is taken for, and what
    it is where that is something else.
    """
    chosen = np.linspace(0, len(split.names) - 1, COLUMNS * ROWS).round().astype(int)
    _sheet(split, logits, np.unique(chosen), path)


def report(folder: Path, suites: Mapping[str, Labeled], logits: Mapping[str, np.ndarray]) -> None:
    """Tables and figures, by suite: per_class.csv; figures/confusion.png and per_class.png; and
    samples/worst_<suite>.png, the images that are mistaken with the largest margin.
    """
    rows = []
    for name, split in suites.items():
        found = per_class(logits[name], split.labels)
        many = np.bincount(split.labels, minlength=len(split.classes))
        taken = confusion(logits[name], split.labels)
        np.fill_diagonal(taken, 0)
        for k, of_class in enumerate(split.classes):
            mistake = split.classes[taken[k].argmax()] if taken[k].any() else ""
            row = {"suite": name, "class": of_class, "images": int(many[k])}
            rows.append({**row, "accuracy": float(found[k]), "mistaken_for": mistake})
    write_rows(folder / "per_class.csv", rows, rows[0])
    with rc_context(STYLE):
        figures.save(_confusion(suites, logits), folder / "figures" / "confusion.png")
        figures.save(_per_class(suites, logits), folder / "figures" / "per_class.png")
    for name, split in suites.items():
        own = logits[name]
        truth = own[np.arange(len(own)), split.labels]
        margin = own.max(1) - truth
        mistaken = np.flatnonzero(taken_for(own, split.labels) != split.labels)
        worst = mistaken[np.argsort(-margin[mistaken], kind="stable")]
        path = folder / "samples" / f"worst_{name}.png"
        if len(worst):
            _sheet(split, own, worst[: COLUMNS * ROWS], path)
        else:
            path.unlink(missing_ok=True)


def _sheet(split: Labeled, logits: np.ndarray, chosen: np.ndarray, path: Path) -> None:
    panels = []
    for i, taken in zip(chosen, taken_for(logits[chosen], split.labels[chosen]), strict=True):
        truth = split.labels[i]
        right = taken == truth
        picture = Image.fromarray(pictures.enlarged(split.images[i], 240))
        lines = split.classes[taken], "" if right else f"not {split.classes[truth]}"
        panels.append(pictures.captioned(picture, *lines, color=ON_WHITE[6 if right else 1]))
    rows = [panels[k : k + COLUMNS] for k in range(0, len(panels), COLUMNS)]
    pictures.save(pictures.sheet(rows), path)


def _confusion(suites: Mapping[str, Labeled], logits: Mapping[str, np.ndarray]) -> Figure:
    figure = Figure(figsize=(4.6 * len(suites), 4.2), layout="constrained")
    panels = figure.subplots(1, len(suites), squeeze=False)[0]
    for axes, (name, split) in zip(panels, suites.items(), strict=True):
        counts = confusion(logits[name], split.labels)
        share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
        image = axes.imshow(share, cmap="cividis", vmin=0, vmax=1, interpolation="nearest")
        axes.set(title=name, xlabel="taken for", ylabel="true class")
        axes.grid(visible=False)
        if len(split.classes) <= SHOWN:
            axes.set_xticks(range(len(split.classes)), split.classes, rotation=90)
            axes.set_yticks(range(len(split.classes)), split.classes)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set(xlabel="taken for (number of the class)", ylabel="true class (number)")
    figure.colorbar(image, ax=panels, label="part of the true class", shrink=0.8)
    return figure


def _per_class(suites: Mapping[str, Labeled], logits: Mapping[str, np.ndarray]) -> Figure:
    """Of every suite the classes from the best to the worst; in the middle they are left out."""
    figure = Figure(figsize=(3.6 * len(suites), 4.4), layout="constrained")
    panels = figure.subplots(1, len(suites), squeeze=False)[0]
    for axes, (name, split) in zip(panels, suites.items(), strict=True):
        found = per_class(logits[name], split.labels)
        order = [k for k in np.argsort(-found, kind="stable") if np.isfinite(found[k])]
        half = SHOWN // 2
        shown = order if len(order) <= SHOWN else [*order[:half], *order[-half:]]
        place = np.arange(len(shown)) + (np.arange(len(shown)) >= half) * (len(order) > SHOWN)
        axes.barh(place, found[shown], color=ON_WHITE[0])
        axes.set_yticks(place, [split.classes[k] for k in shown])
        axes.axvline(np.nanmean(found), color=ON_WHITE[1], label="mean of all classes")
        axes.set(xlabel="accuracy", title=name, xlim=(0, 1), ylim=(place[-1] + 0.6, -0.6))
        axes.grid(axis="y", visible=False)
    if len(order) > SHOWN:
        figure.supylabel(
            f"the {half} best and the {half} worst of {len(order)} classes", fontsize=8
        )
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center")
    return figure
