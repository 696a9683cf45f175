"""Classes grouped by the number of their training examples."""

import numpy as np
import pytest

from tinyjax.data.synthetic import dataset
from tinyjax.metrics import class_frequency
from tinyjax.reporting import transfer_figures


def test_counts_by_hand():
    split = dataset.load(n=3, size=(64, 64))
    labels, valid = np.zeros_like(split.labels), np.zeros_like(split.valid)
    labels[0, :3], valid[0, :3] = (0, 0, 1), True  # two of class 0 and one of class 1
    labels[1, :1], valid[1, :1] = 1, True
    labels[2, :2], valid[2, :1] = 0, True  # the second is padding or ignored
    split = split._replace(labels=labels, valid=valid, classes=("a", "b", "c"))
    all_images = np.ones(3, bool)
    assert class_frequency.class_counts(split, all_images) == {
        "a": (2, 3),
        "b": (2, 2),
        "c": (0, 0),
    }
    assert class_frequency.class_counts(split, np.array([True, False, False]))["b"] == (1, 1)


def test_groups_match_lvis():
    class_counts = {"a": (9, 50), "b": (10, 10), "c": (99, 99), "d": (100, 200), "e": (500, 500)}
    scores = {"AP/a": 0.1, "AP/b": 0.2, "AP/c": 0.4, "AP/d": 0.5, "AP/e": float("nan"), "AP": 0.3}
    assert class_frequency.scores_by_frequency(class_counts, scores) == pytest.approx(
        {"APr": 0.1, "APc": 0.3, "APf": 0.5}
    )
    without_objects = class_frequency.scores_by_frequency({"e": (500, 500)}, scores)
    assert np.isnan(list(without_objects.values())).all()


def test_figure_skips_classes_without_score(tmp_path):
    class_counts = {"a": (9, 50), "b": (10, 10), "c": (0, 0)}
    scores = {"val": {"AP/a": 0.1, "AP/b": 0.4, "AP/c": float("nan")}}
    transfer_figures.draw_class_frequency(class_counts, scores, "AP", tmp_path / "tail.png")
    assert (tmp_path / "tail.png").stat().st_size > 5000
