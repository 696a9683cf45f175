"""Class-balanced weights by hand, and the distribution of the federated loss's classes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax.detectors.long_tail import class_balanced_weights, federated_mask

COUNTS = np.array([1, 4, 9, 16, 25, 36])  # square roots 1 .. 6


def test_class_balanced_weights():
    weights = class_balanced_weights(np.array([5, 50, 500]), 0.999)
    expected = np.array([0.200400, 0.0204942, 0.00254051])
    np.testing.assert_allclose(weights, expected / expected.mean(), rtol=1e-5)
    np.testing.assert_allclose(class_balanced_weights(np.array([5, 500]), 0.0), 1)
    weights = class_balanced_weights(np.array([10, 0, 30]), 0.999999)
    np.testing.assert_allclose(weights, [1.5, 0, 0.5], rtol=1e-4)


@partial(jax.jit, static_argnames="num_classes")
def draw(seeds, labels, valid, num_classes, counts=COUNTS):
    keys = jax.vmap(jax.random.key)(seeds)
    return jax.vmap(
        lambda key: federated_mask(key, labels, valid, jnp.asarray(counts), num_classes)
    )(keys)


def masks(labels, num_classes, draws=20_000, **arguments):
    labels = jnp.array(labels)
    return np.asarray(
        draw(jnp.arange(draws), jnp.maximum(labels, 0), labels >= 0, num_classes, **arguments)
    )


def test_probabilities_are_proportional_to_the_root_of_the_counts():
    drawn = masks([[-1, -1]], 1)
    assert (drawn.sum(1) == 1).all()
    expected = np.arange(1, 7) / 21
    deviation = np.sqrt(expected * (1 - expected) / len(drawn))
    assert (abs(drawn.mean(0) - expected) < 5 * deviation).all()


def test_present_classes_are_included_and_others_drawn_without_replacement():
    drawn = masks([[5, 5, -1], [2, 5, -1]], 4)
    assert drawn[:, [2, 5]].all()
    assert (drawn.sum(1) == 4).all()
    # two of the weights 1, 2, 4, 5: the first is i, or the first is j and the second i
    weights = np.array([1, 2, 4, 5])
    expected = [
        w / 12 + sum(v / 12 * w / (12 - v) for j, v in enumerate(weights) if j != i)
        for i, w in enumerate(weights)
    ]
    deviation = np.sqrt(np.multiply(expected, np.subtract(1, expected)) / len(drawn))
    assert (abs(drawn[:, [0, 1, 3, 4]].mean(0) - expected) < 5 * deviation).all()


@pytest.mark.parametrize("num_classes", [1, 3])
def test_more_present_classes_than_the_number_are_all_included(num_classes):
    drawn = masks([[0, 2, 4, 5]], num_classes, draws=50)
    assert (drawn == [True, False, True, False, True, True]).all()


def test_classes_without_images_are_not_drawn():
    drawn = masks([[-1]], 6, draws=50, counts=np.array([1, 0, 9, 0, 1, 1]))
    assert (drawn == [True, False, True, False, True, True]).all()
    assert masks([[1]], 9, draws=5).all()  # more than there are


def test_presence_is_that_of_the_whole_batch():
    labels = jnp.array([[[0, 0]], [[3, 1]]])  # two shards
    valid = jnp.array([[[True, False]], [[True, False]]])
    shard = partial(
        federated_mask, jax.random.key(0), image_counts=jnp.array(COUNTS), num_classes=2,
        axes=("data",),
    )  # fmt: skip
    drawn = jax.vmap(lambda a, b: shard(labels=a, valid=b), axis_name="data")(labels, valid)
    np.testing.assert_array_equal(drawn, [[True, False, False, True, False, False]] * 2)
