"""Kinds of members side by side."""

import numpy as np
import pytest

from tests.reporting.reports import World, write
from tinyjax.reporting import summary, tables
from tinyjax.reporting.group_plot import kinds
from tinyjax.run.csv_files import read_rows, write_rows

LITTLE = {"images": 60, "resamples": 100, "steps": (), "corrupt": False, "seeds": 2}
STARTS = ("", "runs/caltech101", "runs/imagenet")


def shown(folder):
    found = tables.read(folder)
    return found, kinds(found, summary.summarize(found))


def dots(figure):
    """Of each panel the mean of every kind, by its name."""
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    panels = []
    for axes in figure.axes:
        marked = [line for line in axes.lines if line.get_marker() == "o"]
        at = {int(line.get_ydata()[0]): float(line.get_xdata()[0]) for line in marked}
        panels.append({names[y]: x for y, x in at.items()})
    return panels


def mean(found, suite, start, backbones):
    own = [m for m in found.members if m.start == start and m.backbone in backbones]
    return np.mean(summary.points(found, own, tables.Part(suite)))


def test_two_kinds_are_a_gain(tmp_path):
    write(tmp_path, sizes=("s-4", "s-3"), starts=STARTS[:2], **LITTLE)
    assert shown(tmp_path)[1] is None


def test_means_are_of_backbones_that_all_kinds_have(tmp_path):
    write(tmp_path, World(gain=0.1), sizes=("s-4", "s-3"), starts=STARTS, **LITTLE)
    both = {"mobilenetv3/s-4", "mobilenetv3/s-3"}
    found, figure = shown(tmp_path)
    for panel, suite in zip(dots(figure.figure), found.suites, strict=True):
        assert panel.keys() == {"scratch", "caltech101", "imagenet"}
        for start, value in panel.items():
            assert value == pytest.approx(mean(found, suite, start, both))

    rows = read_rows(tmp_path / "members.csv")
    for row in rows:
        if row["backbone"] == "mobilenetv3/s-4" and row["init"] == "runs/imagenet":
            row["backbone"] = "mobilenetv3/s-2"
    write_rows(tmp_path / "members.csv", rows, rows[0])
    found, figure = shown(tmp_path)
    for panel, suite in zip(dots(figure.figure), found.suites, strict=True):
        for start, value in panel.items():
            assert value == pytest.approx(mean(found, suite, start, {"mobilenetv3/s-3"}))


def member(run, start, seed=0, **varied):
    key = f"{run}/{start}{seed}{varied}"
    about = ("val", "trained on", "mobilenetv3/s-4", 1, 1, seed, start)
    return tables.Member(key, key, run, *about, varied, {}, -1, float("nan"))


def test_a_field_is_named_in_the_run_that_varies_it():
    pulled = [member("moved", "probed", pull=strength) for strength in ("0", "10", "")]
    everyone = [member("all", "scratch"), member("all", "caltech101", pull="3"), *pulled]
    names = summary.kinds(everyone)
    assert [names[m.key] for m in pulled] == [
        "moved, probed, pull 0", "moved, probed, pull 10", "moved, probed, pull default",
    ]  # fmt: skip
    assert names[everyone[0].key] == "all, scratch, pull default"
    alone = [member("all", "scratch"), member("frozen", "caltech101", pull="3"), *pulled]
    names = summary.kinds(alone)
    assert [names[m.key] for m in alone[:2]] == ["all, scratch", "frozen, caltech101"]
