"""What the figures of a report join, and what their legends say."""

from tests.reporting.reports import write
from tinyjax.reporting import curves, summary, tables
from tinyjax.run.csv_files import read_rows, write_rows

LITTLE = {"images": 60, "resamples": 100, "steps": (), "corrupt": False}
SIZES = ("s-4", "s-3", "s-2", "s-1")


def lines(shown):
    """Of each panel the sizes that its lines with bars join, by the dash of the line."""
    return [
        [(bars[0].get_linestyle(), len(bars[0].get_xdata())) for bars in axes.containers]
        for axes in shown.figure.axes
    ]


def legend(shown):
    (found,) = [axes.get_legend() for axes in shown.figure.axes if axes.get_legend()]
    return [said.get_text() for said in found.get_texts()]


def test_a_line_joins_the_sizes_of_one_family(tmp_path):
    write(tmp_path, sizes=SIZES, seeds=2, **LITTLE)
    found = tables.read(tmp_path)
    told = summary.summarize(found)
    assert lines(curves.by_size(found, told)) == [[("-", 4)] * 2] * 4
    assert lines(curves.gains(found, told)) == [[("-", 4)]] * 2
    assert legend(curves.by_size(found, told)) == ["scratch", "caltech101"]

    rows = read_rows(tmp_path / "members.csv")
    for row in rows:
        if row["backbone"] == "mobilenetv3/s-3":
            row["backbone"] = "efficientnet/b-4"
    write_rows(tmp_path / "members.csv", rows, rows[0])
    found = tables.read(tmp_path)
    told = summary.summarize(found)
    both = [("-", 1), ("--", 3)]
    assert lines(curves.by_size(found, told)) == [both * 2] * 4
    assert lines(curves.gains(found, told)) == [both] * 2
    assert legend(curves.by_size(found, told)) == [
        "scratch", "caltech101", "efficientnet", "mobilenetv3",
    ]  # fmt: skip
    assert legend(curves.gains(found, told)) == ["caltech101", "efficientnet", "mobilenetv3"]
