"""Identity loss, consistency of two paths, and the domain heads."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tinyjax.recognition.domain_heads import DomainHeads
from tinyjax.recognition.losses import (
    consistency_loss,
    domain_loss,
    feature_consistency_loss,
    identity_loss,
    pretraining_loss,
)

LABELS = jnp.array([0, 2, 0, 2])
WEIGHTS = {"identity": 1.0, "consistency": 2.0, "feature_consistency": 0.5, "domain": 0.1}


def random_outputs(seed=0, dtype=np.float32):
    random = np.random.default_rng(seed)
    shapes = {"logits": 3, "features": 5, "shallow_domain": 2, "final_domain": 2}
    return {name: random.normal(size=(4, n)).astype(dtype) for name, n in shapes.items()}


def test_identity_loss_equals_optax():
    logits = random_outputs()["logits"]
    targets = optax.smooth_labels(jax.nn.one_hot(LABELS, 3), 0.1)
    expected = optax.softmax_cross_entropy(logits, targets).mean()
    assert float(identity_loss(logits, LABELS, 0.1)) == pytest.approx(float(expected), rel=1e-6)


def test_consistency_by_hand():
    """One pair: KL(p || q) + KL(q || p) = sum (p - q) log(p / q)."""
    p, q = np.array([0.7, 0.2, 0.1]), np.array([0.5, 0.25, 0.25])
    value = consistency_loss(jnp.log(jnp.array([p, q])))
    assert float(value) == pytest.approx(((p - q) * np.log(p / q)).sum() / 2, rel=1e-5)
    assert float(consistency_loss(jnp.zeros((4, 3)))) == 0


def test_feature_consistency_by_hand():
    features = jnp.array([[0.0, 0], [1, 2], [3, 4], [1, 2]])
    assert float(feature_consistency_loss(features)) == (25 + 0) / 2


def test_domain_loss_by_hand():
    """The first half of the rows is domain 0; both terms are sums over the paths."""
    p = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7], [0.5, 0.5]])
    shallow, final = domain_loss(jnp.log(p), jnp.zeros((4, 2)))
    expected = -(np.log([0.9, 0.6]).mean() + np.log([0.7, 0.5]).mean())
    assert float(shallow) == pytest.approx(expected, rel=1e-5)
    assert float(final) == pytest.approx(2 * np.log(2), rel=1e-5)


def test_gradients_equal_finite_differences():
    """In float64, along a random direction, of all terms without a stopped gradient."""
    with jax.enable_x64(True):
        outputs, direction = (random_outputs(seed, np.float64) for seed in (0, 1))
        weights = {name: value for name, value in WEIGHTS.items() if name != "consistency"}

        @jax.jit
        @jax.value_and_grad
        def loss(outputs):
            return pretraining_loss(outputs, LABELS, weights, 0.1)[0]

        def shifted(step):
            return {name: outputs[name] + step * direction[name] for name in outputs}

        slope = (loss(shifted(1e-6))[0] - loss(shifted(-1e-6))[0]) / 2e-6
        gradient = jax.device_get(loss(outputs)[1])
    expected = sum((gradient[name] * direction[name]).sum() for name in outputs)
    assert expected == pytest.approx(float(slope), rel=1e-6)


def test_consistency_stops_the_gradient_of_the_other_path():
    """Its gradient for one path is that of KL(p || q) / 2 with a constant q."""
    with jax.enable_x64(True):
        logits = random_outputs(dtype=np.float64)["logits"]
        first, second = logits[:2], logits[2:]

        def divergence(x, y):
            p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (x, y))
            return (p * np.log(p / q)).sum(1).mean() / 2

        gradient = jax.device_get(jax.grad(consistency_loss)(logits))
        direction = np.random.default_rng(1).normal(size=(2, 3))
        for rows, x, y in ((gradient[:2], first, second), (gradient[2:], second, first)):
            step = 1e-6 * direction
            slope = (divergence(x + step, y) - divergence(x - step, y)) / 2e-6
            assert (rows * direction).sum() == pytest.approx(slope, rel=1e-6)


def test_terms_are_weighted_and_left_out_without_a_weight():
    outputs = random_outputs()
    loss, terms = pretraining_loss(outputs, LABELS, WEIGHTS)
    domain = terms["shallow_domain_loss"] + terms["final_domain_loss"]
    values = [terms[f"{name}_loss"] for name in ("identity", "consistency", "feature_consistency")]
    assert float(loss) == pytest.approx(float(np.array([1, 2, 0.5, 0.1]) @ [*values, domain]))
    # L_idc has a cross-entropy for each path.
    halves = [
        identity_loss(outputs["logits"][rows], LABELS[rows]) for rows in (slice(2), slice(2, 4))
    ]
    assert float(terms["identity_loss"]) == pytest.approx(float(sum(halves)), rel=1e-6)
    logits_only = {"logits": outputs["logits"]}
    loss, terms = pretraining_loss(logits_only, LABELS, {"consistency": jnp.float32(2.0)})
    assert [*terms] == ["consistency_loss"]
    assert float(loss) == pytest.approx(2 * float(values[1]))


def test_members_are_independent():
    """Two members with their own weights, vmapped, equal each member alone."""
    members = [random_outputs(0), random_outputs(1)]
    weights = [WEIGHTS, {**WEIGHTS, "consistency": 0.0, "domain": 1.0}]
    stack = [
        jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees) for trees in (members, weights)
    ]
    values, _ = jax.vmap(lambda outputs, w: pretraining_loss(outputs, LABELS, w))(*stack)
    alone = [
        pretraining_loss(*pair)[0] for pair in zip(members, [LABELS] * 2, weights, strict=True)
    ]
    np.testing.assert_allclose(values, alone, rtol=1e-6)


# ---- domain heads


def make_heads():
    """Feature maps of two blocks, and random parameters of the heads."""
    random = np.random.default_rng(0)
    maps = [random.normal(size=shape).astype(np.float32) for shape in ((4, 6, 3, 8), (4, 3, 2, 10))]
    shapes = {"shallow": (8, 2), "final_hidden": (10, 64), "final": (64, 2)}
    params = {
        name: {"kernel": random.normal(size=shape).astype(np.float32), "bias": np.zeros(shape[1])}
        for name, shape in shapes.items()
    }
    return maps, params


def test_only_the_final_feature_has_a_reversed_gradient():
    """Descent improves the shallow features for their head, and worsens the final ones."""
    maps, params = make_heads()

    @jax.jit
    def losses(shallow, final, strength=0.5):
        return jnp.stack(
            domain_loss(*DomainHeads().apply({"params": params}, shallow, final, strength))
        )

    gradients = jax.grad(lambda *maps: losses(*maps).sum(), (0, 1))(*maps)
    before, after = losses(*maps), losses(*(x - g for x, g in zip(maps, gradients, strict=True)))
    assert after[0] < before[0]
    assert after[1] > before[1]
    not_reversed = jax.grad(lambda x: losses(maps[0], x, -1.0)[1])(maps[1])
    np.testing.assert_allclose(gradients[1], -0.5 * not_reversed, atol=1e-6)


def test_heads_of_padded_features():
    """Channels that are padded with zeros, as are the kernels' rows, do not change the logits."""
    maps, params = make_heads()
    padded = {name: dict(head) for name, head in params.items()}
    for name in ("shallow", "final_hidden"):
        padded[name]["kernel"] = np.pad(params[name]["kernel"], ((0, 3), (0, 0)))
    wide = [np.pad(x, ((0, 0), (0, 0), (0, 0), (0, 3))) for x in maps]
    expected = DomainHeads().apply({"params": params}, *maps, 1.0)
    logits = DomainHeads().apply({"params": padded}, *wide, 1.0)
    for padded_logits, value in zip(logits, expected, strict=True):
        np.testing.assert_allclose(padded_logits, value, atol=1e-5)
