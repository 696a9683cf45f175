"""Which members share a program.

Members differ in numbers, which are arrays, and in widths and depths, which are padded; whatever
else they differ in sets them apart. Among those that could share, the widest makes all others
dearer, and each program more takes its time to compile: a ladder of sizes is cut where that is
cheapest. The plan is written down (`plan.json`) and reused by whoever goes on with the sweep.
"""

import itertools
import json
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ml_collections import ConfigDict

from tinyjax import runfolder
from tinyjax.errors import UserError
from tinyjax.population.space import Member

# Of the order that docs/performance.md measured on two cores; what matters is their ratio.
COMPILE = {"detect": 35.0, "classify": 15.0}  # seconds
SPEED = 1e10  # multiply-adds per second; a step has those of three forward passes
MOST = 64  # members of a population: a sweep's rows are written as its populations finish


class Population(NamedTuple):
    """Members that share a program, by their ids, in the order of its first axis."""

    members: tuple[str, ...]
    lift: str  # "none", "vmap", "map", "chunks": see `lift`
    chunk: int = 0


def plan(
    members: Sequence[Member],
    apart: Callable[[Member], Hashable],
    rung: Callable[[Member], tuple],
    cost: Callable[[tuple[tuple, ...], int], float],
) -> list[list[Member]]:
    """Members in as many populations as is cheapest; each keeps their order.

    apart: what must be equal in a population. rung: how large a member is and what else makes it
    so; members of the same rung stay together. cost: seconds of a population of so many members on
    these rungs, inf if they cannot share a program.
    """
    groups: dict[Hashable, list[Member]] = {}
    for member in members:
        groups.setdefault(apart(member), []).append(member)
    return [part for group in groups.values() for part in _cut(group, rung, cost)]


def _cut(group: Sequence[Member], rung, cost) -> list[list[Member]]:
    """A ladder cut into runs of neighbouring rungs: the cheapest way up to each rung is the
    cheapest way to some rung below it and one run from there.
    """
    on: dict[tuple, list[Member]] = {}
    for member in group:
        on.setdefault(rung(member), []).append(member)
    rungs = sorted(on)
    best: list[tuple[float, int]] = [(0.0, 0)]  # of the rungs below: seconds, where the run begins
    for end in range(1, len(rungs) + 1):
        ways = []
        for begin in range(end):
            size = sum(len(on[r]) for r in rungs[begin:end])
            ways.append((best[begin][0] + cost(tuple(rungs[begin:end]), size), begin))
        best.append(min(ways))
    parts, end = [], len(rungs)
    while end:
        begin = best[end][1]
        own = {member.id for r in rungs[begin:end] for member in on[r]}
        parts.append([member for member in group if member.id in own])
        end = begin
    return [piece for part in parts[::-1] for piece in _pieces(part)]


def _pieces(part: list[Member]) -> list[list[Member]]:
    """As few of at most `MOST` as there can be, of nearly the same size."""
    number = -(-len(part) // MOST)
    ends = [len(part) * i // number for i in range(number + 1)]
    return [part[a:b] for a, b in itertools.pairwise(ends)]


def planned(config: ConfigDict, members: Sequence[Member], file: Path) -> list[Population]:
    """The plan in `file`, or a new one that is written there.

    Raises UserError if the file holds that of another sweep which has begun.
    """
    space = {member.id: member.point for member in members}
    text = json.dumps(space, sort_keys=True)
    if file.exists():
        stored = json.loads(file.read_text())
        if json.dumps(stored["members"], sort_keys=True) == text:
            return [
                Population(tuple(p["members"]), p["lift"], p["chunk"])
                for p in stored["populations"]
            ]
        if any(file.parent.glob("populations/*/members.csv")):
            raise UserError(
                f"{file.parent}: holds another sweep ({len(stored['members'])} members there, "
                f"{len(space)} here); give another --workdir, or the sweep it was begun with"
            )
    found = populations(members, measures(config))
    with runfolder.atomic(file) as path:
        listed = [population._asdict() for population in found]
        path.write_text(json.dumps({"populations": listed, "members": space}, indent=1))
    return found


def populations(members: Sequence[Member], by: "Measures") -> list[Population]:
    """The plan of a sweep."""
    return [
        Population(tuple(member.id for member in part), "none" if len(part) == 1 else "vmap")
        for part in plan(members, by.apart, by.rung, by.cost)
    ]


class Measures(NamedTuple):
    """What a plan needs to know of the members of a config, see `plan`."""

    apart: Callable[[Member], Hashable]
    rung: Callable[[Member], tuple[int, str]]  # multiply-adds of a window, backbone
    cost: Callable[[tuple[tuple[int, str], ...], int], float]
    padded: Callable[[tuple[tuple[int, str], ...]], float]  # multiply-adds of a member in there
    parameters: Callable[[str], int]  # of a network with that backbone
    memory: Callable[[str], int]  # bytes of a step of such a member, roughly


def measures(config: ConfigDict) -> Measures:
    """By counting on shapes. Networks are counted with one class and one input channel: what that
    leaves out is the same for all.
    """
    import jax

    from tinyjax import config as configs
    from tinyjax import models, tasks
    from tinyjax.models import count
    from tinyjax.models.union import union
    from tinyjax.population import build

    kind, window = tasks.module(config.task), (1, *config.crop, 1)

    def backbone_of(member: Member) -> str:
        return member.point.get("model.backbone", config.model.backbone)

    @cache
    def model(backbone: str):
        return kind.make_model(configs.changed(config, {"model.backbone": backbone}), 1)

    @cache
    def eps(init: str, backbone: str) -> float:
        own = {"init": init, "model.backbone": backbone}
        return build.config_of(config, Member("", own)).model.eps

    def apart(member: Member) -> Hashable:
        point, backbone = member.point, backbone_of(member)
        fixed = {
            field: value
            for field, value in point.items()
            if field == "freeze" or not build.varies(field)
        }
        family = backbone.partition("/")[0]
        return family, eps(point.get("init", config.init), backbone), repr(sorted(fixed.items()))

    @cache
    def size(backbone: str) -> int:
        return count.multiply_adds(model(backbone), window)

    @cache
    def parameters(backbone: str) -> int:
        params, _ = jax.eval_shape(lambda: models.init(model(backbone), 0, window))
        return count.parameters(params)

    @cache
    def memory(backbone: str) -> int:
        # float32: weights, two moments, averaged and best ones; what a step keeps of each layer:
        # output, normalised and activated, and the gradient of one of them
        kept = 4 * config.batch * count.outputs(model(backbone), window)
        return 4 * (5 * parameters(backbone) + kept)

    def rung(member: Member) -> tuple[int, str]:
        return size(backbone_of(member)), backbone_of(member)

    @cache
    def padded(rungs: tuple[tuple[int, str], ...]) -> float:
        archs = [models.architecture(backbone) for _, backbone in rungs]
        try:
            wide = union(archs)
        except ValueError:
            return float("inf")
        largest, _ = max(rungs)
        return largest * count.per_pixel(wide) / max(map(count.per_pixel, archs))

    def cost(rungs: tuple[tuple[int, str], ...], members: int) -> float:
        steps = config.schedule.steps * members
        return COMPILE[config.task] + steps * 3 * config.batch * padded(rungs) / SPEED

    return Measures(apart, rung, cost, padded, parameters, memory)


def table(config: ConfigDict, members: Sequence[Member], found: Sequence[Population]) -> str:
    """What a plan comes to, a line for each population: sizes, how much of the arithmetic is of use
    to somebody, memory and time, the last two roughly and on two cores.
    """
    by, everyone = measures(config), {member.id: member for member in members}
    lines = [f"{'population':>10}{'members':>9}{'parameters':>24}{'in use':>8}{'GiB':>7}{'min':>7}"]
    whole = 0.0
    for number, population in enumerate(found):
        rungs = [by.rung(everyone[id]) for id in population.members]
        ladder = tuple(sorted(set(rungs)))
        low, *_, high = sorted(by.parameters(backbone) for _, backbone in [*ladder, *ladder])
        use = sum(useful for useful, _ in rungs) / (by.padded(ladder) * len(rungs))
        memory = by.memory(max(ladder)[1]) * len(rungs) / 2**30
        minutes = by.cost(ladder, len(rungs)) / 60
        whole += minutes
        sizes = f"{low:,} to {high:,}"
        lines.append(
            f"{number:>10}{len(rungs):>9}{sizes:>24}{use:>8.0%}{memory:>7.1f}{minutes:>7.0f}"
        )
    lines.append(f"{len(members)} members in {len(found)} programs, some {whole:,.0f} minutes")
    return "\n".join(lines)
