"""Accuracies by hand."""

import numpy as np
import pytest

from tinyjax.metrics.classification import confusion, per_class, score, taken_for

# six classes, the last without an image; eight images
LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 3], np.int32)
TAKEN = np.array([0, 0, 0, 1, 1, 0, 4, 3])


def logits():
    """The class taken scores 2, the truth 1 where it is another, the rest less, each its own."""
    rows = np.tile(np.linspace(-1, 0, 6, dtype=np.float32), (8, 1))
    rows[np.arange(8), LABELS] = 1
    rows[np.arange(8), TAKEN] = 2
    return rows


def test_by_hand():
    found = score(logits(), LABELS)
    assert found["images"] == 8
    assert found["top1"] == pytest.approx(5 / 8)
    assert found["top5"] == 1
    assert found["mean_class"] == pytest.approx((3 / 4 + 1 / 2 + 0 + 1) / 4)
    np.testing.assert_allclose(per_class(logits(), LABELS), [0.75, 0.5, 0, 1, np.nan, np.nan])
    counts = confusion(logits(), LABELS)
    assert counts.sum() == 8
    assert (counts[0, 0], counts[0, 1], counts[1, 0], counts[2, 4]) == (3, 1, 1, 1)


def test_the_sixth_is_not_among_five():
    rows = np.array([[5, 4, 3, 2, 1, 0]], np.float32)
    assert score(rows, np.array([4]))["top5"] == 1
    assert score(rows, np.array([5]))["top5"] == 0


@pytest.mark.parametrize("value", [0, np.nan, np.inf, -np.inf])
def test_a_network_that_says_nothing_is_not_right(value):
    same = np.full((8, 6), value, np.float32)
    found = score(same, LABELS)
    assert (found["top1"], found["mean_class"]) == (0, 0)
    assert np.diag(confusion(same, LABELS)).sum() == 0
    assert confusion(same, LABELS).sum() == 8


def test_a_tie_with_the_truth_is_taken_for_the_other():
    rows = np.array([[1, 2, 2], [2, 2, 1], [0, np.nan, 1]], np.float32)
    assert taken_for(rows, np.array([1, 0, 2])).tolist() == [2, 1, 1]
