"""The figure of all correlations of relative gradient norm and loss."""

import numpy as np
import pytest

from tests.reporting.reports import write
from tests.reporting.test_tables import LADDER, LITTLE
from tinyjax.reporting import summary, tables
from tinyjax.reporting.correlation_plot import correlations


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep") / "run"
    write(folder, sizes=LADDER, seeds=2, **LITTLE)
    found = tables.read(folder)
    return found, summary.summarize(found)


def test_every_one_and_the_one_answer(told):
    found, said = told
    scratch, start = said.gradients
    three = (scratch, start._replace(suite="elsewhere"), start)
    shown = correlations(found, said._replace(gradients=three))
    (axes,) = shown.figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == [
        "shift: scratch", "shift: caltech101", "elsewhere: caltech101", "all, by mean ranks",
    ]  # fmt: skip
    drawn = [line.get_xdata() for line in axes.lines[1:]]
    expected = [scratch.correlation, start.correlation, start.correlation, summary.of_all(three)]
    for bar, point, one in zip(drawn[::2], drawn[1::2], expected, strict=True):
        np.testing.assert_array_equal(bar, [one.low, one.high])
        np.testing.assert_array_equal(point, [one.value])
    assert "of 3 of them 0.15 leave zero out by chance" in shown.note


def test_few_are_told_beside_the_points(told):
    found, said = told
    assert len(said.gradients) == 2
    assert correlations(found, said) is None
