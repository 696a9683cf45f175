"""Report figure that compares variants: runs, starting weights, varied fields."""

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from tinyjax.reporting.estimates import estimate_score
from tinyjax.reporting.grouping import count_text, group_members, variant_labels
from tinyjax.reporting.plotting import (
    COLORS,
    ReportFigure,
    draw_interval,
    label_rows,
    label_text,
    make_panels,
)
from tinyjax.reporting.summary import Summary
from tinyjax.reporting.tables import Condition, Member, Tables

MAX_COLUMNS = 3  # of panels
MAX_ROWS = 30  # with more variants, some fields are left out
MAX_LABEL = 90  # characters
MIN_VARIANTS = 3  # `curves.draw_gains` compares two


def draw_variants(tables: Tables, summary: Summary) -> ReportFigure | None:
    """Mean score of each variant on each suite, over the backbones that all variants share."""
    variants = variant_labels(tables.members, MAX_ROWS)
    groups = group_members(tables.members, lambda member: variants[member.key])
    if len(groups) < MIN_VARIANTS:
        return None
    columns = min(MAX_COLUMNS, len(tables.suites))
    names = [label_text(variant, MAX_LABEL) for variant in groups]
    width, height = 2.4 + 0.06 * max(map(len, names)) / columns, 0.7 + 0.24 * len(groups)
    figure, panels = make_panels(
        len(tables.suites), width, height, columns, sharex=True, sharey=True
    )
    for axes, suite in zip(panels, tables.suites, strict=True):
        evaluated = [
            [m for m in members if Condition(suite) in tables.scores[m.key]]
            for members in groups.values()
        ]
        shared = set.intersection(
            *({m.backbone for m in members} for members in evaluated if members)
        )
        for y, members in enumerate(evaluated):
            _draw_mean(axes, y, tables, [m for m in members if m.backbone in shared], suite)
        axes.set_title(label_text(suite), fontsize=9)
        axes.grid(axis="y", visible=False)
    label_rows(panels[0], names)
    panels[0].xaxis.set_major_locator(MaxNLocator(4))
    for axes in panels[-columns:]:
        axes.set_xlabel(tables.metric_label)
        axes.tick_params(labelbottom=True)
    resampled = tables.task.words.resampled
    return ReportFigure(
        "variants",
        "Variants",
        figure,
        f"Mean {tables.metric_label} of {len(groups)} variants on {', '.join(tables.suites)}",
        f"Means of {count_text(len(tables.members), 'member')} by variant, over the backbones that "
        f"all variants have, with 95 % intervals over seeds and {resampled}. Variants share seeds "
        f"and {resampled}, so overlapping bars do not show that two variants are equal.",
    )


def _draw_mean(axes: Axes, y: int, tables: Tables, members: list[Member], suite: str) -> None:
    if members:
        estimate = estimate_score(tables, members, Condition(suite))
        draw_interval(axes, y, estimate[:3], COLORS[y % len(COLORS)])
