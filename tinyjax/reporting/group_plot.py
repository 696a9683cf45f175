"""The figure of a report that sets kinds of members side by side: runs, starts, other fields."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tinyjax.reporting.figures import ON_WHITE
from tinyjax.reporting.heatmaps import Shown, text
from tinyjax.reporting.summary import Summary, counted, estimate, grouped
from tinyjax.reporting.tables import Member, Part, Tables

ACROSS = 3  # panels
LEAST = 3  # kinds: two are a gain, which has figures of its own


def kinds(tables: Tables, summary: Summary) -> Shown | None:
    """The mean score of each kind in every suite, over backbones that all kinds there have."""
    own = grouped(tables.members, lambda member: summary.kinds[member.key])
    if len(own) < LEAST:
        return None
    across = min(ACROSS, len(tables.suites))
    down = -(-len(tables.suites) // across)
    size = (2.2 + 2.6 * across, down * (0.7 + 0.24 * len(own)))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharey=True, sharex=True).ravel()
    for axes, suite in zip(panels, tables.suites, strict=False):
        there = {
            kind: [m for m in members if Part(suite) in tables.scores[m.key]]
            for kind, members in own.items()
        }
        shared = set.intersection(*({m.backbone for m in some} for some in there.values() if some))
        for y, members in enumerate(there.values()):
            _mean(axes, y, tables, [m for m in members if m.backbone in shared], suite)
        axes.set_title(text(suite), fontsize=9)
        axes.grid(axis="y", visible=False)
    for empty in panels[len(tables.suites) :]:
        empty.remove()
    panels[0].set_yticks(range(len(own)), [text(kind, 50) for kind in own])
    panels[0].set_ylim(len(own) - 0.5, -0.5)
    panels[0].xaxis.set_major_locator(MaxNLocator(4))
    for axes in panels[max(0, len(tables.suites) - across) : len(tables.suites)]:
        axes.set_xlabel(tables.title)
        axes.tick_params(labelbottom=True)
    return Shown(
        "kinds",
        "Kinds of members",
        figure,
        f"Mean {tables.title} of {len(own)} kinds of members in {', '.join(tables.suites)}",
        f"Means of {counted(len(tables.members), 'member')} by kind, over backbones that all kinds "
        "have, and 95 % intervals over seeds and images. Kinds share seeds and images: whether two "
        "differ is not to be read from bars that overlap.",
    )


def _mean(axes: Axes, y: int, tables: Tables, members: list[Member], suite: str) -> None:
    if not members:
        return
    value, low, high, _ = estimate(tables, members, Part(suite))
    color = ON_WHITE[y % len(ON_WHITE)]
    axes.plot([low, high], [y, y], color=color, linewidth=3, alpha=0.45)
    axes.plot(value, y, "o", color=color, markersize=6)
