"""Triplet losses: by hand, against their formulas pair by pair, and without positives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax.recognition.triplets import (
    batch_hard_triplet,
    four_way_triplet,
    pairwise_distances,
    weighted_triplet,
)

FUNCTIONS = {
    "batch_hard": lambda x, labels: batch_hard_triplet(x, labels, 0.5),
    "four_way": lambda x, labels: four_way_triplet(x, labels, 0.5),
    "weighted": weighted_triplet,
}
LOSSES = {name: jax.jit(jax.value_and_grad(function)) for name, function in FUNCTIONS.items()}
# On a line: visible rows of identities 0 and 1, then infrared rows.
LINE, LABELS = jnp.array([[0.0], [3], [1], [7]]), jnp.array([0, 1, 0, 1])


def random_batch(seed=0):
    """Features [12, 5] of three identities, two rows of each per modality."""
    random = np.random.default_rng(seed)
    return random.normal(size=(12, 5)), np.tile([0, 1, 2, 2, 1, 0], 2)


def test_batch_hard_by_hand():
    """Positives 1, 4, 1, 4 and negatives 3, 2, 2, 6 away."""
    hinges = [1 - 3 + 2.5, 4 - 2 + 2.5, 1 - 2 + 2.5, 4 - 6 + 2.5]
    value = batch_hard_triplet(LINE, LABELS, 2.5)
    assert float(value) == pytest.approx(sum(hinges) / 4, rel=1e-6)
    assert float(batch_hard_triplet(LINE, LABELS, -3.0)) == 0


def test_four_way_by_hand():
    """Within a modality, an anchor is its only positive."""
    visible, infrared = [0 - 3 + 4, 0 - 3 + 4], [0, 0]  # 0 - 6 + 4 < 0
    visible_infrared, infrared_visible = [0, 4 - 2 + 4], [1 - 2 + 4, 4 - 7 + 4]
    pairs = visible, infrared, visible_infrared, infrared_visible
    value = four_way_triplet(LINE, LABELS, 4.0)
    assert float(value) == pytest.approx(np.mean([np.mean(pair) for pair in pairs]), rel=1e-5)


def test_weighted_triplet_equals_its_formula():
    features, labels = random_batch()
    expected = []
    for x, label in zip(features, labels, strict=True):
        distance = np.linalg.norm(features - x, axis=1)
        positive, negative = distance[labels == label], distance[labels != label]
        up, down = np.exp(positive), np.exp(-negative)
        gap = (up * positive).sum() / up.sum() - (down * negative).sum() / down.sum()
        expected.append(np.log1p(np.exp(gap)))
    value = weighted_triplet(jnp.float32(features), labels)
    assert float(value) == pytest.approx(np.mean(expected), rel=1e-5)


def test_distances_of_distant_features_are_exact():
    """Features far from the origin: the squared norms alone would have no correct digit."""
    x, _ = random_batch()
    x = (1e3 + 0.1 * x).astype(np.float32)
    expected = np.linalg.norm(x[:, None].astype(float) - x, axis=2)
    np.testing.assert_allclose(pairwise_distances(x[:4], x), expected[:4], atol=2e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_equals_finite_differences(name):
    """In float64, along a random direction."""
    with jax.enable_x64(True):
        features, labels = random_batch()
        direction = np.random.default_rng(1).normal(size=features.shape)
        (up, _), (down, _) = (LOSSES[name](features + d * direction, labels) for d in (1e-6, -1e-6))
        _, gradient = LOSSES[name](features, labels)
        slope = float(up - down) / 2e-6
    assert (np.asarray(gradient) * direction).sum() == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("features", "labels", "value"),
    [
        (np.zeros((4, 4)), [0, 1, 0, 1], {"weighted": np.log(2)}),  # all rows are equal
        (np.eye(4), [0, 0, 0, 0], dict.fromkeys(LOSSES, 0.0)),  # no negative
        (10 * np.eye(4), [0, 1, 2, 3], {"batch_hard": 0.0, "four_way": 0.0}),  # no positive
    ],
)
def test_no_nan(name, features, labels, value):
    result, gradient = LOSSES[name](jnp.float32(features), jnp.array(labels))
    assert np.isfinite(gradient).all()
    assert np.isfinite(result)
    assert float(result) == pytest.approx(value.get(name, float(result)), abs=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_members_are_independent(name):
    """Two members, vmapped, equal each member alone."""
    (first, labels), (second, _) = random_batch(), random_batch(1)
    members = jnp.float32(np.stack([first, second]))
    for result, *alone in zip(
        jax.tree.leaves(jax.vmap(LOSSES[name], (0, None))(members, labels)),
        *(jax.tree.leaves(LOSSES[name](member, labels)) for member in members),
        strict=True,
    ):
        np.testing.assert_allclose(result, np.stack(alone), rtol=1e-5, atol=1e-6)
