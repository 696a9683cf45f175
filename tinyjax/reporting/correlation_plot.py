"""The figure of a report that tells every correlation of relative gradient norm and loss."""

import numpy as np
from matplotlib.figure import Figure

from tinyjax.metrics.bootstrap import LEVEL
from tinyjax.reporting.figures import ON_WHITE
from tinyjax.reporting.heatmaps import Shown, text
from tinyjax.reporting.summary import Summary, of_all
from tinyjax.reporting.tables import Tables

LEAST = 3  # correlations: fewer are told beside the points


def correlations(tables: Tables, summary: Summary) -> Shown | None:
    """One by one, and the one answer of all."""
    asked = [one for one in summary.gradients if not np.isnan(one.correlation.value)]
    if len(asked) < LEAST:
        return None
    suites = list(dict.fromkeys(one.suite for one in asked))
    asked.sort(key=lambda one: suites.index(one.suite))
    rows = [
        (f"{text(one.suite)}: {text(one.kind, 40)}", one.correlation, ON_WHITE[0]) for one in asked
    ]
    rows.append(("all, by mean ranks", of_all(asked), "black"))
    figure = Figure(figsize=(6.4, 0.8 + 0.26 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="#555555", linewidth=1)
    for y, (_, (value, low, high, _, _), color) in enumerate(rows):
        axes.plot([low, high], [y, y], color=color, linewidth=3, alpha=0.45)
        axes.plot(value, y, "o", color=color, markersize=5)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.set(xlabel="rank correlation", xlim=(-1, 1), ylim=(len(rows) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)
    return Shown(
        "correlations",
        "Does the relative gradient norm say who loses?",
        figure,
        f"{len(asked)} rank correlations of relative gradient norm and loss under shift",
        "Above zero: networks of high relative gradient norm lose more. Bars: 95 % intervals over "
        f"networks; of {len(asked)} of them {(1 - LEVEL) * len(asked):.2g} leave zero out by "
        "chance. Last: the networks' mean ranks over all of these.",
    )
