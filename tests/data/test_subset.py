import itertools

import numpy as np
import pytest

from tinyjax.data.subset import subset


def images(*labels):
    return [np.array(own, int) for own in labels]


MANY = images(*([i % 4] for i in range(40)))


def test_all_of_it():
    assert subset(MANY, 0, 1.0, 0).all()


def test_fractions_are_nested_and_of_a_seed():
    parts = [subset(MANY, 3, fraction, 0) for fraction in (0.001, 0.1, 0.5, 1.0)]
    assert [part.sum() for part in parts] == [1, 4, 20, 40]
    assert all((small <= large).all() for small, large in itertools.pairwise(parts))
    assert (subset(MANY, 4, 0.5, 0) != parts[2]).any()
    np.testing.assert_array_equal(subset(MANY, 3, 0.5, 0), parts[2])


@pytest.mark.parametrize("shots", [1, 3, 100])
def test_shots_of_every_class(shots):
    used = subset(MANY, 0, 1.0, shots)
    labels = np.concatenate(MANY)[used]
    assert np.bincount(labels).tolist() == [min(shots, 10)] * 4
    assert (subset(MANY, 0, 1.0, 1) <= used).all()


def test_objects_count_and_images_without_any_are_passed_over():
    some = images([0, 0, 0], [1], [], [0], [0, 1])
    for seed in range(20):
        used = subset(some, seed, 1.0, 2)
        shown = [label for i in np.flatnonzero(used) for label in some[i]]
        assert shown.count(0) >= 2
        assert shown.count(1) == 2
        assert not used[2]
