"""Figures of a single run's training."""

import numpy as np
import pytest
from PIL import Image

from tinyjax.reporting import training_curves

LABELS = {"AP50": "AP50 (IoU 0.50)", "AP": "AP (IoU 0.50:0.95)"}


def write_metrics(path, rows):
    lines = [",".join(str(v) for v in row) for row in rows]
    path.write_text("\n".join(["step,split,metric,value", *lines]) + "\n")


def training_rows(steps=range(10, 200, 10)):
    for step in steps:
        yield step, "train", "loss", 3.0 / step
        yield step, "train", "class_loss", 1.0 / step
        yield step, "train", "lr", 1e-3
        yield step, "train", "positives", 300


def evaluation_rows(steps=(100, 200)):
    for step in steps:
        for suite in ("val", "shift"):
            yield step, suite, "AP", 0.001 * step
            yield step, suite, "AP50", 0.002 * step
            yield step, suite, "AP/person", "nan"


@pytest.mark.parametrize(
    ("rows", "files"),
    [
        ([*training_rows(), *evaluation_rows()], {"training.png", "scores.png"}),
        ([*training_rows([10])], {"training.png"}),
        ([*evaluation_rows([0])], {"scores.png"}),
        ([], set()),
    ],
)
def test_draw_writes_figures_with_data(tmp_path, rows, files):
    write_metrics(tmp_path / "metrics.csv", rows)
    training_curves.draw(tmp_path / "metrics.csv", tmp_path / "figures", LABELS)
    assert {path.name for path in tmp_path.glob("figures/*")} == files
    for name in files:
        pixels = np.asarray(Image.open(tmp_path / "figures" / name).convert("L"))
        assert pixels.min() < 50
        assert pixels.max() == 255


def test_curves_match_the_file(tmp_path):
    write_metrics(tmp_path / "metrics.csv", [*training_rows(), *reversed([*evaluation_rows()])])
    series = training_curves._read_series(tmp_path / "metrics.csv")
    scores = {m: {"val": series["val", m]} for m in ("AP", "AP50")}
    figure = training_curves._draw_scores(scores, LABELS)
    lines = [axes.lines[0].get_xydata() for axes in figure.axes]
    np.testing.assert_allclose(lines[0], [(100, 0.1), (200, 0.2)])
    np.testing.assert_allclose(lines[1], [(100, 0.2), (200, 0.4)])

    losses = {m: series["train", m] for m in ("loss", "class_loss")}
    figure = training_curves._draw_training(losses, series["train", "lr"])
    loss_axes, rate_axes = figure.axes
    assert [t.get_text() for t in loss_axes.get_legend().get_texts()] == ["loss", "class loss"]
    assert loss_axes.get_ylabel() == "training loss"
    assert (rate_axes.get_xlabel(), rate_axes.get_ylabel()) == ("step", "learning rate")


def test_running_mean():
    values = np.arange(40.0) ** 2
    mean = training_curves._running_mean(values)  # a window of three
    assert mean.shape == values.shape
    np.testing.assert_allclose(mean[1:-1], (values[:-2] + values[1:-1] + values[2:]) / 3)
    np.testing.assert_allclose(mean[[0, -1]], [(0 + 1) / 2, (38**2 + 39**2) / 2])
    np.testing.assert_array_equal(training_curves._running_mean(values[:5]), values[:5])
