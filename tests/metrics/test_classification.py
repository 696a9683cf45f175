"""Accuracies, compared with values computed by hand."""

import numpy as np
import pytest

from tinyjax.metrics.classification import (
    confusion_matrix,
    per_class_accuracy,
    predicted_classes,
    score,
)

# six classes, the last without an image; eight images
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 3], np.int32)
PREDICTED = np.array([0, 0, 0, 1, 1, 0, 4, 3])


def logits():
    """Logits of 2 for the predicted class, 1 for another true class, distinct lower ones else."""
    rows = np.tile(np.linspace(-1, 0, 6, dtype=np.float32), (8, 1))
    rows[np.arange(8), LABELS] = 1
    rows[np.arange(8), PREDICTED] = 2
    return rows


def test_scores_by_hand():
    scores = score(logits(), LABELS)
    assert scores["images"] == 8
    assert scores["top1"] == pytest.approx(5 / 8)
    assert scores["top5"] == 1
    assert scores["mean_class"] == pytest.approx((3 / 4 + 1 / 2 + 0 + 1) / 4)
    np.testing.assert_allclose(
        per_class_accuracy(logits(), LABELS), [0.75, 0.5, 0, 1, np.nan, np.nan]
    )
    counts = confusion_matrix(logits(), LABELS)
    assert counts.sum() == 8
    assert (counts[0, 0], counts[0, 1], counts[1, 0], counts[2, 4]) == (3, 1, 1, 1)


def test_top5_excludes_the_sixth_class():
    rows = np.array([[5, 4, 3, 2, 1, 0]], np.float32)
    assert score(rows, np.array([4]))["top5"] == 1
    assert score(rows, np.array([5]))["top5"] == 0


@pytest.mark.parametrize("value", [0, np.nan, np.inf, -np.inf])
def test_constant_or_nan_logits_are_wrong(value):
    constant = np.full((8, 6), value, np.float32)
    scores = score(constant, LABELS)
    assert (scores["top1"], scores["mean_class"]) == (0, 0)
    assert np.diag(confusion_matrix(constant, LABELS)).sum() == 0
    assert confusion_matrix(constant, LABELS).sum() == 8


def test_a_tie_with_the_truth_predicts_the_other_class():
    rows = np.array([[1, 2, 2], [2, 2, 1], [0, np.nan, 1]], np.float32)
    assert predicted_classes(rows, np.array([1, 0, 2])).tolist() == [2, 1, 1]
