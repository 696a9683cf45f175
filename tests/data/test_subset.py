"""Random subsets of the training images: fractions and shots."""

import itertools

import numpy as np
import pytest

from tinyjax.data.subset import draw_subset


def images(*labels):
    return [np.array(image_labels, int) for image_labels in labels]


LABELS = images(*([i % 4] for i in range(40)))


def test_fraction_one_uses_all_images():
    assert draw_subset(LABELS, 0, 1.0, 0).all()


def test_smaller_fractions_are_contained_in_larger_ones():
    masks = [draw_subset(LABELS, 3, fraction, 0) for fraction in (0.001, 0.1, 0.5, 1.0)]
    assert [mask.sum() for mask in masks] == [1, 4, 20, 40]
    assert all((smaller <= larger).all() for smaller, larger in itertools.pairwise(masks))
    assert (draw_subset(LABELS, 4, 0.5, 0) != masks[2]).any()
    np.testing.assert_array_equal(draw_subset(LABELS, 3, 0.5, 0), masks[2])


@pytest.mark.parametrize("shots", [1, 3, 100])
def test_shots_limit_each_class(shots):
    mask = draw_subset(LABELS, 0, 1.0, shots)
    labels = np.concatenate(LABELS)[mask]
    assert np.bincount(labels).tolist() == [min(shots, 10)] * 4
    assert (draw_subset(LABELS, 0, 1.0, 1) <= mask).all()


def test_shots_count_objects_and_skip_empty_images():
    labels_of = images([0, 0, 0], [1], [], [0], [0, 1])
    for seed in range(20):
        mask = draw_subset(labels_of, seed, 1.0, 2)
        labels = [label for i in np.flatnonzero(mask) for label in labels_of[i]]
        assert labels.count(0) >= 2
        assert labels.count(1) == 2
        assert not mask[2]
