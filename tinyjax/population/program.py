"""The program that trains a population: what is compiled, and nothing that is read or written."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from tinyjax import step as steps
from tinyjax.data.sampling import batch_at
from tinyjax.population.devices import DeviceLayout
from tinyjax.population.member_batching import batch_members
from tinyjax.population.stack import Population


def over_members(
    devices: DeviceLayout, how: str, chunk: int
) -> Callable[..., Callable[[Any, Any], Any]]:
    """What makes one member's function one of many members on devices, see `lift` and
    `Layout.shard`.
    """

    def of(one, split=False):
        return devices.shard(batch_members(one, how, chunk), split)

    return of


def make_training(
    config: ConfigDict, joined: Population, devices: DeviceLayout, how: str, chunk: int
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`fresh(variables) -> state` and `train_step(state, data, hyper, part) -> (state, metrics)` of
    all members. config: what they share of it.
    """
    o, s = config.optimizer, config.schedule
    tx = steps.make_optimizer(o.name, o.momentum, o.b2, o.clip_norm)
    schedule = steps.make_schedule(s.steps, s.warmup, s.decay_start, s.final_lr_scale, s.shape)
    step = steps.make_step(joined.task, tx, schedule, joined.moving, devices.axes)
    batched, auto = over_members(devices, how, chunk), "auto_rgn" in joined.hyper

    def member_step(own, data):
        state, hyper, part = own
        batch = batch_at(data, part, hyper["seed"], state.step, config.batch, devices.axes)
        return step(state, batch, hyper)

    def train_step(state, data, hyper, part):
        return batched(member_step)((state, hyper, part), data)

    def fresh(variables):
        def first(variables, _):
            return steps.init_state(variables, tx, joined.moving, auto)

        return batched(first)(variables, None)

    return fresh, train_step
