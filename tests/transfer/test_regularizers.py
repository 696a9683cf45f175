"""Regularizers toward the starting weights, through the step: by hand, by finite differences, and
with strength 0.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.transfer.test_rgn import GRADIENTS, WEIGHTS
from tinyjax.core import ModelFunctions, Variables
from tinyjax.step import init_state, make_optimizer, make_step
from tinyjax.transfer import regularizers, rgn

PATH = "backbone/stem/kernel"


def train(weights, gradient, lr, regularizer=None, optimizer="sgd", steps=1):
    """Return the weights after steps with a constant gradient, and the metrics of the last step."""

    def loss(variables, frozen_batchnorm, batch, key, hyper):
        return (gradient * variables.params[PATH]).sum(), ({"m": jnp.zeros(1)}, {})

    tx = make_optimizer(optimizer, 0.0 if optimizer == "sgd" else 0.9, 0.999, 1e9)
    functions = ModelFunctions(lambda seed: None, loss, lambda *_: {})
    hyper = {"seed": 0, "lr": lr, "weight_decay": 0.0, "ema": 0.9}
    hyper |= {} if regularizer is None else {"regularizer": regularizer}
    step = jax.jit(make_step(functions, tx, lambda step: 1.0))
    state = init_state(Variables({PATH: weights}, {"m": jnp.zeros(1)}), tx)
    for _ in range(steps):
        state, metrics = step(state, None, hyper)
    return state.variables(state.weights).params[PATH], metrics


def mean_importance(name):
    """Return the mean importance over the two batches of GRADIENTS."""

    def loss(params, gradient, running_stats):
        return (gradient * params[PATH]).sum()

    params = {PATH: WEIGHTS}
    importances = [
        regularizers.measure_importance(name, loss, params, gradient)[PATH]
        for gradient in GRADIENTS
    ]
    return sum(importances) / len(importances)


def regularizer(strength, importance, start):
    vectors = {"start": jnp.ravel(start), "importance": jnp.ravel(importance)}
    return {"strength": jnp.float32(strength), **vectors}


def test_importances_by_hand():
    np.testing.assert_allclose(
        mean_importance("rgn").reshape(2, 2), [[0.5, 0.2], [0.5, 0.2]], rtol=1e-6
    )  # a kernel's value, at each of its weights
    np.testing.assert_allclose(
        mean_importance("ewc").reshape(2, 2), [[0.2, 0.01], [0.2, 0.05]], rtol=1e-6
    )


def test_fisher_uses_the_gradients_of_single_examples():
    """The squared gradient of a batch would be 0 where examples cancel out."""
    single_flags = []

    def loss(params, batch, running_stats):
        single_flags.append(running_stats)
        return (batch @ params["w"]).mean()

    batch = jnp.array([[1.0, 2.0], [-1.0, 2.0], [3.0, 0.0]])
    importance = regularizers.measure_importance("fisher", loss, {"w": jnp.ones(2)}, batch)["w"]
    np.testing.assert_allclose(importance, [(1 + 1 + 9) / 3, (4 + 4 + 0) / 3], rtol=1e-6)
    assert all(single_flags)


@pytest.mark.parametrize(
    ("lr", "stiffness"), [(0.0025, (0.05, 0.02)), (50.0, (0.02, 0.02))], ids=["free", "capped"]
)
def test_rgn_regularizer_by_hand(lr, stiffness):
    importance = mean_importance("rgn")
    actual = regularizers.penalty_coefficients(
        jnp.float32(0.1), importance, jnp.float32(lr)
    ).reshape(2, 2)
    np.testing.assert_allclose(actual, [stiffness, stiffness], rtol=1e-5)
    start = WEIGHTS - 0.01
    weights, _ = train(WEIGHTS, GRADIENTS[0], lr, regularizer(0.1, importance, start))
    update = ((WEIGHTS - weights) / lr).reshape(2, 2)
    expected = GRADIENTS[0].reshape(2, 2) + 0.01 * np.array([stiffness, stiffness])
    np.testing.assert_allclose(update, expected, rtol=1e-3 if lr < 1 else 1e-5)
    if lr < 1:
        np.testing.assert_allclose(expected, [[0.1005, 0.0202], [0.3005, -0.0398]], rtol=1e-6)


@pytest.mark.parametrize("name", ["rgn", "ewc", "fisher", "l2sp"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_regularizer_is_zero_at_the_start(name, optimizer):
    importance = jnp.ones_like(WEIGHTS) if name in ("l2sp", "fisher") else mean_importance(name)
    expected, _ = train(WEIGHTS, GRADIENTS[0], 0.01, optimizer=optimizer)
    regularized = regularizer(0.1, importance, WEIGHTS)
    weights, metrics = train(WEIGHTS, GRADIENTS[0], 0.01, regularized, optimizer)
    np.testing.assert_array_equal(weights, expected)
    assert float(metrics["regularizer"]) == 0


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_strength_zero_changes_nothing(optimizer):
    expected, _ = train(WEIGHTS, GRADIENTS[0], 0.01, optimizer=optimizer, steps=5)
    regularized = regularizer(0, mean_importance("rgn"), WEIGHTS - 1)
    weights, _ = train(WEIGHTS, GRADIENTS[0], 0.01, regularized, optimizer, 5)
    np.testing.assert_array_equal(weights, expected)


@pytest.mark.parametrize("name", ["rgn", "ewc"])
def test_strong_regularizer_returns_to_the_start_without_overshooting(name):
    start, lr = WEIGHTS - 0.3, 0.01
    strong = regularizer(1e12, mean_importance(name), start)
    weights, _ = train(WEIGHTS, GRADIENTS[0], lr, strong)
    np.testing.assert_allclose(weights, start - lr * GRADIENTS[0], rtol=1e-5)


@pytest.mark.parametrize("name", ["rgn", "ewc", "l2sp"])
def test_regularizer_is_the_gradient_of_its_penalty(name):
    """By finite differences, with every optimizer: the regularizer is decoupled from it."""
    importance = jnp.ones_like(WEIGHTS) if name == "l2sp" else mean_importance(name)
    rng = np.random.default_rng(0)
    start = WEIGHTS + jnp.asarray(rng.normal(size=WEIGHTS.shape) * 0.1, jnp.float32)
    lr, strength = 0.001, 0.7
    with jax.enable_x64(True):
        arrays = (WEIGHTS, start, importance)
        weights64, start64, importance64 = (np.asarray(x, np.float64) for x in arrays)
        stiffness = regularizers.penalty_coefficients(strength, importance64, lr)
        gradient = np.zeros_like(weights64)
        for index in np.ndindex(weights64.shape):
            ends = [weights64.copy(), weights64.copy()]
            ends[0][index] += 1e-6
            ends[1][index] -= 1e-6
            up, down = (float(regularizers.penalty(stiffness, end, start64)) for end in ends)
            gradient[index] = (up - down) / 2e-6
    for optimizer in ("sgd", "adamw"):
        free, _ = train(WEIGHTS, GRADIENTS[0], lr, optimizer=optimizer)
        regularized = regularizer(strength, importance, start)
        weights, _ = train(WEIGHTS, GRADIENTS[0], lr, regularized, optimizer)
        np.testing.assert_allclose((free - weights) / lr, gradient, atol=2e-4)


def test_auto_rgn_in_the_step():
    """The kernel with the largest ratio trains at the full rate, the other at its fraction."""
    kernels = {
        f"{name}/kernel": jnp.full((2, 2), value) for name, value in (("a", 1.0), ("b", 4.0))
    }
    params = {**kernels, "bias": jnp.ones(2)}

    def loss(variables, frozen_batchnorm, batch, key, hyper):
        return sum(leaf.sum() for leaf in variables.params.values()), ({"m": jnp.zeros(1)}, {})

    tx = make_optimizer("sgd", 0.0, 0.0, 1e9)
    functions = ModelFunctions(lambda seed: None, loss, lambda *_: {})
    step = jax.jit(make_step(functions, tx, lambda step: 1.0))
    hyper = {"seed": 0, "lr": 0.1, "weight_decay": 0.0, "ema": 0.9, "auto_rgn": jnp.float32(1)}
    state = init_state(Variables(params, {"m": jnp.zeros(1)}), tx, auto_rgn=True)
    state, _ = step(state, None, hyper)
    updated = state.variables(state.weights).params
    values = [float(updated[path].ravel()[0]) for path in updated]
    assert values == pytest.approx([0.9, 4 - 0.1 / 4, 0.9])
    np.testing.assert_allclose(state.gradient_ratios, [1.0, 0.25, np.sqrt(2) / np.sqrt(2)])
    # The second step averages the ratios of both.
    state, _ = step(state, None, hyper)
    np.testing.assert_allclose(state.gradient_ratios[0], (1 + 1 / 0.9) / 2, rtol=1e-6)
    assert rgn.AVERAGING_STEPS > 2
