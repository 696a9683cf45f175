"""The detection task as a whole: its step vmaps over members, and bfloat16 trains."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.configs import detector
from tinyjax import step as steps
from tinyjax import tasks
from tinyjax.data.synthetic import dataset
from tinyjax.tasks import detect


def prepared(dtype="float32", optimizer="sgd", lr=0.01):
    config = detector.get_config()
    config.model.dtype = dtype
    split = dataset.load(4, (64, 64), seed=3)
    task = detect.make_task(config, split.classes, channels=1)
    tx = steps.make_optimizer(optimizer, 0.9, 0.999, 10.0)
    step = steps.make_step(task, tx, lambda step: 1.0)
    config.optimizer.lr, config.optimizer.weight_decay = lr, 0.0
    return task, tx, step, tasks.hyper_of(config), detect.on_device(split)


def test_the_step_vmaps_over_members():
    """Two seeds and learning rates in one program are the two alone, to float32's rounding."""
    task, tx, step, hyper, batch = prepared()
    states = [steps.init_state(task.init(seed), tx) for seed in (0, 1)]
    hypers = [{**hyper, "seed": jnp.int32(s), "lr": jnp.float32(0.01 * (s + 1))} for s in (0, 1)]
    stack = lambda *xs: jnp.stack(xs)  # noqa: E731
    packed = jax.jit(jax.vmap(step, in_axes=(0, None, 0)))(
        jax.tree.map(stack, *states), batch, jax.tree.map(stack, *hypers)
    )
    alone = jax.jit(step)
    for i in (0, 1):
        state, metrics = alone(states[i], batch, hypers[i])
        assert float(packed[1]["loss"][i]) == pytest.approx(float(metrics["loss"]), rel=1e-4)
        before, after, both = (s.variables(s.weights).params for s in (states[i], state, packed[0]))
        for path, value in after.items():
            moved = np.abs(value - before[path]).max()
            np.testing.assert_allclose(both[path][i], value, atol=0.02 * moved + 1e-6)


@pytest.mark.slow
def test_bfloat16_trains_with_float32_weights_and_losses():
    task, tx, step, hyper, batch = prepared("bfloat16", "adamw", 3e-3)
    state = steps.init_state(task.init(0), tx)
    step = jax.jit(step)
    assert "bf16" in step.lower(state, batch, hyper).as_text()
    losses = []
    for _ in range(40):
        state, metrics = step(state._replace(step=jnp.int32(0)), batch, hyper)  # the same views
        losses.append(float(metrics["loss"]))
    assert metrics["loss"].dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(state.weights)} == {jnp.dtype("float32")}
    assert losses[-1] < 0.8 * losses[0]
