"""Pulls to the starting weights, through the step: by hand, by finite differences, and of no
strength.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.transfer.test_rgn import GRADIENTS, WEIGHTS
from tinyjax.step import Task, Variables, init_state, make_optimizer, make_step
from tinyjax.transfer import regularizers, rgn

PATH = "backbone/stem/kernel"


def stepped(weights, gradient, lr, pulled=None, name="sgd", steps=1):
    """Weights after steps under a loss of constant gradient, and the metrics of the last."""

    def loss(variables, fixed, batch, key, hyper):
        return (gradient * variables.params[PATH]).sum(), ({"m": jnp.zeros(1)}, {})

    tx = make_optimizer(name, 0.0 if name == "sgd" else 0.9, 0.999, 1e9)
    task = Task(None, loss, None, None)
    hyper = {"seed": 0, "lr": lr, "weight_decay": 0.0, "ema": 0.9}
    hyper |= {} if pulled is None else {"regularizer": pulled}
    step = jax.jit(make_step(task, tx, lambda step: 1.0))
    state = init_state(Variables({PATH: weights}, {"m": jnp.zeros(1)}), tx)
    for _ in range(steps):
        state, metrics = step(state, None, hyper)
    return state.variables(state.weights).params[PATH], metrics


def measured(kind):
    """Mean of importances over the two batches of GRADIENTS."""
    found = [
        regularizers.importance(kind, lambda w, g, alone: (g * w[PATH]).sum(), {PATH: WEIGHTS}, g)[
            PATH
        ]
        for g in GRADIENTS
    ]
    return sum(found) / len(found)


def hyper(strength, importance, start):
    vectors = {"start": jnp.ravel(start), "importance": jnp.ravel(importance)}
    return {"strength": jnp.float32(strength), **vectors}


def test_importances_by_hand():
    np.testing.assert_allclose(
        measured("rgn").reshape(2, 2), [[0.5, 0.2], [0.5, 0.2]], rtol=1e-6
    )  # a kernel's, at each of its weights
    np.testing.assert_allclose(measured("ewc").reshape(2, 2), [[0.2, 0.01], [0.2, 0.05]], rtol=1e-6)


def test_fisher_is_of_single_examples():
    """Not the square of a batch's gradient: that of examples which cancel out would be 0."""
    asked = []

    def loss(params, batch, alone):
        asked.append(alone)
        return (batch @ params["w"]).mean()

    batch = jnp.array([[1.0, 2.0], [-1.0, 2.0], [3.0, 0.0]])
    found = regularizers.importance("fisher", loss, {"w": jnp.ones(2)}, batch)["w"]
    np.testing.assert_allclose(found, [(1 + 1 + 9) / 3, (4 + 4 + 0) / 3], rtol=1e-6)
    assert all(asked)


@pytest.mark.parametrize(
    ("rate", "stiffness"), [(0.0025, (0.05, 0.02)), (50.0, (0.02, 0.02))], ids=["free", "capped"]
)
def test_the_authors_pull_by_hand(rate, stiffness):
    importance = measured("rgn")
    found = regularizers.stiffness(jnp.float32(0.1), importance, jnp.float32(rate)).reshape(2, 2)
    np.testing.assert_allclose(found, [stiffness, stiffness], rtol=1e-5)
    start = WEIGHTS - 0.01
    after, _ = stepped(WEIGHTS, GRADIENTS[0], rate, hyper(0.1, importance, start))
    moved = ((WEIGHTS - after) / rate).reshape(2, 2)
    by_hand = GRADIENTS[0].reshape(2, 2) + 0.01 * np.array([stiffness, stiffness])
    np.testing.assert_allclose(moved, by_hand, rtol=1e-3 if rate < 1 else 1e-5)
    if rate < 1:
        np.testing.assert_allclose(by_hand, [[0.1005, 0.0202], [0.3005, -0.0398]], rtol=1e-6)


@pytest.mark.parametrize("kind", ["rgn", "ewc", "fisher", "l2sp"])
@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_at_the_start_nothing_pulls(kind, name):
    importance = jnp.ones_like(WEIGHTS) if kind in ("l2sp", "fisher") else measured(kind)
    plain, _ = stepped(WEIGHTS, GRADIENTS[0], 0.01, name=name)
    found, metrics = stepped(WEIGHTS, GRADIENTS[0], 0.01, hyper(0.1, importance, WEIGHTS), name)
    np.testing.assert_array_equal(found, plain)
    assert float(metrics["regularizer"]) == 0


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_no_strength_changes_nothing(name):
    start = WEIGHTS - 1
    plain, _ = stepped(WEIGHTS, GRADIENTS[0], 0.01, name=name, steps=5)
    found, _ = stepped(WEIGHTS, GRADIENTS[0], 0.01, hyper(0, measured("rgn"), start), name, 5)
    np.testing.assert_array_equal(found, plain)


@pytest.mark.parametrize("kind", ["rgn", "ewc"])
def test_the_strongest_goes_all_the_way_back_and_no_further(kind):
    start, rate = WEIGHTS - 0.3, 0.01
    after, _ = stepped(WEIGHTS, GRADIENTS[0], rate, hyper(1e12, measured(kind), start))
    np.testing.assert_allclose(after, start - rate * GRADIENTS[0], rtol=1e-5)


@pytest.mark.parametrize("kind", ["rgn", "ewc", "l2sp"])
def test_the_pull_is_the_gradient_of_its_penalty(kind):
    """By finite differences, and the same whatever the optimizer does with the loss's gradient."""
    importance = jnp.ones_like(WEIGHTS) if kind == "l2sp" else measured(kind)
    rng = np.random.default_rng(0)
    start = WEIGHTS + jnp.asarray(rng.normal(size=WEIGHTS.shape) * 0.1, jnp.float32)
    rate, strength = 0.001, 0.7
    with jax.enable_x64(True):
        weights, first, own = (np.asarray(x, np.float64) for x in (WEIGHTS, start, importance))
        stiff = regularizers.stiffness(strength, own, rate)
        slope = np.zeros_like(weights)
        for at in np.ndindex(weights.shape):
            ends = [weights.copy(), weights.copy()]
            ends[0][at] += 1e-6
            ends[1][at] -= 1e-6
            up, down = (float(regularizers.penalty(stiff, end, first)) for end in ends)
            slope[at] = (up - down) / 2e-6
    for name in ("sgd", "adamw"):
        plain, _ = stepped(WEIGHTS, GRADIENTS[0], rate, name=name)
        found, _ = stepped(WEIGHTS, GRADIENTS[0], rate, hyper(strength, importance, start), name)
        np.testing.assert_allclose((plain - found) / rate, slope, atol=2e-4)


def test_automatic_rates_in_the_step():
    """Of two kernels that of the larger ratio moves at the full rate, the other at its part."""
    weights = {"a": jnp.full((2, 2), 1.0), "b": jnp.full((2, 2), 4.0), "bias": jnp.ones(2)}

    def loss(variables, fixed, batch, key, hyper):
        return sum(leaf.sum() for leaf in variables.params.values()), ({"m": jnp.zeros(1)}, {})

    tx = make_optimizer("sgd", 0.0, 0.0, 1e9)
    step = jax.jit(make_step(Task(None, loss, None, None), tx, lambda step: 1.0))
    hyper = {"seed": 0, "lr": 0.1, "weight_decay": 0.0, "ema": 0.9, "auto_rgn": jnp.float32(1)}
    state = init_state(Variables(weights, {"m": jnp.zeros(1)}), tx, auto=True)
    state, _ = step(state, None, hyper)
    after = state.variables(state.weights).params
    assert [float(after[n].ravel()[0]) for n in after] == pytest.approx([0.9, 4 - 0.1 / 4, 0.9])
    np.testing.assert_allclose(state.ratios, [1.0, 0.25, np.sqrt(2) / np.sqrt(2)])
    # a second step looks back on both
    state, _ = step(state, None, hyper)
    np.testing.assert_allclose(state.ratios[0], (1 + 1 / 0.9) / 2, rtol=1e-6)
    assert rgn.MEMORY > 2
