"""Matching of anchors to objects, by hand and against torchvision."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.detectors import make_anchor_references as references
from tinyjax.detectors.anchor_matching import best_objects, covered, match

ANCHORS = jnp.array([[0.0, 0, 10, 10], [10, 0, 20, 10], [0, 10, 10, 20], [40, 40, 60, 60]])


@partial(jax.jit, static_argnames=("foreground", "background", "low_quality"))
def jitted_match(anchors, boxes, valid, ignore, foreground=0.5, background=0.4, low_quality=True):
    return match(
        anchors, boxes, valid, ignore,
        foreground_iou=foreground, background_iou=background, low_quality=low_quality,
    )  # fmt: skip


def match_objects(boxes, valid=None, ignore=None, anchors=ANCHORS, **options):
    boxes = jnp.asarray(boxes)
    valid = jnp.ones(len(boxes), bool) if valid is None else jnp.asarray(valid)
    ignore = jnp.zeros(len(boxes), bool) if ignore is None else jnp.asarray(ignore)
    return jitted_match(anchors, boxes, valid, ignore, **options)


def torchvision_labels(matches):
    """The index of the object of positives, -1 for negatives, -2 for others."""
    labels = np.where(matches.is_positive, matches.object_index, -2)
    return np.where(matches.is_negative, -1, labels)


@pytest.mark.parametrize(
    ("foreground", "background", "low_quality", "expected"),
    [
        # Column 2 is the best of object 1 in a tie, and goes to its own best object 0.
        (0.7, 0.3, True, [0, 1, 0, 0, -1]),
        (0.7, 0.3, False, [0, -2, -2, -2, -1]),
        (0.5, 0.4, True, [0, 1, 0, 0, -1]),
    ],
)
def test_matches_by_hand(foreground, background, low_quality, expected):
    """The overlaps are given, so that the best objects can be read off their columns."""
    overlap = jnp.array(
        [[0.8, 0.2, 0.5, 0.65, 0.1], [0.1, 0.45, 0.45, 0.1, 0.1], [0, 0.25, 0, 0.25, 0]]
    )
    best, index, is_best_anchor = best_objects(lambda g: overlap[g], jnp.ones(3, bool), 5)
    np.testing.assert_array_equal(best, overlap.max(0))
    positive = (best >= foreground) | (is_best_anchor & low_quality)
    labels = np.where(positive, index, np.where(best < background, -1, -2))
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("low_quality", [False, True])
def test_matches_equal_torchvisions(low_quality):
    with np.load(references.FILE) as reference, jax.enable_x64(True):
        expected = reference[f"matches_low_quality_{low_quality}"]
        anchors = jnp.asarray(reference["anchors"], jnp.float64)
        boxes = references.random_boxes(0, 12, 60)
        matches = match_objects(boxes, anchors=anchors, low_quality=low_quality)
        np.testing.assert_array_equal(torchvision_labels(matches), expected)
        assert len(np.unique(expected)) > 4  # several objects, background, and between them


def test_padding_changes_nothing():
    """Valid objects need not come first."""
    boxes = np.array([[1.0, 0, 10, 10], [38, 40, 58, 60]])
    expected = match_objects(boxes)
    assert torchvision_labels(expected).tolist() == [0, -1, -1, 1]
    padded = np.zeros((5, 4))
    padded[[1, 4]] = boxes
    padded[2] = ANCHORS[2]
    matches = match_objects(padded, valid=[False, True, False, False, True])
    assert torchvision_labels(matches).tolist() == [1, -1, -1, 4]
    none = match_objects(padded, valid=[False] * 5)
    assert none.is_negative.all()
    assert not none.is_positive.any()


def test_an_object_that_no_anchor_overlaps_has_no_positives():
    """With torchvision's rule, all anchors would be its best ones."""
    assert not match_objects([[30.0, 30, 35, 35], [5, 5, 5, 5]]).is_positive.any()


def test_anchors_in_ignored_boxes_have_no_loss_unless_they_are_positive():
    boxes = jnp.array([[0.0, 0, 25, 5.5], [0, 0, 10, 10], [40, 40, 50, 60]])
    matches = match_objects(boxes, valid=[False, True, False], ignore=[True, False, True])
    assert matches.is_positive.tolist() == [True, False, False, False]
    # The last anchor is covered by exactly one half.
    assert matches.is_negative.tolist() == [False, False, True, True]
    inside = covered(ANCHORS, boxes, jnp.array([True, False, True]))
    assert inside.tolist() == [True, True, False, False]


def test_match_can_be_vmapped_over_images_and_members():
    """Images with different numbers of objects."""
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 40, (2, 3, 4, 2))
    boxes = jnp.asarray(np.concatenate([low, low + rng.uniform(5, 20, low.shape)], -1), jnp.float32)
    valid = jnp.asarray(rng.random((2, 3, 4)) < 0.5)
    ignore = ~valid & jnp.asarray(rng.random((2, 3, 4)) < 0.5)
    over_images = jax.vmap(partial(jitted_match, ANCHORS))
    batched = jax.jit(jax.vmap(over_images))(boxes, valid, ignore)
    for m, b in np.ndindex(2, 3):
        single = jitted_match(ANCHORS, boxes[m, b], valid[m, b], ignore[m, b])
        for actual, expected in zip(batched, single, strict=True):
            np.testing.assert_array_equal(actual[m, b], expected)
