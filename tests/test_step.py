"""The training step of a linear model, compared with optax and numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tinyjax.core import ModelFunctions, Variables
from tinyjax.errors import UserError
from tinyjax.step import init_state, make_optimizer, make_schedule, make_step

HYPER = {"seed": 0, "lr": 0.1, "weight_decay": 0.01, "ema": 0.9}


def loss(variables, frozen_batchnorm, batch, key, hyper):
    x, y = batch
    error = x @ variables.params["kernel"] + variables.params["bias"] - y
    stats = {"mean": 0.5 * variables.stats["mean"] + 0.5 * x.mean()}
    return (error**2).mean(), (stats, {"error": jnp.abs(error).mean()})


def init(seed):
    w = jax.random.normal(jax.random.key(seed), (3, 1))
    return Variables({"kernel": w, "bias": jnp.zeros(1)}, {"mean": jnp.float32(0)})


MODEL = ModelFunctions(init, loss, lambda *_: {})


def random_batch(seed=0):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 1))
    return jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)


def train(tx, steps, hyper=HYPER):
    """The state after `steps` steps at a constant learning rate, and the metrics of the last."""
    step = jax.jit(make_step(MODEL, tx, lambda step: 1.0))
    state, metrics = init_state(MODEL.init(0), tx), None
    for i in range(steps):
        state, metrics = step(state, random_batch(i), hyper)
    return state, metrics


def assert_equals_optax(state, tx):
    """Compare the parameters after five steps with those of an optimizer of optax."""
    params, stats = init(0)
    opt_state = tx.init(params)
    for i in range(5):
        batch = random_batch(i)
        gradient = jax.grad(lambda p, b=batch: loss(Variables(p, stats), {}, b, None, None)[0])(
            params
        )
        update, opt_state = tx.update(gradient, opt_state, params)
        params = optax.apply_updates(params, update)
    trained = state.variables(state.weights).params
    for name in params:
        np.testing.assert_allclose(trained[name], params[name], rtol=1e-5)


def test_adamw_equals_optax_adamw():
    state, _ = train(make_optimizer("adamw", 0.9, 0.999, 1e9), 5)
    assert_equals_optax(
        state, optax.adamw(0.1, weight_decay=0.01, mask={"kernel": True, "bias": False})
    )


@pytest.mark.parametrize("name", ["sgd", "nesterov"])
def test_sgd_equals_optax_sgd(name):
    state, _ = train(make_optimizer(name, 0.9, 0.0, 0), 5, hyper={**HYPER, "weight_decay": 0.0})
    assert_equals_optax(state, optax.sgd(0.1, 0.9, nesterov=name == "nesterov"))


def test_sgd_with_clipping_equals_numpy():
    state, metrics = train(
        make_optimizer("sgd", 0.0, 0.0, 0.5), 1, hyper={**HYPER, "weight_decay": 0.0}
    )
    params, stats = init(0)
    batch = random_batch(0)
    gradient = jax.grad(lambda p: loss(Variables(p, stats), {}, batch, None, None)[0])(params)
    norm = float(optax.tree.norm(gradient))
    assert norm > 0.5
    assert float(metrics["gradient_norm"]) == pytest.approx(norm, rel=1e-5)
    trained = state.variables(state.weights).params["kernel"]
    np.testing.assert_allclose(
        trained, params["kernel"] - 0.1 * gradient["kernel"] * 0.5 / norm, rtol=1e-4
    )


def test_ema_averages_parameters_and_statistics():
    state, _ = train(make_optimizer("sgd", 0.0, 0.0, 1e9), 1)
    params, _ = init(0)
    new, ema = state.variables(state.weights), state.variables(state.ema)
    decay = 0.1  # (1 + 0) / (10 + 0), that of the first step
    expected = decay * params["kernel"] + (1 - decay) * new.params["kernel"]
    np.testing.assert_allclose(ema.params["kernel"], expected, rtol=1e-5)
    np.testing.assert_allclose(ema.stats["mean"], (1 - decay) * new.stats["mean"], rtol=1e-5)


def test_cosine_schedule():
    schedule = make_schedule(steps=100, warmup=10, decay_start=0.5, final_lr_scale=0.1)
    multipliers = [float(schedule(jnp.int32(s))) for s in (0, 4, 9, 30, 50, 75, 100)]
    np.testing.assert_allclose(multipliers, [0.1, 0.5, 1, 1, 1, 0.55, 0.1], rtol=1e-5)


def test_linear_schedule():
    schedule = make_schedule(
        steps=100, warmup=10, decay_start=0.0, final_lr_scale=0.0, shape="linear"
    )
    multipliers = [float(schedule(jnp.int32(s))) for s in (0, 9, 10, 55, 100)]
    np.testing.assert_allclose(multipliers, [0.1, 1, 1, 0.5, 0], atol=1e-6)
    with pytest.raises(UserError, match=r"schedule\.shape = 'linaer': did you mean 'linear'"):
        make_schedule(100, 10, 0.0, 0.0, "linaer")


def test_schedule_of_steps():
    """AGW's, of 80 epochs: 10 of warm-up, then a tenth after 20 and again after 50."""
    schedule = make_schedule(80, 10, 0.0, 0.0, "steps", milestones=(0.25, 0.625))
    multipliers = [float(schedule(jnp.int32(s))) for s in (0, 9, 19, 20, 49, 50, 79)]
    np.testing.assert_allclose(multipliers, [0.1, 1, 1, 0.1, 0.1, 0.01, 0.01], rtol=1e-5)


def test_diverged_member_is_kept_as_it_was_and_records_the_step():
    tx = make_optimizer("adamw", 0.9, 0.999, 1.0)
    step = jax.jit(make_step(MODEL, tx, lambda step: 1.0))
    before, _ = train(tx, 3)
    x, y = random_batch(3)
    diverged, _ = step(before, (x.at[0, 0].set(jnp.nan), y), HYPER)
    assert int(diverged.diverged_at) == 3
    later, _ = step(diverged, random_batch(4), HYPER)
    assert int(later.diverged_at) == 3
    assert int(later.step) == 5
    for name in ("weights", "opt_state", "ema"):
        leaves = (jax.tree.leaves(getattr(state, name)) for state in (before, later))
        for old, new in zip(*leaves, strict=True):
            np.testing.assert_array_equal(old, new)


def test_random_keys_depend_on_seed_and_step():
    keys = []

    def recording_loss(variables, frozen_batchnorm, batch, key, hyper):
        keys.append(jax.random.key_data(key))
        return loss(variables, frozen_batchnorm, batch, key, hyper)

    tx = make_optimizer("sgd", 0.9, 0.0, 1.0)
    step = make_step(MODEL._replace(loss=recording_loss), tx, lambda step: 1.0)
    state = init_state(MODEL.init(0), tx)
    for number, seed in ((0, 0), (1, 0), (0, 1), (0, 0)):
        step(state._replace(step=jnp.int32(number)), random_batch(), {**HYPER, "seed": seed})
    assert len({tuple(np.asarray(k).tolist()) for k in map(jax.lax.stop_gradient, keys)}) == 3
