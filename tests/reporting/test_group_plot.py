"""The figure that compares variants of members."""

import numpy as np
import pytest

from tests.reporting.reports import World, write
from tinyjax.reporting import estimates, grouping, summary, tables
from tinyjax.reporting.group_plot import draw_variants
from tinyjax.run.csv_files import read_rows, write_rows
from tinyjax.tasks import get_task

SMALL = {"images": 60, "resamples": 100, "steps": (), "corrupt": False, "seeds": 2}
STARTS = ("", "runs/caltech101", "runs/imagenet")


def read_and_draw(folder):
    contents = tables.read(folder, get_task)
    return contents, draw_variants(contents, summary.summarize(contents))


def plotted_means(figure):
    """Variant -> drawn mean, for each panel."""
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    panels = []
    for axes in figure.axes:
        dots = [line for line in axes.lines if line.get_marker() == "o"]
        means = {int(line.get_ydata()[0]): float(line.get_xdata()[0]) for line in dots}
        panels.append({names[y]: x for y, x in means.items()})
    return panels


def mean_score(contents, suite, start, backbones):
    members = [m for m in contents.members if m.start == start and m.backbone in backbones]
    return np.mean(estimates.member_scores(contents, members, tables.Condition(suite)))


def test_no_figure_for_two_variants(tmp_path):
    write(tmp_path, sizes=("s-4", "s-3"), starts=STARTS[:2], **SMALL)
    assert read_and_draw(tmp_path)[1] is None


def test_means_cover_backbones_of_all_variants(tmp_path):
    write(tmp_path, World(gain=0.1), sizes=("s-4", "s-3"), starts=STARTS, **SMALL)
    both = {"mobilenetv3/s-4", "mobilenetv3/s-3"}
    contents, result = read_and_draw(tmp_path)
    for panel, suite in zip(plotted_means(result.figure), contents.suites, strict=True):
        assert panel.keys() == {"scratch", "caltech101", "imagenet"}
        for start, value in panel.items():
            assert value == pytest.approx(mean_score(contents, suite, start, both))

    rows = read_rows(tmp_path / "members.csv")
    for row in rows:
        if row["backbone"] == "mobilenetv3/s-4" and row["init"] == "runs/imagenet":
            row["backbone"] = "mobilenetv3/s-2"
    write_rows(tmp_path / "members.csv", rows, rows[0])
    contents, result = read_and_draw(tmp_path)
    for panel, suite in zip(plotted_means(result.figure), contents.suites, strict=True):
        for start, value in panel.items():
            assert value == pytest.approx(mean_score(contents, suite, start, {"mobilenetv3/s-3"}))


def test_arms_of_several_sizes_have_a_row_each(tmp_path):
    """Eight variants are more than a figure has colors, but a row is not a color."""
    for width in ("48", "64"):
        write(tmp_path / width, starts=(*STARTS, "runs/coco"), sizes=("s-3",), **SMALL)
    _, result = read_and_draw(tmp_path)
    panel, *_ = plotted_means(result.figure)
    assert {"48, scratch", "64, coco"} < panel.keys()
    assert len(panel) == 8


def member(run, start, seed=0, **varied):
    key = f"{run}/{start}{seed}{varied}"
    fields = ("val", "trained on", "mobilenetv3/s-4", 1, 1, 1, seed, start)
    return tables.Member(key, key, run, *fields, varied, {}, -1, float("nan"))


def test_variants_name_only_fields_that_their_run_varies():
    regularized = [member("moved", "probed", reg=strength) for strength in ("0", "10", "")]
    several_starts = [member("all", "scratch"), member("all", "caltech101", reg="3"), *regularized]
    names = grouping.variant_labels(several_starts)
    assert [names[m.key] for m in regularized] == [
        "moved, probed, reg 0", "moved, probed, reg 10", "moved, probed, reg default",
    ]  # fmt: skip
    assert names[several_starts[0].key] == "all, scratch, reg default"
    one_start_each = [
        member("all", "scratch"),
        member("frozen", "caltech101", reg="3"),
        *regularized,
    ]
    names = grouping.variant_labels(one_start_each)
    assert [names[m.key] for m in one_start_each[:2]] == ["all, scratch", "frozen, caltech101"]
