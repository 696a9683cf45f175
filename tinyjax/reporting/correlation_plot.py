"""Report figure: all correlations between relative gradient norm and drop under shift."""

import numpy as np
from matplotlib.figure import Figure

from tinyjax.metrics.bootstrap import CONFIDENCE_LEVEL
from tinyjax.reporting.plotting import COLORS, ReportFigure, draw_interval, label_rows, label_text
from tinyjax.reporting.summary import Summary, overall_correlation
from tinyjax.reporting.tables import Tables

MIN_CORRELATIONS = 3  # fewer are only in the legends of `curves.draw_gradient_norms`


def draw_correlations(tables: Tables, summary: Summary) -> ReportFigure | None:
    """A row for each correlation, and a last row for all of them together."""
    known = [g for g in summary.gradients if not np.isnan(g.correlation.value)]
    if len(known) < MIN_CORRELATIONS:
        return None
    suites = list(dict.fromkeys(g.suite for g in known))
    known.sort(key=lambda g: suites.index(g.suite))
    rows = [
        (f"{label_text(g.suite)}: {label_text(g.variant, 40)}", g.correlation, COLORS[0])
        for g in known
    ]
    rows.append(("all, by mean ranks", overall_correlation(known), "black"))
    figure = Figure(figsize=(6.4, 0.8 + 0.26 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.axvline(0, color="#555555", linewidth=1)
    for y, (_, (value, low, high, _, _), color) in enumerate(rows):
        draw_interval(axes, y, (value, low, high), color, markersize=5)
    label_rows(axes, [name for name, _, _ in rows])
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.set(xlabel="rank correlation", xlim=(-1, 1))
    return ReportFigure(
        "correlations",
        "Does the relative gradient norm predict the drop under shift?",
        figure,
        f"{len(known)} rank correlations between relative gradient norm and drop under shift",
        "Above zero: networks with a higher relative gradient norm lose more. Bars: 95 % intervals "
        f"over networks; {(1 - CONFIDENCE_LEVEL) * len(known):.2g} of {len(known)} are expected to "
        "exclude zero by chance. "
        "Last row: mean ranks of the networks over all rows.",
    )
