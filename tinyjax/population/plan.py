"""Plan which members share a program.

Members of a population may differ in numbers, which become arrays, and in widths and depths, which
are zero-padded; members that differ in anything else get separate populations. The widest member
makes all others of its population more expensive, and each additional program costs compile time,
so the sorted sizes are split where the total cost is lowest. The plan is written to `plan.json`
once and reused by every restart and shard of the sweep.
"""

import itertools
import json
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from tinyjax.core import Task
from tinyjax.errors import UserError
from tinyjax.population.cost_model import CostModel, cost_model
from tinyjax.population.search_space import Member
from tinyjax.run import run_folder
from tinyjax.run.files import atomic, read_json

MAX_MEMBERS = 64  # per population; its results are written only when it finishes
MEMORY_FRACTION = 0.7  # of a device's memory for a step, as the cost model estimates it
# On a TPU, networks of these families move the fewest bytes side by side (docs/scaling.md).
WIDE_FAMILIES = ("efficientnet", "mobilenetv3")
WIDE_MEMBERS = 8  # more members move as many bytes each, and need more arithmetic


class Machine(NamedTuple):
    """The devices that a plan is for."""

    platform: str  # as JAX names it
    devices: int
    memory: int  # bytes per device


def this_machine() -> Machine:
    """All devices that this process sees."""
    import jax

    from tinyjax.run import runtime

    return Machine(jax.default_backend(), jax.device_count(), runtime.total_memory())


class PlannedPopulation(NamedTuple):
    """The ids of members that share a program, in their order in its arrays."""

    members: tuple[str, ...]
    member_batching: str  # "none", "vmap", "map", "chunks" or "wide", see `batch_members`
    chunk_size: int = 0


def make_plan(
    members: Sequence[Member],
    model: CostModel,
    member_batching: str | None = None,
    machine: Machine | None = None,
) -> list[PlannedPopulation]:
    """Plan a sweep for `machine`; None: this machine.

    member_batching: `--member-batching`, such as "chunks:8"; None: the fastest method of the
    platform that fits into the devices' memory.
    """
    platform, devices, memory = machine or this_machine()
    plan = []
    for group in group_members(members, model.group_key, model.size_key, model.cost):
        largest = max(model.memory(model.size_key(member)) for member in group)
        max_concurrent = max(1, int(MEMORY_FRACTION * memory / largest))
        per_device = -(-len(group) // devices)
        family = model.size_key(group[0]).backbone.partition("/")[0]
        fastest = _fastest(platform, family, per_device, max_concurrent)
        population = PlannedPopulation(tuple(member.id for member in group), "none")
        plan.append(population._replace(**_batching_fields(population, member_batching or fastest)))
    return plan


def _fastest(platform: str, family: str, members: int, max_concurrent: int) -> str:
    """The fastest method that fits into memory. members: per device."""
    if platform == "tpu":
        size = min(WIDE_MEMBERS, max_concurrent)
        return f"wide:{size}" if family in WIDE_FAMILIES and size > 1 else "map"
    return "vmap" if members <= max_concurrent else f"chunks:{max_concurrent}"


def load_or_make_plan(
    config: ConfigDict,
    task: Task,
    members: Sequence[Member],
    file: Path,
    member_batching: str | None = None,
) -> list[PlannedPopulation]:
    """The plan in `file`, or a new one that is written there.

    member_batching: see `make_plan`; it replaces that of an existing plan. Raises UserError if the
    file holds the plan of another sweep that has started.
    """
    points = {member.id: member.point for member in members}
    points_json = json.dumps(points, sort_keys=True)
    if file.exists():
        stored = read_json(file)
        if json.dumps(stored["members"], sort_keys=True) == points_json:
            plan = [
                PlannedPopulation(tuple(p["members"]), p["member_batching"], p["chunk_size"])
                for p in stored["populations"]
            ]
            if member_batching:
                plan = [p._replace(**_batching_fields(p, member_batching)) for p in plan]
                _write_plan(file, plan, points)
            return plan
        if any(file.parent.glob("populations/*/members.csv")):
            raise UserError(
                f"{file.parent}: holds another sweep ({len(stored['members'])} members; this one "
                f"has {len(points)}); give another --workdir, or the config it was started with"
            )
    machine = this_machine()
    plan = make_plan(members, cost_model(config, task, machine.platform), member_batching, machine)
    _write_plan(file, plan, points)
    return plan


def populations_of_run(folder: Path) -> list[tuple[str, ...]]:
    """The ids of each population's members. Raises UserError if the folder holds no run."""
    if not (folder / "config.json").exists():
        raise UserError(f"--workdir {folder}: no run here (no config.json)")
    if not (file := folder / "plan.json").exists():
        return [(run_folder.member_id({}),)]
    return [tuple(p["members"]) for p in read_json(file)["populations"]]


def group_members(
    members: Sequence[Member],
    group_key: Callable[[Member], Hashable],
    size_key: Callable[[Member], tuple],
    cost: Callable[[tuple, int], float],
) -> list[list[Member]]:
    """Split members into the cheapest set of populations, each in the order of `members`.

    group_key: equal for members that may share a population. size_key: orders members by size;
    members with the same key stay together. cost: (size keys, number of members) -> seconds of a
    population, inf if the members cannot share a program.
    """
    groups: dict[Hashable, list[Member]] = {}
    for member in members:
        groups.setdefault(group_key(member), []).append(member)
    return [
        population
        for group in groups.values()
        for population in _split_by_size(group, size_key, cost)
    ]


def estimated_minutes(config: ConfigDict, task: Task, members: Sequence[Member]) -> float:
    """Estimated minutes of training on two cores, without evaluation."""
    model = cost_model(config, task)
    groups = group_members(members, model.group_key, model.size_key, model.cost)
    seconds = (
        model.cost(tuple(sorted(set(map(model.size_key, group)))), len(group)) for group in groups
    )
    return sum(seconds) / 60


def _split_by_size(group: Sequence[Member], size_key, cost) -> list[list[Member]]:
    """Split the sorted sizes into the cheapest segments, by dynamic programming.

    The cheapest split of the n smallest sizes is that of the m smallest, for some m < n, and one
    more segment.
    """
    by_size: dict[tuple, list[Member]] = {}
    for member in group:
        by_size.setdefault(size_key(member), []).append(member)
    sizes = sorted(by_size)
    best: list[tuple[float, int]] = [(0.0, 0)]  # first n sizes: seconds, start of last segment
    for end in range(1, len(sizes) + 1):
        candidates = []
        for start in range(end):
            count = sum(len(by_size[size]) for size in sizes[start:end])
            candidates.append((best[start][0] + cost(tuple(sizes[start:end]), count), start))
        best.append(min(candidates))
    segments, end = [], len(sizes)
    while end:
        start = best[end][1]
        ids = {member.id for size in sizes[start:end] for member in by_size[size]}
        segments.append([member for member in group if member.id in ids])
        end = start
    return [members for segment in segments[::-1] for members in _split_evenly(segment)]


def _split_evenly(members: list[Member]) -> list[list[Member]]:
    """Split into the fewest lists of at most `MAX_MEMBERS`, of nearly the same length."""
    count = -(-len(members) // MAX_MEMBERS)
    ends = [len(members) * i // count for i in range(count + 1)]
    return [members[a:b] for a, b in itertools.pairwise(ends)]


def _batching_fields(population: PlannedPopulation, member_batching: str) -> dict[str, Any]:
    if len(population.members) == 1:
        return {"member_batching": "none", "chunk_size": 0}
    name, _, size = member_batching.partition(":")
    return {"member_batching": name, "chunk_size": int(size or 0)}


def _write_plan(file: Path, plan: Sequence[PlannedPopulation], points: dict[str, Any]) -> None:
    with atomic(file) as path:
        populations = [population._asdict() for population in plan]
        path.write_text(
            json.dumps({"populations": populations, "members": points}, indent=1), encoding="utf-8"
        )
