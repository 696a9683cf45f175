"""Figures of a single run's training: losses, learning rate and scores over the steps."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from tinyjax.reporting.plotting import (
    COLORS,
    STYLE,
    label_text,
    make_panels,
    save,
    set_log_ticks,
)
from tinyjax.run.csv_files import read_rows

Series = dict[tuple[str, str], np.ndarray]  # (split, metric) -> float64 [points, 2], step and value


def draw(metrics_file: Path, folder: Path, labels: Mapping[str, str]) -> None:
    """Draw a run's metrics.csv (columns step, split, metric, value) into `folder`.

    training.png: the loss, its terms (metrics "loss" and "*_loss" of split "train") and the
    learning rate ("lr"). scores.png: the metrics of `labels` (metric -> axis label) for each
    suite. A figure without data is not written.
    """
    series = _read_series(metrics_file)
    losses = {m: v for (s, m), v in series.items() if s == "train" and m.endswith("loss")}
    lr = series.get(("train", "lr"))
    scores = {
        metric: {s: v for (s, m), v in series.items() if m == metric and s != "train"}
        for metric in labels
    }
    with rc_context(STYLE):
        if losses and lr is not None:
            save(_draw_training(losses, lr), folder / "training.png")
        if any(scores.values()):
            save(_draw_scores(scores, labels), folder / "scores.png")


def _draw_training(losses: Mapping[str, np.ndarray], lr: np.ndarray) -> Figure:
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    loss_axes, lr_axes = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for i, (name, points) in enumerate(losses.items()):
        step, value = points.T
        label = name.replace("_", " ")
        loss_axes.plot(step, value, color=f"C{i}", alpha=0.25, linewidth=0.8)
        loss_axes.plot(step, _running_mean(value), color=f"C{i}", label=label)
    loss_axes.set(ylabel="training loss", yscale="log")
    set_log_ticks(loss_axes.yaxis, ScalarFormatter())
    loss_axes.legend(ncols=2, title="bold: running mean")
    lr_axes.plot(*lr.T, color=COLORS[-1])
    lr_axes.set(ylabel="learning rate", xlabel="step", ylim=(0, None), xlim=(0, None))
    lr_axes.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    return figure


def _draw_scores(
    scores: Mapping[str, Mapping[str, np.ndarray]], labels: Mapping[str, str]
) -> Figure:
    figure, panels = make_panels(len(scores), 3.2, 2.8, max_columns=2, sharex=True)
    for axes, (metric, suites) in zip(panels, scores.items(), strict=True):
        for suite, points in suites.items():
            axes.plot(*points.T, marker="o", markersize=3, label=label_text(suite))
        axes.set(xlabel="step", ylabel=labels[metric], ylim=(0, None), xlim=(0, None))
    panels[0].legend(title="suite")
    return figure


def _read_series(metrics_file: Path) -> Series:
    rows = defaultdict(list)
    for row in read_rows(metrics_file):
        rows[row["split"], row["metric"]].append((float(row["step"]), float(row["value"])))
    return {key: np.array(sorted(points)) for key, points in rows.items()}


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over a centered window of a twentieth of the curve, truncated at the ends."""
    window = np.ones(2 * (len(values) // 40) + 1)
    total = np.convolve(values, window, "full")
    count = np.convolve(np.ones_like(values), window, "full")
    half = len(window) // 2
    return (total / count)[half : half + len(values)]
