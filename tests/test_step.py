"""The member step on a linear model, against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tinyjax.errors import UserError
from tinyjax.step import Task, Variables, init_state, make_optimizer, make_schedule, make_step

HYPER = {"seed": 0, "lr": 0.1, "weight_decay": 0.01, "ema": 0.9}


def loss(variables, fixed, batch, key, hyper):
    x, y = batch
    error = x @ variables.params["w"] + variables.params["b"] - y
    stats = {"mean": 0.5 * variables.stats["mean"] + 0.5 * x.mean()}
    return (error**2).mean(), (stats, {"error": jnp.abs(error).mean()})


def init(seed):
    w = jax.random.normal(jax.random.key(seed), (3, 1))
    return Variables({"w": w, "b": jnp.zeros(1)}, {"mean": jnp.float32(0)})


TASK = Task(init, loss, lambda *_: None, lambda *_: [])


def data(seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(8, 3)), jnp.float32), jnp.asarray(
        rng.normal(size=(8, 1)), jnp.float32
    )


def run(tx, steps, batch=None, hyper=HYPER, schedule=lambda step: 1.0):
    step = jax.jit(make_step(TASK, tx, schedule))
    state, metrics = init_state(TASK.init(0), tx), None
    for i in range(steps):
        state, metrics = step(state, batch or data(i), hyper)
    return state, metrics


def check_is(state, tx):
    """After five steps its parameters are those of an optimizer of optax."""
    params, stats = init(0)
    moments = tx.init(params)
    for i in range(5):
        batch = data(i)
        slope = jax.grad(lambda p, b=batch: loss(Variables(p, stats), {}, b, None, None)[0])(params)
        update, moments = tx.update(slope, moments, params)
        params = optax.apply_updates(params, update)
    got = state.variables(state.weights).params
    for name in params:
        np.testing.assert_allclose(got[name], params[name], rtol=1e-5)


def test_adamw_is_optax_adamw():
    state, _ = run(make_optimizer("adamw", 0.9, 0.999, 1e9), 5)
    check_is(state, optax.adamw(0.1, weight_decay=0.01, mask={"w": True, "b": False}))


@pytest.mark.parametrize("name", ["sgd", "nesterov"])
def test_sgd_is_optax_sgd(name):
    state, _ = run(make_optimizer(name, 0.9, 0.0, 0), 5, hyper={**HYPER, "weight_decay": 0.0})
    check_is(state, optax.sgd(0.1, 0.9, nesterov=name == "nesterov"))


def test_sgd_with_clipping_by_hand():
    state, metrics = run(
        make_optimizer("sgd", 0.0, 0.0, 0.5), 1, hyper={**HYPER, "weight_decay": 0.0}
    )
    params, stats = init(0)
    slope = jax.grad(lambda p: loss(Variables(p, stats), {}, data(0), None, None)[0])(params)
    norm = float(optax.tree.norm(slope))
    assert norm > 0.5
    assert float(metrics["gradient_norm"]) == pytest.approx(norm, rel=1e-5)
    got = state.variables(state.weights).params["w"]
    np.testing.assert_allclose(got, params["w"] - 0.1 * slope["w"] * 0.5 / norm, rtol=1e-4)


def test_the_average_follows_parameters_and_statistics():
    state, _ = run(make_optimizer("sgd", 0.0, 0.0, 1e9), 1)
    params, _ = init(0)
    now, ema = state.variables(state.weights), state.variables(state.ema)
    keep = 0.1  # (1 + 0) / (10 + 0), the first step's
    np.testing.assert_allclose(
        ema.params["w"], keep * params["w"] + (1 - keep) * now.params["w"], rtol=1e-5
    )
    np.testing.assert_allclose(ema.stats["mean"], (1 - keep) * now.stats["mean"], rtol=1e-5)


def test_schedule():
    schedule = make_schedule(steps=100, warmup=10, flat=0.5, end=0.1)
    got = [float(schedule(jnp.int32(s))) for s in (0, 4, 9, 30, 50, 75, 100)]
    np.testing.assert_allclose(got, [0.1, 0.5, 1, 1, 1, 0.55, 0.1], rtol=1e-5)


def test_a_linear_schedule():
    schedule = make_schedule(steps=100, warmup=10, flat=0.0, end=0.0, shape="linear")
    got = [float(schedule(jnp.int32(s))) for s in (0, 9, 10, 55, 100)]
    np.testing.assert_allclose(got, [0.1, 1, 1, 0.5, 0], atol=1e-6)
    with pytest.raises(UserError, match=r"schedule\.shape = 'linaer': did you mean 'linear'"):
        make_schedule(100, 10, 0.0, 0.0, "linaer")


def test_a_diverged_member_is_held_and_says_when():
    tx = make_optimizer("adamw", 0.9, 0.999, 1.0)
    step = jax.jit(make_step(TASK, tx, lambda step: 1.0))
    before, _ = run(tx, 3)
    x, y = data(3)
    after, _ = step(before, (x.at[0, 0].set(jnp.nan), y), HYPER)
    assert int(after.diverged_at) == 3
    later, _ = step(after, data(4), HYPER)
    assert int(later.diverged_at) == 3
    assert int(later.step) == 5
    for name in ("weights", "moments", "ema"):
        for old, new in zip(
            *(jax.tree.leaves(getattr(s, name)) for s in (before, later)), strict=True
        ):
            np.testing.assert_array_equal(old, new)


def test_draws_are_of_seed_and_step():
    keys = []

    def spy(variables, fixed, batch, key, hyper):
        keys.append(jax.random.key_data(key))
        return loss(variables, fixed, batch, key, hyper)

    tx = make_optimizer("sgd", 0.9, 0.0, 1.0)
    step = make_step(TASK._replace(loss=spy), tx, lambda step: 1.0)
    state = init_state(TASK.init(0), tx)
    for at, seed in ((0, 0), (1, 0), (0, 1), (0, 0)):
        step(state._replace(step=jnp.int32(at)), data(), {**HYPER, "seed": seed})
    assert len({tuple(np.asarray(k).tolist()) for k in map(jax.lax.stop_gradient, keys)}) == 3
