"""The training step of a task: over members, and in bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.configs import classifier, detector
from tinyjax import step as steps
from tinyjax.data.records import ClassificationSplit
from tinyjax.data.synthetic import dataset
from tinyjax.population.networks import input_shapes
from tinyjax.population.stack import hyper_arrays, stack_trees
from tinyjax.tasks import get_task


def four_images(task):
    if task == "detect":
        return dataset.load(4, (64, 64), seed=3)
    images = np.random.default_rng(3).integers(0, 256, (4, 32, 32, 1), np.uint8)
    return ClassificationSplit({"image": images}, np.array([0, 1, 1, 0]), (*"abcd",), ("a", "b"))


def prepare(task, dtype="float32", optimizer="sgd", lr=0.01):
    """The model, its optimizer, its step, the hyperparameters, and a batch of four images."""
    config = {"classify": classifier, "detect": detector}[task].get_config()
    config.model.dtype = dtype
    split, task = four_images(task), get_task(task)
    model = task.model_functions(config, split.classes, input_shapes(split))
    tx = steps.make_optimizer(optimizer, 0.9, 0.999, 10.0)
    step = steps.make_step(model, tx, lambda step: 1.0)
    config.optimizer.lr, config.optimizer.weight_decay = lr, 0.0
    return model, tx, step, hyper_arrays(config), task.device_arrays(split)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["classify", "detect"])
def test_vmapped_step_equals_the_steps_of_its_members(task):
    """Two members that differ in seed and learning rate, up to the rounding of float32."""
    model, tx, step, hyper, batch = prepare(task)
    states = [steps.init_state(model.init(seed), tx) for seed in (0, 1)]
    hypers = [{**hyper, "seed": jnp.int32(s), "lr": jnp.float32(0.01 * (s + 1))} for s in (0, 1)]
    vmapped = jax.jit(jax.vmap(step, in_axes=(0, None, 0)))
    stacked_state, stacked_metrics = vmapped(stack_trees(states), batch, stack_trees(hypers))
    step = jax.jit(step)
    for i in (0, 1):
        state, metrics = step(states[i], batch, hypers[i])
        assert float(stacked_metrics["loss"][i]) == pytest.approx(float(metrics["loss"]), rel=1e-4)
        before, after, stacked = (
            s.variables(s.weights).params for s in (states[i], state, stacked_state)
        )
        for path, value in after.items():
            change = np.abs(value - before[path]).max()
            np.testing.assert_allclose(stacked[path][i], value, atol=0.02 * change + 1e-6)


@pytest.mark.slow
def test_bfloat16_trains_with_float32_weights_and_losses():
    model, tx, step, hyper, batch = prepare("detect", "bfloat16", "adamw", 3e-3)
    state = steps.init_state(model.init(0), tx)
    step = jax.jit(step)
    assert "bf16" in step.lower(state, batch, hyper).as_text()
    losses = []
    for _ in range(40):
        # Step 0 each time: the same augmented views.
        state, metrics = step(state._replace(step=jnp.int32(0)), batch, hyper)
        losses.append(float(metrics["loss"]))
    assert metrics["loss"].dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(state.weights)} == {jnp.dtype("float32")}
    assert losses[-1] < 0.8 * losses[0]
