"""The program that trains a population: what is compiled, and nothing that is read or written."""

from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from tinyjax import step as steps
from tinyjax.data.sampling import batch_at
from tinyjax.population.devices import Layout
from tinyjax.population.member_batching import lift
from tinyjax.population.stack import Joined


def lifted(devices: Layout, how: str, chunk: int) -> Callable[..., Callable[[Any, Any], Any]]:
    """What makes one member's function one of many members on devices, see `lift` and
    `Layout.shard`.
    """

    def of(one, split=False):
        return devices.shard(lift(one, how, chunk), split)

    return of


def training(
    config: ConfigDict, joined: Joined, devices: Layout, how: str, chunk: int
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`fresh(variables) -> state` and `train_step(state, data, hyper, part) -> (state, metrics)` of
    all members. config: what they share of it.
    """
    o, s = config.optimizer, config.schedule
    tx = steps.make_optimizer(o.name, o.momentum, o.b2, o.clip)
    schedule = steps.make_schedule(s.steps, s.warmup, s.flat, s.end, s.shape)
    step = steps.make_step(joined.task, tx, schedule, joined.moving, devices.axes)
    over_members, auto = lifted(devices, how, chunk), "auto_rgn" in joined.hyper

    def member_step(own, data):
        state, hyper, part = own
        batch = batch_at(data, part, hyper["seed"], state.step, config.batch, devices.axes)
        return step(state, batch, hyper)

    def train_step(state, data, hyper, part):
        return over_members(member_step)((state, hyper, part), data)

    def fresh(variables):
        def first(variables, _):
            return steps.init_state(variables, tx, joined.moving, auto)

        return over_members(first)(variables, None)

    return fresh, train_step
