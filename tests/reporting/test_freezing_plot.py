"""Gains of frozen parameters over training all of them, and their figures."""

import numpy as np
import pytest

from tests.reporting.reports import SMALL, TRAINING, World, write
from tinyjax.reporting import findings, freezing_plot, grouping, summary, tables
from tinyjax.reporting.means_table import network_rows
from tinyjax.reporting.page import member_columns
from tinyjax.run.csv_files import read_rows, write_rows
from tinyjax.tasks import get_task

SIZES = {"s-6": 0.06, "s-5": 0.1, "s-4": 0.2, "s-3": 0.3, "s-2": 0.45, "s-1": 0.54}  # share
GAIN = 0.1  # of the members with a frozen backbone
FROZEN = "freeze ('backbone',)"


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """Networks of six sizes and four seeds, all trained and frozen, where the backbone's share of
    the parameters falls with size. The gain is 0.1 for all sizes.
    """
    folder = tmp_path_factory.mktemp("frozen")
    write(folder, World(gain=GAIN), sizes=[*SIZES], starts=("", "frozen"), seeds=4, **SMALL)
    rows = read_rows(folder / "members.csv")
    for row in rows:
        frozen, size = row.pop("init"), row["backbone"].partition("/")[2]
        row["freeze"] = "('backbone',)" if frozen else "()"
        share = SIZES[size] if frozen else 1
        row["parameters"], row["trained_parameters"] = "100000", str(int(100_000 * share))
    write_rows(folder / "members.csv", rows, rows[0])
    return tables.read(folder, get_task)


def bars(axes):
    """x, y and half width of each error bar."""
    return [
        (data.get_xdata()[0], data.get_ydata()[0], np.ptp(lines.get_segments()[0][:, 1]) / 2)
        for data, _, (lines,) in axes.containers
    ]


def test_gains_are_drawn_at_the_trained_share(contents):
    result = freezing_plot.draw_freezing(contents, summary.summarize(contents))
    assert [axes.get_title() for axes in result.figure.axes] == ["val", "shift"]
    for axes in result.figure.axes:
        points = bars(axes)
        assert [x for x, *_ in points] == pytest.approx([100 * share for share in SIZES.values()])
        for _, gain, half_width in points:
            assert abs(gain - GAIN) < 0.05
            assert 0.003 < half_width < 0.2
        (text,) = axes.get_legend().get_texts()
        assert text.get_text().startswith(f"{FROZEN}\nr ")


def test_gains_of_classes_are_drawn_at_their_training_objects(contents):
    numbers = summary.summarize(contents)
    result = freezing_plot.draw_freezing_by_class(contents, numbers)
    for axes, gain in zip(result.figure.axes, numbers.freezing, strict=True):
        ((data, _, (lines,)),) = axes.containers
        assert data.get_xdata().tolist() == [objects for _, objects in TRAINING.values()]
        total = gain.gains.mean()
        assert data.get_ydata() == pytest.approx([0.6 * total, 0.75 * total, 0.9 * total])
        assert all(0.001 < np.ptp(segment[:, 1]) < 0.3 for segment in lines.get_segments())
        assert {text.get_text() for text in axes.texts} == {*TRAINING}


def test_finding_states_gains_and_their_trend(contents):
    sentence = findings.describe_freezing(contents, summary.summarize(contents))
    assert sentence.startswith(
        f"With {FROZEN} instead of training all parameters, the score rises by 0.1"
    )
    _, trend = sentence.split(". With the trained share of the parameters, this change is ")
    assert trend.count("correlated (") == trend.count("6 networks") == 2


def test_tables_have_gains_and_trained_parameters(contents):
    numbers = summary.summarize(contents)
    rows = [row for row in network_rows(contents) if (row["suite"], row["slice"]) == ("val", "")]
    frozen = [row for row in rows if row["freeze"] != "()"]
    gains = [gain.gains for gain in numbers.freezing if gain.suite == "val"]
    assert np.mean([row["freezing_gain"] for row in frozen]) == pytest.approx(np.mean(gains))
    assert {row["freezing_gain"] for row in rows if row["freeze"] == "()"} == {""}
    assert sorted(row["trained_parameters"] / 1e5 for row in frozen) == pytest.approx(
        [*SIZES.values()]
    )
    (trained,) = [c for c in member_columns(contents, numbers) if c.title == "trained"]
    assert {*trained.cells} == {m.trained_parameters for m in contents.members}


def test_no_figure_if_nothing_is_frozen(tmp_path):
    write(tmp_path, sizes=("s-4",), seeds=1, **SMALL)
    trained = tables.read(tmp_path, get_task)
    numbers = summary.summarize(trained)
    assert freezing_plot.draw_freezing(trained, numbers) is None
    assert freezing_plot.draw_freezing_by_class(trained, numbers) is None
    assert findings.describe_freezing(trained, numbers) is None
    assert "freezing_gain" not in network_rows(trained)[0]
    assert "trained" not in [column.title for column in member_columns(trained, numbers)]


def member(trained, parameters=100, run="", seed=0, **varied):
    varied = {"freeze": "()", "model.adapters": "False", **varied}
    key = f"{run}{seed}{varied}"
    fields = ("val", "set", "s-1", parameters, trained, 1, seed, "scratch", varied, {}, -1, np.nan)
    return tables.Member(key, key, run, *fields)


def test_pairs_differ_in_freezing_alone():
    frozen = {"freeze": "('backbone',)"}
    adapters = {**frozen, "model.adapters": "True"}
    unfrozen = member(100)
    members = [
        member(104, 104, **{"model.adapters": "True"}),
        unfrozen,
        member(20, **frozen),
        member(24, 104, **adapters),
        member(20, seed=1, **frozen),
        member(20, run="other", **frozen),
        member(20, **frozen, width="64"),
    ]
    assert grouping.pair_with_unfrozen(members) == {
        "freeze ('backbone',)": [(members[2], unfrozen)],
        "freeze ('backbone',), model.adapters True": [(members[3], unfrozen)],
    }
