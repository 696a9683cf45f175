"""Heat maps of a report."""

from tests.reporting.reports import write
from tinyjax.reporting import heatmaps, summary, tables


def test_corruptions_of_those_that_were_asked(tmp_path):
    """In a study each run may corrupt a suite of its own: others have no row there."""
    write(tmp_path / "run", sizes=("s-1", "s-2"), seeds=2, images=60, resamples=20, steps=())
    found = tables.read(tmp_path / "run")
    (suite,) = found.corrupted
    clean = {
        m.key: {part: row for part, row in found.scores[m.key].items() if part.suite != suite}
        for m in found.members
        if m.backbone.endswith("s-1")
    }
    some = found._replace(scores={**found.scores, **clean})
    axes = heatmaps.corruptions(some, summary.summarize(some)).figure.axes[0]
    rows = [label.get_text() for label in axes.get_yticklabels()]
    assert len(rows) == 2
    assert all(row.startswith("s-2") for row in rows)
    assert axes.get_title() == f"{suite}: mean over severities"
