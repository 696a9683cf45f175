"""The compiled program that trains a population. It reads and writes no files."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from tinyjax import step as steps
from tinyjax.core import Task
from tinyjax.population import wide
from tinyjax.population.devices import DeviceLayout
from tinyjax.population.input_pipeline import batch_at
from tinyjax.population.member_batching import batch_members
from tinyjax.population.stack import Population

Batched = Callable[..., Callable[[Any, Any], Any]]


def over_members(layout: DeviceLayout, method: str, chunk_size: int) -> Batched:
    """Return `batched(function, split_rows=False)`, which turns one member's function into a
    function of all members on their devices, see `batch_members` and `DeviceLayout.shard`.
    """

    def batched(function, split_rows=False):
        return layout.shard(batch_members(function, method, chunk_size), split_rows)

    return batched


def make_training(
    config: ConfigDict,
    task: Task,
    population: Population,
    layout: DeviceLayout,
    batched: Batched,
    method: str = "vmap",
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return `init(variables) -> state` and `train_step(state, data, hyper, subset) -> (state,
    metrics)` of all members.

    config: the fields that the members share. batched: see `over_members`, for `method`.
    """
    o, s = config.optimizer, config.schedule
    tx = steps.make_optimizer(o.name, o.momentum, o.b2, o.clip_norm)
    schedule = steps.make_schedule(
        s.steps, s.warmup, s.decay_start, s.final_lr_scale, s.shape, s.milestones
    )
    gradient = {"value_and_grad": wide.value_and_grad} if method == "wide" else {}
    step = steps.make_step(
        population.model, tx, schedule, population.trainable, layout.axes, **gradient
    )
    auto_rgn = "auto_rgn" in population.hyper

    def member_step(member, data):
        state, hyper, subset = member
        seed, axes = hyper["seed"], layout.axes
        batch = batch_at(task.sample, data, subset, seed, state.step, config, axes)
        return step(state, batch, hyper)

    def train_step(state, data, hyper, subset):
        return batched(member_step)((state, hyper, subset), data)

    def init(variables):
        def init_member(variables, _):
            return steps.init_state(variables, tx, population.trainable, auto_rgn)

        return batched(init_member)(variables, None)

    return init, train_step
