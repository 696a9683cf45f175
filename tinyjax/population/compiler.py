"""Compile a population's step and read its costs. Nothing runs, so devices may be absent."""

import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from tinyjax.core import Split, Task
from tinyjax.data.sampling import StreamedBatch
from tinyjax.population.devices import DATA, DeviceLayout, device_layout
from tinyjax.population.input_pipeline import resident_data
from tinyjax.population.networks import build_network, member_config
from tinyjax.population.program import make_training, over_members
from tinyjax.population.search_space import Member
from tinyjax.population.stack import stack_members
from tinyjax.population.tiling import Operation, read_operations

COLLECTIVE = re.compile(
    r"= .*? (?:all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)
REPLICA_GROUPS = re.compile(
    r"replica_groups=(?:\{(\{[\d,{} ]*\})?\}|\[(\d+),(\d+)\]<=\[(\d+)\](T\S*)?)"
)
# Saves a third of the compile time, and two thirds for many vmapped members. The program has the
# same arithmetic, memory within 8 %, and moves a fifth fewer bytes (docs/scaling.md).
MIN_EFFORT = -1.0


class StepCounts(NamedTuple):
    """Costs of a step on one device, as the compiler counts them."""

    compile_seconds: float
    flops: float
    bytes_moved: float  # to and from the device's memory
    argument_bytes: int  # states, hyperparameters, data
    shared_bytes: int  # the arguments that do not grow with the number of members
    scratch_bytes: int
    collectives_within: int  # between the shards of a batch
    collectives_across: int  # between members; should be 0
    operations: Sequence[Operation] = ()  # of a TPU, with the arrays that they move

    @property
    def memory(self) -> int:
        return self.argument_bytes + self.scratch_bytes


class LoweredStep(NamedTuple):
    """A population's step, ready to be compiled."""

    program: Any
    layout: DeviceLayout
    repeats: float  # executed operations per operation that the compiler counts
    shared_bytes: int  # bytes of data on each device


def lower_step(
    config: ConfigDict,
    members: Sequence[Member],
    task: Task,
    training: Split,
    devices: Sequence[Any],
    method: str,
    chunk_size: int = 0,
) -> LoweredStep:
    """Lower the step of a population for `devices`, which may be absent.

    Raises UserError as `build_network` and `stack_members` do.
    """
    networks = [build_network(config, member, task, training) for member in members]
    config = member_config(config, members[0])
    layout = device_layout(len(members), config.batch, devices)
    population = stack_members(networks, task, training, layout.axes)
    batched = over_members(layout, method, chunk_size)
    init, train_step = make_training(config, task, population, layout, batched, method)
    variables, hyper, subset = layout.abstract(
        (population.variables, population.hyper, population.subset)
    )
    (sharding, *_) = {leaf.sharding for leaf in jax.tree.leaves(variables)}
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(init, variables),
    )
    data = _abstract_data(config, task, training, layout)
    if "regularizer" in hyper:  # the vectors that training measures before its first step
        vector = state.weights.params.vector
        hyper["regularizer"] |= dict.fromkeys(("start", "importance"), vector)
    lowered = jax.jit(train_step, donate_argnums=0).trace(state, data, hyper, subset).lower()
    concurrent = layout.concurrent_members(method, chunk_size)
    # The compiler counts the body of a loop once, and once more for a last, smaller chunk.
    repeats = layout.members_per_device / (concurrent + layout.members_per_device % concurrent)
    return LoweredStep(lowered, layout, repeats, _bytes_per_device(data))


def _abstract_data(config: ConfigDict, task: Task, training: Split, layout: DeviceLayout) -> Any:
    if not config.data.stream:
        return layout.abstract_shared(resident_data(task, training, layout.platform))
    sample = task.stream_source(training, config)(0, np.random.default_rng(0))
    batch = jax.tree.map(
        lambda leaf: np.broadcast_to(leaf, (config.batch, *np.shape(leaf))), sample
    )
    return StreamedBatch(layout.abstract_shared(batch, rows=True))


def _bytes_per_device(tree) -> int:
    leaves = jax.tree.leaves(tree)
    shapes = (leaf.sharding.shard_shape(leaf.shape) for leaf in leaves)
    return sum(
        int(np.prod(shape)) * leaf.dtype.itemsize
        for shape, leaf in zip(shapes, leaves, strict=True)
    )


def compile_step(lowered: LoweredStep, effort: float = MIN_EFFORT) -> StepCounts:
    """Compile a step and count its costs. Raises XLA's error if the step does not fit.

    effort: how hard the compiler optimizes the step for speed; 0 is its default.
    """
    start = time.perf_counter()
    compiled = lowered.program.compile(compiler_options={"exec_time_optimization_effort": effort})
    compile_seconds = time.perf_counter() - start
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    text, layout = compiled.as_text(), lowered.layout
    within, across = count_collectives(text, layout.mesh.shape[DATA])
    return StepCounts(
        compile_seconds,
        cost["flops"] * lowered.repeats,
        cost["bytes accessed"] * lowered.repeats,
        memory.argument_size_in_bytes,
        lowered.shared_bytes,
        memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        within,
        across,
        read_operations(text) if layout.platform == "tpu" else (),
    )


def count_collectives(hlo: str, shards: int) -> tuple[int, int]:
    """Count a compiled program's collectives between the shards of a batch, and between members.

    shards: number of shards of a batch, which are neighboring devices.
    """
    within = across = 0
    for line in hlo.splitlines():
        if not COLLECTIVE.search(line):
            continue
        groups = REPLICA_GROUPS.search(line)
        if groups and _are_neighbors(groups, shards):
            within += 1
        else:
            across += 1
    return within, across


def _are_neighbors(match: re.Match, shards: int) -> bool:
    """Return whether each replica group lies within the shards of one batch."""
    listed, _, size, _, transposed = match.groups()
    if size:
        return not transposed and shards % int(size) == 0
    groups = re.findall(r"\{([\d,]+)\}", listed or "")
    members = [{int(n) // shards for n in group.split(",")} for group in groups]
    return bool(groups) and all(len(group) == 1 for group in members)
