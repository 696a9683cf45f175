"""Heat maps of a report."""

from tests.reporting.reports import write
from tinyjax.reporting import heatmaps, summary, tables
from tinyjax.tasks import get_task


def test_corruptions_show_only_evaluated_members(tmp_path):
    """In a study, each run may have its own corrupted suite; other runs have no rows there."""
    write(tmp_path / "run", sizes=("s-1", "s-2"), seeds=2, images=60, resamples=20, steps=())
    contents = tables.read(tmp_path / "run", get_task)
    (suite,) = contents.corrupted_suites
    clean = {
        m.key: {c: row for c, row in contents.scores[m.key].items() if c.suite != suite}
        for m in contents.members
        if m.backbone.endswith("s-1")
    }
    partial = contents._replace(scores={**contents.scores, **clean})
    axes = heatmaps.draw_corruptions(partial, summary.summarize(partial)).figure.axes[0]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert len(rows) == 2
    assert all(row.startswith("s-2") for row in rows)
    assert axes.get_title() == f"{suite}: mean over severities"
