"""Heat maps: slices, corruptions, classes and object sizes, calibration,
modality gap, training sets."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tinyjax.reporting.estimates import nan_mean
from tinyjax.reporting.fonts import class_names
from tinyjax.reporting.grouping import limited_groups
from tinyjax.reporting.plotting import MAX_CLASSES, ReportFigure, label_text
from tinyjax.reporting.summary import Summary
from tinyjax.reporting.tables import GAP_COLUMNS, PROBE_COLUMN, Condition, Member, Tables

MAX_ROWS = 24
CELL_WIDTH, CELL_HEIGHT = 0.62, 0.27  # inches
PAGE_WIDTH = 9.2  # inches


class Panel(NamedTuple):
    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray  # float [R, C], NaN where unknown
    divider: int = 0  # number of columns before a dividing line


def draw_slices(tables: Tables, summary: Summary) -> ReportFigure | None:
    """Groups of members by slices; for a single member see `curves.draw_scores`."""
    if len(tables.members) == 1:
        return None
    panels, words = [], tables.task.words
    for suite in tables.suites:
        conditions = [c for c in tables.conditions(suite) if not c.corruption]
        if len(conditions) > 1:
            names = [condition.slice or words.whole_suite for condition in conditions]
            cells = [(condition, "") for condition in conditions]
            panels.append(_group_panel(tables, summary, suite, names, cells))
    if not panels:
        return None
    return ReportFigure(
        "slices",
        words.slices.capitalize(),
        _draw_panels(panels, tables.metric_label),
        f"Heat map of {tables.metric_label} of {len(panels[0].rows)} groups of members on the "
        f"{words.slices} of {', '.join(panel.title for panel in panels)}",
        f"Mean over the members of a group. {words.slices_note}",
    )


def draw_corruptions(tables: Tables, summary: Summary) -> ReportFigure | None:
    """For one member, corruptions by severity; else groups by corruption, mean over severities."""
    panels = []
    for suite in tables.corrupted_suites:
        conditions = [c for c in tables.conditions(suite) if c.corruption]
        if conditions:
            make_panel = _severity_panel if len(tables.members) == 1 else _corruption_panel
            panels.append(make_panel(tables, summary, suite, conditions))
    if not panels:
        return None
    return ReportFigure(
        "corruptions",
        "Corruptions",
        _draw_panels(panels, tables.metric_label),
        f"Heat map of {tables.metric_label} under {', '.join(panels[-1].columns[1:])}"
        if len(tables.members) > 1
        else f"Heat map of {tables.metric_label} under {', '.join(panels[-1].rows)} by severity",
        "Severity 1 is the mildest."
        if len(tables.members) == 1
        else "mPC is the mean of a row without its first cell.",
    )


def _severity_panel(
    tables: Tables, summary: Summary, suite: str, conditions: Sequence[Condition]
) -> Panel:
    (member,) = tables.members
    names = list(dict.fromkeys(c.corruption for c in conditions))
    severities = sorted({c.severity for c in conditions})
    clean = tables.score(member, Condition(suite))
    values = [
        [clean, *(tables.score(member, Condition(suite, "", name, s)) for s in severities)]
        for name in names
    ]
    columns = ["clean", *map(str, severities)]
    return Panel(f"{suite}: by severity", names, columns, np.array(values))


def _corruption_panel(
    tables: Tables, summary: Summary, suite: str, conditions: Sequence[Condition]
) -> Panel:
    names = list(dict.fromkeys(c.corruption for c in conditions))
    evaluated = [m for m in tables.members if Condition(suite) in tables.scores[m.key]]
    groups = limited_groups(evaluated, summary.variants, MAX_ROWS)

    def mean(members: Sequence[Member], columns: Sequence[Condition]) -> float:
        return nan_mean(tables.score(m, c) for m in members for c in columns)

    columns = [
        [Condition(suite)],
        *([c for c in conditions if c.corruption == name] for name in names),
    ]
    values = [[mean(members, column) for column in columns] for members in groups.values()]
    title = f"{suite}: mean over severities"
    return Panel(title, [*groups], ["clean", *names], np.array(values))


def draw_classes_and_sizes(tables: Tables, summary: Summary) -> ReportFigure | None:
    """Score by class and object size; rows are groups of members, or suites for one member."""
    prefix = f"{tables.metric}/"
    bins: dict[str, float] = {}  # name -> lower edge
    for config in tables.configs.values():
        edges = config.get("score", {}).get("size_bins", {})
        bins.update({name: low for name, (low, _) in edges.items()})
    scored = dict.fromkeys(
        name.removeprefix(prefix)
        for suite in tables.suites
        for name in tables.columns(suite)
        if name.startswith(prefix)
    )
    classes = [name for name in scored if name not in bins]
    left_out = ""
    if len(classes) > MAX_CLASSES:
        left_out = f"The scores of the {len(classes)} classes are in evaluations/last.csv. "
        classes = []
    names = classes + sorted(scored.keys() & bins.keys(), key=lambda name: bins[name])
    if not names:
        return None
    columns = [prefix + name for name in names]
    names = [*class_names(classes), *names[len(classes) :]]
    if len(tables.members) == 1:
        (member,) = tables.members
        rows = [[tables.score(member, Condition(s), c) for c in columns] for s in tables.suites]
        panels = [Panel("", tables.suites, names, np.array(rows), len(classes))]
    else:
        panels = []
        for suite in tables.suites:
            cells = [(Condition(suite), column) for column in columns]
            panel = _group_panel(tables, summary, suite, names, cells)
            panels.append(panel._replace(divider=len(classes)))
    return ReportFigure(
        "classes",
        "Classes and object sizes",
        _draw_panels(panels, tables.metric_label),
        f"Heat map of {tables.metric_label} by class and object size: {', '.join(names)}",
        left_out
        + "The size of an object is the side of a square of equal area, in pixels of the file.",
    )


def draw_calibration(tables: Tables, summary: Summary) -> ReportFigure | None:
    """Expected calibration error by suite."""
    suites = _suites_with(tables, "ECE")
    if not suites:
        return None
    cells = [(Condition(suite), "ECE") for suite in suites]
    return ReportFigure(
        "calibration",
        "Calibration",
        _draw_panels([_group_panel(tables, summary, "", suites, cells)], "ECE", "Oranges"),
        f"Heat map of the expected calibration error on {', '.join(suites)}",
        "ECE: mean distance between confidence and precision, over bins of confidence; 0 is best.",
    )


def draw_modality_gap(tables: Tables, summary: Summary) -> ReportFigure | None:
    """Retrieval within modalities and across, see `metrics.modality_gap`.

    Rows are groups of members, or suites for one member.
    """
    names = [*GAP_COLUMNS.values()]
    suites = [suite for suite in tables.suites if {*GAP_COLUMNS} & {*tables.columns(suite)}]
    if not suites:
        return None
    if len(tables.members) == 1:
        (member,) = tables.members
        rows = [[tables.score(member, Condition(s), c) for c in GAP_COLUMNS] for s in suites]
        panels = [Panel("", suites, names, np.array(rows))]
    else:
        panels = [
            _group_panel(tables, summary, s, names, [(Condition(s), c) for c in GAP_COLUMNS])
            for s in suites
        ]
    return ReportFigure(
        "modality_gap",
        "Modality gap",
        _draw_panels(panels, "mAP of retrieval within modalities and across"),
        f"Heat map of mAP on {', '.join(suites)}: {', '.join(names)}",
        "Queries and gallery are all images of these modalities, regardless of the protocols.",
    )


def draw_domain_probe(tables: Tables, summary: Summary) -> ReportFigure | None:
    """Accuracy of the domain probe by suite."""
    suites = _suites_with(tables, PROBE_COLUMN)
    if not suites:
        return None
    cells = [(Condition(suite), PROBE_COLUMN) for suite in suites]
    return ReportFigure(
        "domain_probe",
        "Modality gap",
        _draw_panels([_group_panel(tables, summary, "", suites, cells)], PROBE_COLUMN, "Oranges"),
        f"Heat map of the accuracy of the domain probe on {', '.join(suites)}",
        "Accuracy of a linear classifier of the modality, on identities that it was not fitted to; "
        "0.5 is chance, which means that no direction separates the modalities.",
    )


def _suites_with(tables: Tables, column: str) -> list[str]:
    """The suites on which some member has a value of a score."""
    return [
        suite
        for suite in tables.suites
        if any(np.isfinite(tables.score(m, Condition(suite), column)) for m in tables.members)
    ]


def draw_training_set_matrix(tables: Tables, summary: Summary) -> ReportFigure | None:
    """Training sets by suites, if members were trained on several sets."""
    by_training_set: dict[str, list[Member]] = {}
    for member in tables.members:
        by_training_set.setdefault(member.trained_on, []).append(member)
    if len(by_training_set) < 2:
        return None
    values = [
        [nan_mean(tables.score(m, Condition(suite)) for m in members) for suite in tables.suites]
        for members in by_training_set.values()
    ]
    panel = Panel("", [*by_training_set], tables.suites, np.array(values))
    figure = _draw_panels([panel], tables.metric_label, xlabel="tested on", ylabel="trained on")
    sets = f"{len(by_training_set)} training sets by {len(tables.suites)} suites"
    return ReportFigure(
        "matrix",
        "Trained on, tested on",
        figure,
        f"Matrix of {tables.metric_label}: {sets}",
        "Mean over the members trained on each set.",
    )


def _group_panel(
    tables: Tables,
    summary: Summary,
    title: str,
    names: Sequence[str],
    cells: Sequence[tuple[Condition, str]],
) -> Panel:
    """Rows: groups of members. Columns: `cells`, (condition, score column), named `names`."""
    groups = limited_groups(tables.members, summary.variants, MAX_ROWS)
    values = [
        [nan_mean(tables.score(m, *cell) for m in members) for cell in cells]
        for members in groups.values()
    ]
    return Panel(title, [*groups], names, np.array(values))


def _draw_panels(
    panels: Sequence[Panel], label: str, cmap: str = "Blues", xlabel: str = "", ylabel: str = ""
) -> Figure:
    """Draw panels with one color scale, side by side if they fit, with a number in each cell."""
    known = np.concatenate([panel.values[np.isfinite(panel.values)] for panel in panels])
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    scale = low, max(high, low + 1e-6)
    max_length = max(len(label_text(name)) for panel in panels for name in panel.rows)
    left, top = 0.3 + 0.075 * max_length, 1.1
    widths = [left + CELL_WIDTH * max(2, len(panel.columns)) for panel in panels]
    heights = [top + CELL_HEIGHT * len(panel.rows) for panel in panels]
    side_by_side = sum(widths) <= PAGE_WIDTH
    size = (sum(widths), max(heights)) if side_by_side else (max(widths), sum(heights))
    figure = Figure(figsize=size, layout="constrained")
    grid = (
        figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)
        if side_by_side
        else figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    )
    for axes, panel in zip(grid.ravel(), panels, strict=True):
        _draw_panel(axes, panel, scale, cmap)
        axes.set(xlabel=xlabel, ylabel=ylabel)
    figure.suptitle(label, fontsize=9, x=0.02, ha="left")
    return figure


def _draw_panel(axes: Axes, panel: Panel, scale: tuple[float, float], cmap: str) -> None:
    low, high = scale
    axes.imshow(panel.values, cmap=cmap, vmin=low, vmax=high, aspect="auto")
    for (i, j), value in np.ndenumerate(panel.values):
        dark = np.isfinite(value) and (value - low) / (high - low) > 0.6
        number = f"{value:.3f}".removeprefix("0") if np.isfinite(value) else "-"
        color = "white" if dark else "black"
        axes.text(j, i, number, color=color, fontsize=7.5, ha="center", va="center")
    axes.set_xticks(
        range(len(panel.columns)), [label_text(name) for name in panel.columns],
        rotation=30, ha="right", rotation_mode="anchor",
    )  # fmt: skip
    axes.set_yticks(range(len(panel.rows)), [label_text(name) for name in panel.rows])
    if 0 < panel.divider < len(panel.columns):
        axes.axvline(panel.divider - 0.5, color="black", linewidth=1)
    axes.set_title(label_text(panel.title, 50), fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(False)
