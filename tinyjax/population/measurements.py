"""Measurements on the batches of a population, before training or instead of it."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from tinyjax.core import Split, Task, Variables
from tinyjax.data.sampling import step_key
from tinyjax.population.devices import DeviceLayout, fetch
from tinyjax.population.input_pipeline import batch_at
from tinyjax.population.networks import Network
from tinyjax.population.program import Batched
from tinyjax.population.stack import Population, stack_members
from tinyjax.run.logs import log
from tinyjax.step import frozen_batchnorm
from tinyjax.transfer import regularizers

Members = tuple[Variables, dict, dict]  # variables, hyper and subset of all members, on devices
Pipeline = Callable[..., Iterator[Any]]  # see `make_input_pipeline`


def mean_over_batches(
    measure: Callable[..., Any],
    select: Callable[[str], bool],
    task: Task,
    population: Population,
    members: Members,
    pipeline: Pipeline,
    config: ConfigDict,
    batches: int,
    batched: Batched,
) -> Any:
    """The mean of `measure(loss, params, batch)` over each member's first training batches.

    Args:
        config: the fields that the members share.
        measure: returns a tree of arrays. loss: (params, batch, running_stats=False) -> scalar;
            running_stats: BatchNorm uses its running statistics.
        select: path -> whether a trainable parameter is among `params`.
        batched: see `program.over_members`.
    """

    def measure_member(member, shared):
        (variables, hyper, subset), (data, step) = member, shared
        frozen = frozen_batchnorm(hyper, population.trainable.frozen_batchnorm)
        key = step_key(hyper["seed"], step)

        def loss(params, rows, running_stats=False):
            layers = (path.removesuffix("/mean") for path in variables.stats)
            frozen_layers = dict.fromkeys(layers, True) if running_stats else frozen
            merged = Variables({**variables.params, **params}, variables.stats)
            inputs = merged, frozen_layers, rows, key, {**hyper, "step": step}
            return population.model.loss(*inputs)[0]

        params = {
            path: leaf
            for path, leaf in variables.params.items()
            if path in population.trainable.paths and select(path)
        }
        rows = batch_at(task.sample, data, subset, hyper["seed"], step, config)
        return measure(loss, params, rows)

    measure_members = batched(measure_member)
    accumulate = jax.jit(
        lambda sums, *args: jax.tree.map(jnp.add, sums, measure_members(*args)), donate_argnums=0
    )
    sums = None
    for step, data in zip(range(batches), pipeline(replicated=True), strict=False):
        shared = (data, jnp.int32(step))
        if sums is None:
            zeros = jax.eval_shape(measure_members, members, shared)
            sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), zeros)
        sums = accumulate(sums, members, shared)
    return jax.tree.map(lambda leaf: leaf / batches, fetch(sums))


def batchnorm_estimator(
    config: ConfigDict,
    task: Task,
    population: Population,
    batched: Batched,
    axes: Sequence[str] = (),
) -> Callable[..., Variables]:
    """Return `estimate(members, data, step) -> Variables`, to be called with step = 0, 1, ...

    The running statistics in its result are means over each member's batches up to that step;
    frozen layers keep their statistics. axes: those of the population.
    """

    def estimate_member(member, shared):
        (variables, hyper, subset), (data, step) = member, shared
        rows = batch_at(task.sample, data, subset, hyper["seed"], step, config, axes)
        frozen = frozen_batchnorm(hyper, population.trainable.frozen_batchnorm)
        key, averaging_hyper = (
            step_key(hyper["seed"], step), {**hyper, "step": step, "momentum": 1 / (step + 1)}
        )  # fmt: skip
        _, (stats, _) = population.model.loss(variables, frozen, rows, key, averaging_hyper)
        return variables._replace(stats={path: stats[path] for path in variables.stats})

    program = jax.jit(batched(estimate_member))
    return lambda members, data, step: program(members, (data, jnp.int32(step)))


def regularizer_arrays(
    config: ConfigDict,
    task: Task,
    population: Population,
    members: Members,
    pipeline: Pipeline,
    size: int,
    batched: Batched,
) -> dict[str, np.ndarray]:
    """The arrays that a regularizer needs in `hyper` besides its strength: "start" and
    "importance", vectors over the trainable parameters, [M, parameters] for several members.

    config: the fields that members share. size: of the training set. members, pipeline, batched:
    see `mean_over_batches`.
    """
    name, batches = config.regularizer.name, min(config.regularizer.batches, size // config.batch)
    importance = None
    if name != "l2sp":
        measure = partial(regularizers.measure_importance, name)
        importance = mean_over_batches(
            measure, regularizers.is_regularized, task, population, members, pipeline,
            config, batches, batched,
        )  # fmt: skip
    variables = fetch(members[0])
    paths = [path for path in variables.params if path in population.trainable.paths]
    has_member_axis = np.ndim(members[1]["seed"]) > 0  # a scalar in a single member

    def concatenate(leaves):
        flat = (
            leaf.reshape((len(leaf), -1) if has_member_axis else -1)
            for leaf in map(np.asarray, leaves)
        )
        return np.concatenate([*flat], -1, dtype=np.float32)

    def importance_of(path, leaf):
        if not regularizers.is_regularized(path):
            return np.zeros_like(leaf)
        return np.ones_like(leaf) if importance is None else importance[path]

    params = [variables.params[path] for path in paths]
    importances = [importance_of(path, leaf) for path, leaf in zip(paths, params, strict=True)]
    return {"start": concatenate(params), "importance": concatenate(importances)}


def add_regularizer(
    config: ConfigDict,
    task: Task,
    training: Split,
    networks: Sequence[Network],
    layout: DeviceLayout,
    members: Members,
    pipeline: Pipeline,
    batched: Batched,
) -> Members:
    """Add the arrays of `regularizer_arrays` to `hyper`, if any member has a regularizer."""
    variables, hyper, subset = members
    if "regularizer" not in hyper:
        return members
    # Every device measures on full batches: a mean over per-example gradients is not sharded.
    population = stack_members(networks, task, training)
    log.info(f"regularizer: {config.regularizer.name}, measured before the first step")
    arrays = regularizer_arrays(
        config, task, population, members, pipeline, len(training.names), batched
    )
    regularizer = hyper["regularizer"] | layout.place(arrays)
    return variables, {**hyper, "regularizer": regularizer}, subset
