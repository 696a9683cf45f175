"""What a compiler says of a population's program. Nothing is run: devices may be anywhere."""

import re
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from tinyjax.data.sampling import Streamed
from tinyjax.population import program, stack
from tinyjax.population.devices import DATA, DeviceLayout, device_layout
from tinyjax.population.search_space import Member

COLLECTIVE = re.compile(
    r"= .*? (?:all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)
GROUPS = re.compile(r"replica_groups=(?:\{(\{[\d,{} ]*\})?\}|\[(\d+),(\d+)\]<=\[(\d+)\](T\S*)?)")
# Saves a third of the time, of many vmapped members two thirds. The arithmetic is the same, memory
# within 8 %, the bytes moved are a fifth fewer (docs/scaling.md).
MIN_EFFORT = -1.0


class StepCounts(NamedTuple):
    """Of a step on one device."""

    seconds: float  # that compiling took
    flops: float
    moved: float  # bytes to and from its memory
    arguments: int  # bytes: states, hyperparameters, data
    shared: int  # of these what does not grow with members
    scratch: int  # bytes beside them
    within: int  # collectives among the shards of a batch
    across: int  # and among members, of which there should be none

    @property
    def needs(self) -> int:
        return self.arguments + self.scratch


class LoweredStep(NamedTuple):
    """A population's step, ready to be compiled."""

    program: Any
    devices: DeviceLayout
    turns: float  # what a device does, in units of what the compiler counts
    shared: int  # bytes of the data on each device


def lower_step(
    config: ConfigDict,
    members: Sequence[Member],
    kind: ModuleType,
    training: Any,
    devices: Sequence[Any],
    how: str,
    chunk: int = 0,
) -> LoweredStep:
    """The step of a population for these devices, which need not be there.

    Raises UserError as `build.network` and `build.join` do.
    """
    networks = [stack.build_network(config, member, kind, training) for member in members]
    config = stack.member_config(config, members[0])
    spread = device_layout(len(members), config.batch, devices)
    joined = stack.stack_members(networks, kind, training, spread.axes)
    fresh, train_step = program.make_training(config, joined, spread, how, chunk)
    own = spread.described((joined.variables, joined.hyper, joined.data))
    variables, hyper, part = own
    state = jax.tree.map(
        lambda leaf, like: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=like),
        *_with_sharding(jax.eval_shape(fresh, variables), variables),
    )
    if config.data.stream:
        rows = kind.element(training, config)(0, np.random.default_rng(0))
        batch = jax.tree.map(
            lambda leaf: np.broadcast_to(leaf, (config.batch, *np.shape(leaf))), rows
        )
        data: Any = Streamed(spread.described_rows(batch, rows=True))
    else:
        data = spread.described_rows(kind.on_device(training))
    if "regularizer" in hyper:  # what training measures before its first step
        hyper["regularizer"] |= dict.fromkeys(("start", "importance"), state.weights.params.vector)
    jitted = jax.jit(train_step, donate_argnums=0)
    lowered = jitted.trace(state, data, hyper, part).lower()
    at_once = spread.at_once(how, chunk)
    # The compiler counts the body of a loop once, and beside it what a last, smaller chunk takes.
    turns = spread.own / (at_once + spread.own % at_once)
    return LoweredStep(lowered, spread, turns, _bytes(data))


def _with_sharding(state, variables):
    (sharding, *_) = {leaf.sharding for leaf in jax.tree.leaves(variables)}
    return state, jax.tree.map(lambda _: sharding, state)


def _bytes(tree) -> int:
    """On one device."""
    shapes = (leaf.sharding.shard_shape(leaf.shape) for leaf in jax.tree.leaves(tree))
    sizes = (leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
    return sum(int(np.prod(shape)) * size for shape, size in zip(shapes, sizes, strict=True))


def compile_step(lowered: LoweredStep, effort: float = MIN_EFFORT) -> StepCounts:
    """Compile and count. effort: the compiler's, to make the step fast; 0: its usual one. Raises
    what XLA raises where a step does not fit.
    """
    begin = time.perf_counter()
    compiled = lowered.program.compile(compiler_options={"exec_time_optimization_effort": effort})
    seconds = time.perf_counter() - begin
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    within, across = count_collectives(compiled.as_text(), lowered.devices.mesh.shape[DATA])
    return StepCounts(
        seconds,
        cost["flops"] * lowered.turns,
        cost["bytes accessed"] * lowered.turns,
        memory.argument_size_in_bytes,
        lowered.shared,
        memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes,
        within,
        across,
    )


def count_collectives(text: str, shards: int) -> tuple[int, int]:
    """How many operations of a compiled program cross devices: among the shards of a batch, and
    among others. shards: of a batch; they are neighbors.
    """
    within = across = 0
    for line in text.splitlines():
        if not COLLECTIVE.search(line):
            continue
        found = GROUPS.search(line)
        if found and _neighbors(found, shards):
            within += 1
        else:
            across += 1
    return within, across


def _neighbors(found: re.Match, shards: int) -> bool:
    listed, _, size, _, turned = found.groups()
    if size:
        return not turned and shards % int(size) == 0
    groups = re.findall(r"\{([\d,]+)\}", listed or "")
    shared = [{int(n) // shards for n in group.split(",")} for group in groups]
    return bool(groups) and all(len(own) == 1 for own in shared)
