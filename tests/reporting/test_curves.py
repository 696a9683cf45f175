"""Lines and legends of a report's figures."""

from tests.reporting.reports import SMALL, write
from tinyjax.reporting import curves, summary, tables
from tinyjax.run.csv_files import read_rows, write_rows
from tinyjax.tasks import get_task

SIZES = ("s-4", "s-3", "s-2", "s-1")


def lines(result):
    """Dash and number of sizes of the lines with error bars in each panel."""
    return [
        [(bars[0].get_linestyle(), len(bars[0].get_xdata())) for bars in axes.containers]
        for axes in result.figure.axes
    ]


def legend(result):
    (legend,) = [axes.get_legend() for axes in result.figure.axes if axes.get_legend()]
    return [text.get_text() for text in legend.get_texts()]


def test_lines_connect_the_sizes_of_a_family(tmp_path):
    write(tmp_path, sizes=SIZES, seeds=2, **SMALL)
    contents = tables.read(tmp_path, get_task)
    numbers = summary.summarize(contents)
    assert lines(curves.draw_score_by_size(contents, numbers)) == [[("-", 4)] * 2] * 4
    assert lines(curves.draw_gains(contents, numbers)) == [[("-", 4)]] * 2
    assert legend(curves.draw_score_by_size(contents, numbers)) == ["scratch", "caltech101"]

    rows = read_rows(tmp_path / "members.csv")
    for row in rows:
        if row["backbone"] == "mobilenetv3/s-3":
            row["backbone"] = "efficientnet/b-4"
    write_rows(tmp_path / "members.csv", rows, rows[0])
    contents = tables.read(tmp_path, get_task)
    numbers = summary.summarize(contents)
    both = [("-", 1), ("--", 3)]
    assert lines(curves.draw_score_by_size(contents, numbers)) == [both * 2] * 4
    assert lines(curves.draw_gains(contents, numbers)) == [both] * 2
    assert legend(curves.draw_score_by_size(contents, numbers)) == [
        "scratch", "caltech101", "efficientnet", "mobilenetv3",
    ]  # fmt: skip
    assert legend(curves.draw_gains(contents, numbers)) == [
        "caltech101",
        "efficientnet",
        "mobilenetv3",
    ]
