"""Scores as heat maps: slices, corruptions, classes and sizes, trained on by tested on."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from tinyjax.reporting.summary import Summary, groups, mean
from tinyjax.reporting.tables import Member, Part, Tables

MOST_ROWS = 24
CELL = 0.62, 0.27  # width and height of a cell, inches


class Shown(NamedTuple):
    """A figure of a report."""

    name: str  # of its file
    title: str
    figure: Figure
    alt: str  # what it is, for who does not see it
    note: str  # how to read it


class Panel(NamedTuple):
    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray  # float [R, C], NaN where there is none
    line: int = 0  # columns before a dividing line


def text(name: str, most: int = 30) -> str:
    """A name as text of a figure: cut in the middle if long, "$" without its meaning."""
    if len(name) > most:
        name = f"{name[: most // 2]}…{name[-(most // 2 - 1) :]}"
    return name.replace("$", r"\$")


def slices(tables: Tables, summary: Summary) -> Shown | None:
    """Groups of members by slices; of one member intervals say more, see `curves.scores`."""
    if len(tables.members) == 1:
        return None
    panels = []
    for suite in tables.suites:
        parts = [part for part in tables.parts(suite) if not part.corruption]
        if len(parts) > 1:
            names = [part.slice or "all" for part in parts]
            panels.append(_of_groups(tables, summary, suite, names, [(p, "") for p in parts]))
    if not panels:
        return None
    return Shown(
        "slices",
        "Slices",
        draw(panels, tables.title),
        f"Heat map of {tables.title} of {_groups_of(panels)} in the slices of "
        + ", ".join(panel.title for panel in panels),
        "Mean over the members of a group; a slice is the part of a suite with that condition.",
    )


def corruptions(tables: Tables, summary: Summary) -> Shown | None:
    """Kinds by severities of one member; groups by kinds, the mean over severities, of several."""
    panels = []
    for suite in tables.corrupted:
        parts = [part for part in tables.parts(suite) if part.corruption]
        found = list(dict.fromkeys(part.corruption for part in parts))
        if not found:
            continue
        if len(tables.members) == 1:
            levels = sorted({part.severity for part in parts})
            clean = tables.of(tables.members[0], Part(suite))
            values = [
                [clean, *(tables.of(tables.members[0], Part(suite, "", k, s)) for s in levels)]
                for k in found
            ]
            columns = ["clean", *map(str, levels)]
            panels.append(Panel(f"{suite}: by severity", found, columns, np.array(values)))
        else:
            each = {k: [p for p in parts if p.corruption == k] for k in found}
            asked = [m for m in tables.members if Part(suite) in tables.scores[m.key]]
            kinds = groups(asked, summary.kinds, MOST_ROWS)
            values = [
                [mean(tables.of(m, Part(suite)) for m in own)]
                + [mean(tables.of(m, p) for m in own for p in each[k]) for k in found]
                for own in kinds.values()
            ]
            title = f"{suite}: mean over severities"
            panels.append(Panel(title, [*kinds], ["clean", *found], np.array(values)))
    if not panels:
        return None
    return Shown(
        "corruptions",
        "Corruptions",
        draw(panels, tables.title),
        f"Heat map of {tables.title} under {', '.join(panels[-1].columns[1:])}"
        if len(tables.members) > 1
        else f"Heat map of {tables.title} under {', '.join(panels[-1].rows)} by severity",
        "Severity 1 is the mildest. mPC is the mean of a row without its first cell.",
    )


def classes_and_sizes(tables: Tables, summary: Summary) -> Shown | None:
    """Score by class and size of object; rows are groups of members, of one member its suites."""
    prefix = f"{tables.score}/"
    panels = []
    bins: dict[str, float] = {}  # name -> where it begins
    for config in tables.configs.values():
        own = config.get("score", {}).get("bins", {})
        bins.update({name: sides[0] for name, sides in own.items()})
    there = dict.fromkeys(
        name.removeprefix(prefix)
        for suite in tables.suites
        for name in tables.columns(suite)
        if name.startswith(prefix)
    )
    names = [name for name in there if name not in bins]
    line = len(names)
    names += sorted(there.keys() & bins.keys(), key=lambda name: bins[name])
    if not names:
        return None
    columns = [prefix + name for name in names]
    if len(tables.members) == 1:
        rows = [[tables.of(tables.members[0], Part(s), c) for c in columns] for s in tables.suites]
        panels = [Panel("", tables.suites, names, np.array(rows), line)]
    else:
        panels = [
            _of_groups(tables, summary, suite, names, [(Part(suite), c) for c in columns])._replace(
                line=line
            )
            for suite in tables.suites
        ]
    return Shown(
        "classes",
        "Classes and sizes of objects",
        draw(panels, tables.title),
        f"Heat map of {tables.title} by class and size of object: {', '.join(names)}",
        "Sizes are sides of a square as large as the object, in pixels of the file.",
    )


def calibration(tables: Tables, summary: Summary) -> Shown | None:
    """Expected calibration error by suite."""
    suites = [
        suite
        for suite in tables.suites
        if any(np.isfinite(tables.of(m, Part(suite), "ECE")) for m in tables.members)
    ]
    if not suites:
        return None
    kinds = groups(tables.members, summary.kinds, MOST_ROWS)
    values = [
        [mean(tables.of(m, Part(s), "ECE") for m in own) for s in suites] for own in kinds.values()
    ]
    return Shown(
        "calibration",
        "Calibration",
        draw([Panel("", [*kinds], suites, np.array(values))], "ECE", "Oranges"),
        f"Heat map of the expected calibration error in {', '.join(suites)}",
        "ECE: mean distance of confidence and precision, by bins of confidence; 0 is best.",
    )


def matrix(tables: Tables, summary: Summary) -> Shown | None:
    """Trained on by tested on, where members were trained on several sets."""
    of: dict[str, list[Member]] = {}
    for member in tables.members:
        of.setdefault(member.trained_on, []).append(member)
    if len(of) < 2:
        return None
    values = [
        [mean(tables.of(m, Part(suite)) for m in own) for suite in tables.suites]
        for own in of.values()
    ]
    figure = draw(
        [Panel("", [*of], tables.suites, np.array(values))],
        tables.title, across="tested on", down="trained on",
    )  # fmt: skip
    return Shown(
        "matrix",
        "Trained on, tested on",
        figure,
        f"Matrix of {tables.title}: {len(of)} training sets by {len(tables.suites)} suites",
        "Mean over the members that were trained on a set.",
    )


def _groups_of(panels: Sequence[Panel]) -> str:
    return f"{len(panels[0].rows)} groups of members"


def _of_groups(
    tables: Tables,
    summary: Summary,
    title: str,
    names: Sequence[str],
    wanted: Sequence[tuple[Part, str]],
) -> Panel:
    """A panel of groups by (part, column)."""
    kinds: Mapping[str, Sequence[Member]] = groups(tables.members, summary.kinds, MOST_ROWS)
    values = [[mean(tables.of(m, *cell) for m in own) for cell in wanted] for own in kinds.values()]
    return Panel(title, [*kinds], names, np.array(values))


def draw(
    panels: Sequence[Panel], label: str, cmap: str = "Blues", across: str = "", down: str = ""
) -> Figure:
    """Panels of one scale, side by side where they fit, each cell with its number."""
    known = np.concatenate([panel.values[np.isfinite(panel.values)] for panel in panels])
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    high = max(high, low + 1e-6)
    names = max(len(text(name)) for panel in panels for name in panel.rows)
    left, top = 0.3 + 0.075 * names, 1.1
    widths = [left + CELL[0] * max(2, len(panel.columns)) for panel in panels]
    heights = [top + CELL[1] * len(panel.rows) for panel in panels]
    beside = sum(widths) <= 9.2
    size = (sum(widths), max(heights)) if beside else (max(widths), sum(heights))
    figure = Figure(figsize=size, layout="constrained")
    grid = (
        figure.subplots(1, len(panels), squeeze=False, width_ratios=widths)
        if beside
        else figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)
    )
    for axes, panel in zip(grid.ravel(), panels, strict=True):
        axes.imshow(panel.values, cmap=cmap, vmin=low, vmax=high, aspect="auto")
        for (i, j), value in np.ndenumerate(panel.values):
            dark = np.isfinite(value) and (value - low) / (high - low) > 0.6
            said = f"{value:.3f}".removeprefix("0") if np.isfinite(value) else "-"
            axes.text(j, i, said, color="white" if dark else "black", fontsize=7.5,
                      ha="center", va="center")  # fmt: skip
        axes.set_xticks(
            range(len(panel.columns)), [text(name) for name in panel.columns],
            rotation=30, ha="right", rotation_mode="anchor",
        )  # fmt: skip
        axes.set_yticks(range(len(panel.rows)), [text(name) for name in panel.rows])
        if 0 < panel.line < len(panel.columns):
            axes.axvline(panel.line - 0.5, color="black", linewidth=1)
        axes.set_title(text(panel.title, 50), fontsize=9)
        axes.set(xlabel=across, ylabel=down)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.grid(False)
    figure.suptitle(label, fontsize=9, x=0.02, ha="left")
    return figure
