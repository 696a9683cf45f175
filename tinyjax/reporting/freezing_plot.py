"""Report figures of frozen parameters, as in Proper Reuse (arXiv 2204.00484).

The gain of a member with frozen parameters is its score minus that of the same member with all
parameters trained. It is drawn against the trained share of the parameters and, for each class,
against the number of its training objects.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from tinyjax.metrics.bootstrap import Estimate
from tinyjax.metrics.slices import class_slice_name
from tinyjax.reporting.curves import correlation_text
from tinyjax.reporting.estimates import estimate_difference, estimate_over_seeds
from tinyjax.reporting.fonts import class_names
from tinyjax.reporting.grouping import group_networks
from tinyjax.reporting.plotting import (
    ReportFigure,
    label_text,
    make_panels,
    palette,
    set_log_ticks,
)
from tinyjax.reporting.run_folders import read_class_counts
from tinyjax.reporting.summary import FreezingGain, Summary
from tinyjax.reporting.tables import Condition, Tables

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
WIDTH, HEIGHT = 4.3, 3.2  # of a panel, inches
MAX_COLUMNS = 2  # of panels
DODGE = 0.7  # between a mean and its pairs, percent
DODGE_RATIO = 1.08  # between the positions of treatments, which would overlap
MAX_CLASSES = 20  # in a panel with their names
MAX_LABEL = 60  # characters in a legend


def draw_freezing(tables: Tables, summary: Summary) -> ReportFigure | None:
    """Gain of frozen parameters against the trained share, a panel for each suite."""
    if not summary.freezing:
        return None
    suites = list(dict.fromkeys(gain.suite for gain in summary.freezing))
    runs = list(dict.fromkeys(pair[0].run for gain in summary.freezing for pair in gain.pairs))
    markers = {run: MARKERS[k % len(MARKERS)] for k, run in enumerate(runs)}
    colors = _treatment_colors(summary)
    largest = max(frozen.trained_share for gain in summary.freezing for frozen, _ in gain.pairs)
    figure, panels = make_panels(len(suites), WIDTH, HEIGHT, MAX_COLUMNS, 1.2, sharey=True)
    for axes, suite in zip(panels, suites, strict=True):
        handles = []
        for gain in (g for g in summary.freezing if g.suite == suite):
            _plot_networks(axes, gain, colors[gain.treatment], markers)
            text = label_text(gain.treatment, MAX_LABEL)
            label = f"{text}\n{correlation_text(gain.correlation)}"
            handles.append(Line2D([], [], color=colors[gain.treatment], label=label))
        _draw_zero(axes)
        axes.set(xlabel="trained share of the parameters, %", xlim=(0, 108 * largest))
        axes.set_title(label_text(suite), fontsize=9)
        axes.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    for axes in panels[::MAX_COLUMNS]:
        axes.set_ylabel(f"gain in {tables.metric_label}")
    if len(runs) > 1:
        handles = [
            Line2D([], [], color="black", linestyle="", marker=marker, label=label_text(run))
            for run, marker in markers.items()
        ]
        figure.legend(handles=handles, loc="outside right center")
    return ReportFigure(
        "freezing",
        "Gain of freezing",
        figure,
        f"Gain of {', '.join(colors)} over training all parameters, against the trained share of "
        f"the parameters, on {', '.join(suites)}",
        "Small points: pairs of equal seed. Bars: mean of each network with its 95 % interval over "
        f"seeds and {tables.task.words.resampled}. r: rank correlation over networks (means of "
        "their seeds), its 95 % interval, and its range when leaving out one network at a time.",
    )


def draw_freezing_by_class(tables: Tables, summary: Summary) -> ReportFigure | None:
    """Gain of frozen parameters against the number of training objects of each class.

    A panel for each run and suite, with means over the run's networks.
    """
    points = _class_gains(tables, summary)
    if not points:
        return None
    colors = _treatment_colors(summary)
    suites = {suite for _, suite in points}
    columns = min(3, max(len(suites), len(points) // len(suites)))
    figure, panels = make_panels(len(points), 3.1, HEIGHT - 0.4, columns, sharey=True)
    for axes, ((run, suite), by_treatment) in zip(panels, points.items(), strict=True):
        for k, (treatment, gains) in enumerate(by_treatment.items()):
            x = [count * DODGE_RATIO**k for _, count, _ in gains]
            _plot_estimates(axes, x, [g for *_, g in gains], colors[treatment], "o")
        _name_classes(axes, next(iter(by_treatment.values())))
        _draw_zero(axes)
        axes.set(xscale="log", xlabel="training objects of the class")
        set_log_ticks(axes.xaxis, EngFormatter(sep=""))
        axes.set_title(label_text(": ".join(filter(None, (run, suite))), 50), fontsize=9)
        axes.margins(x=0.15)
    for axes in panels[::columns]:
        axes.set_ylabel(f"gain in {tables.metric_label}")
    handles = [
        Line2D([], [], color=color, marker="o", label=label_text(treatment, MAX_LABEL))
        for treatment, color in colors.items()
    ]
    figure.legend(handles=handles, loc="outside lower center")
    return ReportFigure(
        "freezing_by_class",
        "Gain of freezing by class",
        figure,
        f"Gain of {', '.join(colors)} over training all parameters on each class, against the "
        "number of its training objects",
        "Mean over the networks of a run, with its 95 % interval over seeds and images.",
    )


ClassGain = tuple[str, float, Estimate]  # class, number of training objects, gain


def _class_gains(
    tables: Tables, summary: Summary
) -> dict[tuple[str, str], dict[str, list[ClassGain]]]:
    """(run, suite) -> treatment -> gain of each class that has a score there."""
    result: dict[tuple[str, str], dict[str, list[ClassGain]]] = {}
    for gain in summary.freezing:
        for run in dict.fromkeys(pair[0].run for pair in gain.pairs):
            pairs = [pair for pair in gain.pairs if pair[0].run == run]
            counts = [read_class_counts(tables.folder / run, frozen.id) for frozen, _ in pairs]
            gains = [
                (name, float(np.mean([c[name][1] for c in counts])), estimate)
                for name in counts[0]
                if (
                    estimate := estimate_difference(
                        tables, pairs, Condition(gain.suite, class_slice_name([name]))
                    )
                )
            ]
            if gains:
                result.setdefault((run, gain.suite), {})[gain.treatment] = gains
    return result


def _plot_networks(axes: Axes, gain: FreezingGain, color: str, markers: Mapping[str, str]) -> None:
    """Plot each pair, and the mean of each network."""
    index = {frozen.key: k for k, (frozen, _) in enumerate(gain.pairs)}
    for members in group_networks([frozen for frozen, _ in gain.pairs]):
        rows = [index[member.key] for member in members]
        share, marker = 100 * members[0].trained_share, markers[members[0].run]
        estimate = estimate_over_seeds(members, gain.gains[rows], gain.replicates[rows])
        pair_shares = [share + DODGE] * len(rows)
        axes.plot(pair_shares, gain.gains[rows], ".", color=color, markersize=4, alpha=0.45)
        _plot_estimates(axes, [share], [estimate], color, marker)


def _plot_estimates(
    axes: Axes, x: Sequence[float], estimates: Sequence[Estimate], color: str, marker: str
) -> None:
    values = np.array([estimate.value for estimate in estimates])
    half_widths = np.nan_to_num([estimate.high - estimate.value for estimate in estimates])
    style: dict[str, Any] = {"color": color, "capsize": 2.5, "markersize": 5, "elinewidth": 1}
    axes.errorbar(x, values, half_widths, fmt=marker, **style)


def _name_classes(axes: Axes, gains: Sequence[ClassGain]) -> None:
    if len(gains) <= MAX_CLASSES:
        names = class_names([name for name, *_ in gains])
        for name, (_, count, estimate) in zip(names, gains, strict=True):
            axes.annotate(
                label_text(name), (count, estimate.value), xytext=(5, 3),
                textcoords="offset points", fontsize=7,
            )  # fmt: skip


def _draw_zero(axes: Axes) -> None:
    axes.axhline(0, color="#555555", linewidth=1)


def _treatment_colors(summary: Summary) -> dict[str, str]:
    treatments = list(dict.fromkeys(gain.treatment for gain in summary.freezing))
    return dict(zip(treatments, palette(len(treatments)), strict=True))
