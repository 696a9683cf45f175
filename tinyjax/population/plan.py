"""Which members share a program.

Members differ in numbers, which are arrays, and in widths and depths, which are padded; whatever
else they differ in sets them apart. Among those that could share, the widest makes all others
dearer, and each program more takes its time to compile: a ladder of sizes is cut where that is
cheapest. The plan is written down (`plan.json`) and reused by whoever goes on with the sweep.
"""

import itertools
import json
import math
from collections.abc import Callable, Hashable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from tinyjax.errors import UserError
from tinyjax.population.search_space import Member
from tinyjax.run import run_folder
from tinyjax.run.files import atomic

# Of the order that docs/performance.md measured on two cores; what matters is their ratio.
COMPILE_SECONDS = {"detect": 45.0, "classify": 25.0}  # seconds until a program's first step
MULTIPLY_ADDS_PER_SECOND = (
    1.2e10  # multiply-adds per second; a step has those of three forward passes
)
# Seconds for a pixel of a window, whatever the network: augmentation, and a detector's assignment.
PIXEL_SECONDS = {"detect": 1e-7, "classify": 5e-8}
MAX_MEMBERS = 64  # members of a population: a sweep's rows are written as its populations finish
MEMORY_FRACTION = (
    0.7  # part of a device's memory that a step may take, by the rough count of `Measures`
)
MEMBER_BATCHING = {
    "tpu": "map"
}  # how members are lifted on a platform if not by vmap; docs/performance.md


class Machine(NamedTuple):
    """The devices that a plan is for."""

    platform: str  # jax's name of it
    devices: int
    memory: int  # bytes of each


def this_machine() -> Machine:
    """All devices that this process sees."""
    import jax

    from tinyjax.run import runtime

    return Machine(jax.default_backend(), jax.device_count(), runtime.total_memory())


class PlannedPopulation(NamedTuple):
    """Members that share a program, by their ids, in the order of its first axis."""

    members: tuple[str, ...]
    lift: str  # "none", "vmap", "map", "chunks": see `lift`
    chunk: int = 0


def group_members(
    members: Sequence[Member],
    apart: Callable[[Member], Hashable],
    rung: Callable[[Member], tuple],
    cost: Callable[[tuple, int], float],
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
    """A ladder cut into runs of neighboring rungs: the cheapest way up to each rung is the
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
    number = -(-len(part) // MAX_MEMBERS)
    ends = [len(part) * i // number for i in range(number + 1)]
    return [part[a:b] for a, b in itertools.pairwise(ends)]


def load_or_make_plan(
    config: ConfigDict, members: Sequence[Member], file: Path, how: str | None = None
) -> list[PlannedPopulation]:
    """The plan in `file`, or a new one that is written there. how: see `populations`; given for a
    plan that is there it changes that.

    Raises UserError if the file holds that of another sweep which has begun.
    """
    space = {member.id: member.point for member in members}
    text = json.dumps(space, sort_keys=True)
    if file.exists():
        stored = json.loads(file.read_text())
        if json.dumps(stored["members"], sort_keys=True) == text:
            found = [
                PlannedPopulation(tuple(p["members"]), p["lift"], p["chunk"])
                for p in stored["populations"]
            ]
            if how:
                found = [population._replace(**_lift(population, how)) for population in found]
                _write(file, found, space)
            return found
        if any(file.parent.glob("populations/*/members.csv")):
            raise UserError(
                f"{file.parent}: holds another sweep ({len(stored['members'])} members there, "
                f"{len(space)} here); give another --workdir, or the sweep it was begun with"
            )
    found = make_plan(members, cost_model(config), how)
    _write(file, found, space)
    return found


def populations_of_run(folder: Path) -> list[tuple[str, ...]]:
    """The members of each population of a run, by their ids.

    Raises UserError if there is no run.
    """
    if not (folder / "config.json").exists():
        raise UserError(f"--workdir {folder}: no run here (no config.json)")
    if not (file := folder / "plan.json").exists():
        return [(run_folder.member_id({}),)]
    return [tuple(own["members"]) for own in json.loads(file.read_text())["populations"]]


def _write(file, found, space):
    with atomic(file) as path:
        listed = [population._asdict() for population in found]
        path.write_text(json.dumps({"populations": listed, "members": space}, indent=1))


def make_plan(
    members: Sequence[Member],
    by: "CostModel",
    how: str | None = None,
    machine: Machine | None = None,
) -> list[PlannedPopulation]:
    """The plan of a sweep for a machine, None: for this one.

    how: members are lifted, as `lift` says it, "chunks" with their size, "chunks:8"; None: as is
    fastest there and fits into the devices' memory.
    """
    platform, devices, memory = machine or this_machine()
    room, fastest, found = MEMORY_FRACTION * memory, MEMBER_BATCHING.get(platform, "vmap"), []
    for part in group_members(members, by.apart, by.rung, by.cost):
        fits = max(1, int(room / max(by.memory(by.rung(member)) for member in part)))
        crowded = fastest == "vmap" and -(-len(part) // devices) > fits
        population = PlannedPopulation(tuple(member.id for member in part), "none")
        lifts = _lift(population, how or (f"chunks:{fits}" if crowded else fastest))
        found.append(population._replace(**lifts))
    return found


def _lift(population: PlannedPopulation, how: str) -> dict[str, Any]:
    if len(population.members) == 1:
        return {"lift": "none", "chunk": 0}
    name, _, size = how.partition(":")
    return {"lift": name, "chunk": int(size or 0)}


class SizeKey(NamedTuple):
    """How large a member is, in the first place, and what else its time and memory follow from."""

    size: int  # multiply-adds of a window
    backbone: str
    crop_size: tuple[int, int]  # height and width of a window
    batch: int
    steps: int
    model: tuple[tuple[str, Any], ...]  # what else of its network is its own: field and value


class CostModel(NamedTuple):
    """What a plan needs to know of the members of a config, see `plan`."""

    apart: Callable[[Member], Hashable]
    rung: Callable[[Member], SizeKey]
    cost: Callable[[tuple[SizeKey, ...], int], float]
    padded: Callable[[tuple[SizeKey, ...]], float]  # multiply-adds of a member in there
    parameters: Callable[[SizeKey], int]
    memory: Callable[[SizeKey], int]  # bytes of a step of such a member, roughly


def cost_model(config: ConfigDict) -> CostModel:
    """By counting on shapes. Networks are counted with one class and one input channel: what that
    leaves out is the same for all.
    """
    import jax

    from tinyjax import config as configs
    from tinyjax import models, tasks
    from tinyjax.models import flops
    from tinyjax.models.supernet import supernet
    from tinyjax.population import stack

    kind = tasks.module(config.task)

    def backbone_of(member: Member) -> str:
        return member.point.get("model.backbone", config.model.backbone)

    def model(backbone: str, own: tuple[tuple[str, Any], ...]):
        return kind.make_model(
            configs.with_fields(config, {**dict(own), "model.backbone": backbone}), 1
        )

    @cache
    def eps(init: str, backbone: str, seed: int) -> float:
        own = {"init": init, "model.backbone": backbone, "seed": seed}
        return stack.member_config(config, Member("", own)).model.batchnorm_eps

    def apart(member: Member) -> Hashable:
        point, backbone = member.point, backbone_of(member)
        shared = ("freeze", *(stack.CUT if config.data.stream else ()))
        fixed = {
            field: value
            for field, value in point.items()
            if field in shared or not stack.varies(field)
        }
        family = backbone.partition("/")[0]
        init = point.get("init", config.init)
        seed = point.get("seed", config.seed) if init else 0  # of which sweep's member it starts
        return family, eps(init, backbone, seed), repr(sorted(fixed.items()))

    @cache
    def counted(backbone: str, own: tuple, crop: tuple[int, int]) -> tuple[int, int]:
        """Multiply-adds and outputs for a window."""
        return flops.counted(model(backbone, own), (1, *crop, 1))

    @cache
    def counted_weights(backbone: str, own: tuple) -> int:
        net, shape = model(backbone, own), (1, *config.crop_size, 1)
        return flops.parameters(jax.eval_shape(lambda: models.init(net, 0, shape))[0])

    def parameters(rung: SizeKey) -> int:
        return counted_weights(rung.backbone, rung.model)

    def memory(rung: SizeKey) -> int:
        # float32: weights, two moments, averaged and best ones; what a step keeps of each layer:
        # output, normalized and activated, and the gradient of one of them
        kept = 4 * rung.batch * counted(rung.backbone, rung.model, rung.crop_size)[1]
        return 4 * (5 * parameters(rung) + kept)

    def rung(member: Member) -> SizeKey:
        backbone, get = backbone_of(member), member.point.get
        fields = sorted(f for f in member.point if f.startswith("model.") and f != "model.backbone")
        own = tuple((field, member.point[field]) for field in fields)
        crop = tuple(get("crop_size", config.crop_size))
        size, _ = counted(backbone, own, crop)
        steps = get("schedule.steps", config.schedule.steps)
        return SizeKey(size, backbone, crop, get("batch", config.batch), steps, own)

    @cache
    def padded(rungs: tuple[SizeKey, ...]) -> float:
        archs = [models.architecture(rung.backbone) for rung in rungs]
        try:
            wide = supernet(archs)
        except ValueError:
            return float("inf")
        return max(rungs).size * flops.per_pixel(wide) / max(map(flops.per_pixel, archs))

    def cost(rungs: tuple[SizeKey, ...], members: int) -> float:
        _, _, crop, batch, steps, _ = rungs[0]  # the same for all of them
        window = (
            PIXEL_SECONDS[config.task] * math.prod(crop)
            + 3 * padded(rungs) / MULTIPLY_ADDS_PER_SECOND
        )
        return COMPILE_SECONDS[config.task] + members * steps * batch * window

    return CostModel(apart, rung, cost, padded, parameters, memory)


def estimated_minutes(config: ConfigDict, members: Sequence[Member]) -> float:
    """What training takes, roughly and on two cores, scoring left out."""
    by = cost_model(config)
    parts = group_members(members, by.apart, by.rung, by.cost)
    return sum(by.cost(tuple(sorted(set(map(by.rung, p)))), len(p)) for p in parts) / 60


def plan_table(
    config: ConfigDict, members: Sequence[Member], found: Sequence[PlannedPopulation]
) -> str:
    """What a plan comes to, a line for each population: sizes, how much of the arithmetic is of use
    to somebody, members at once on a device and their memory there, and time, roughly and on two
    cores.
    """
    from tinyjax.population.devices import device_layout

    by, everyone = cost_model(config), {member.id: member for member in members}
    titles = f"{'population':>10}{'members':>9}{'at once':>9}{'parameters':>24}{'in use':>8}"
    lines = [f"{titles}{'GiB':>7}{'min':>7}"]
    whole = 0.0
    for number, population in enumerate(found):
        rungs = [by.rung(everyone[id]) for id in population.members]
        ladder = tuple(sorted(set(rungs)))
        low, *_, high = sorted(by.parameters(rung) for rung in [*ladder, *ladder])
        use = sum(rung.size for rung in rungs) / (by.padded(ladder) * len(rungs))
        devices = device_layout(len(rungs), rungs[0].batch)
        at_once = devices.at_once(population.lift, population.chunk)
        memory = by.memory(max(ladder)) * at_once / 2**30
        minutes = by.cost(ladder, len(rungs)) / 60
        whole += minutes
        sizes = f"{low:,} to {high:,}"
        lines.append(
            f"{number:>10}{len(rungs):>9}{at_once:>9}{sizes:>24}{use:>8.0%}{memory:>7.1f}"
            f"{minutes:>7.0f}"
        )
    lines.append(f"{len(members)} members in {len(found)} programs, some {whole:,.0f} minutes")
    return "\n".join(lines)
