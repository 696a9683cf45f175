"""The figure with all correlations of relative gradient norm and drop under shift."""

import numpy as np
import pytest

from tests.reporting.reports import SIZES, SMALL, write
from tinyjax.reporting import summary, tables
from tinyjax.reporting.correlation_plot import draw_correlations
from tinyjax.tasks import get_task


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "run"
    write(folder, sizes=[*SIZES], seeds=2, **SMALL)
    contents = tables.read(folder, get_task)
    return contents, summary.summarize(contents)


def test_rows_show_each_correlation_and_the_overall_one(report):
    contents, numbers = report
    scratch, start = numbers.gradients
    three = (scratch, start._replace(suite="elsewhere"), start)
    result = draw_correlations(contents, numbers._replace(gradients=three))
    (axes,) = result.figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [
        "shift: scratch", "shift: caltech101", "elsewhere: caltech101", "all, by mean ranks",
    ]  # fmt: skip
    drawn = [line.get_xdata() for line in axes.lines[1:]]
    expected = [
        scratch.correlation,
        start.correlation,
        start.correlation,
        summary.overall_correlation(three),
    ]
    for bar, point, correlation in zip(drawn[::2], drawn[1::2], expected, strict=True):
        np.testing.assert_array_equal(bar, [correlation.low, correlation.high])
        np.testing.assert_array_equal(point, [correlation.value])
    assert "0.15 of 3 are expected to exclude zero by chance" in result.note


def test_no_figure_for_few_correlations(report):
    contents, numbers = report
    assert len(numbers.gradients) == 2
    assert draw_correlations(contents, numbers) is None
