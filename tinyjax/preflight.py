"""Preflight: what a sweep would take on an accelerator, told by its compiler before it is paid.

    python -m tinyjax.preflight --config C --accelerator v5litepod-8 [--prices FILE]

Every distinct program of the plan is compiled for those chips, which need not be there (that needs
`pip install 'tinyjax[tpu]'`), or with `--accelerator cpu` or `gpu` for the devices at hand.
Times are the least that arithmetic and memory traffic allow, a floor and no forecast. Exit codes: 0
it fits, 2 something to mend in what was given, 3 it does not fit.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinyjax import config as configs
from tinyjax.errors import UserError, exit_code, suggest
from tinyjax.population.options import FLAGS, parse_member_batching, select_members
from tinyjax.run import accelerators
from tinyjax.run.accelerators import GIB

DOES_NOT_FIT = 3
AT_HAND = ("cpu", "gpu")
PRICES = Path(accelerators.__file__).with_name("prices.yaml")
# Without these libtpu looks for the machine that it is not on, for minutes, or refuses to start.
QUIET = {
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",  # chips are one process's, the compiler is not
}


class Target(NamedTuple):
    """What programs are compiled for. Of devices at hand nothing is known of their speed."""

    name: str
    platform: str
    devices: Sequence[Any]
    memory: int  # bytes of each
    slice: accelerators.Slice | None


def main(argv: list[str] | None = None) -> int:
    shared = ("--sweep.only", "--sweep.limit", "--member-batching")
    options = configs.parse_options(
        "preflight",
        __doc__,
        argv,
        {
            "--accelerator": {
                "required": True,
                "metavar": "NAME",
                "help": f"{', '.join(AT_HAND)}, or of a TPU slice such as v5litepod-8",
            },
            "--prices": {
                "type": Path,
                "default": PRICES,
                "metavar": "FILE",
                "help": f"dollars for an hour of a chip, as {PRICES.name} has them",
            },
            **{name: FLAGS[name] for name in shared},
        },
        ("config",),
    )
    price = prices(options.prices)
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    target = target_of(options.accelerator)
    config = configs.load(options.config, options.overrides)
    members = select_members(options.config, config, options.only or (), options.limit)
    return preflight(config, members, target, price, parse_member_batching(options.lift))


def preflight(config, members, target: Target, price, how: str | None) -> int:
    """Compile what a sweep's plan for this target has, and say what it comes to."""
    from tinyjax import tasks
    from tinyjax.population import compiler, plan

    begin, kind = time.time(), tasks.module(config.task)
    machine = plan.Machine(target.platform, len(target.devices), target.memory)
    populations = plan.make_plan(members, plan.cost_model(config), how, machine)
    training, everyone = kind.load(config.data, config.data.train), {m.id: m for m in members}
    print(f"{len(members)} members in {len(populations)} populations for {_described(target)}")
    seen: dict[str, tuple[int, dict[str, Any]]] = {}
    least, good = 0.0, True
    for number, population in enumerate(populations):
        own = [everyone[id] for id in population.members]
        given = config, own, kind, training, target.devices
        chosen = compiler.lower_step(*given, population.lift, population.chunk)
        text = chosen.program.as_text()
        said = f"population {number}: {_placed(own, chosen.devices, population.lift)}"
        if text in seen:
            print(f"{said}; the program of population {seen[text][0]}")
        else:
            print(said, flush=True)
            lowered = {population.lift: chosen}
            if chosen.devices.own > 1:  # of one member a device all lifts are the same
                other = "vmap" if population.lift == "map" else "map"
                lowered[other] = compiler.lower_step(*given, other)
            seen[text] = number, {lift: _counts(each) for lift, each in lowered.items()}
            for lift, counts in seen[text][1].items():
                print(_lines(lift, counts, lowered[lift], target), flush=True)
        counts, *_ = seen[text][1].values()
        if isinstance(counts, str) or counts.needs > target.memory or counts.across:
            good = False
        elif target.slice:
            steps = own[0].point.get("schedule.steps", config.schedule.steps)
            least += steps * at_best(counts, target.slice.chip)[0] / 3600
    print(f"compiled in {time.time() - begin:.0f} s: {len(seen)} distinct programs")
    if good and target.slice:
        print(_cost(least, target.slice, price))
    print("it fits" if good else "it does not fit, see above")
    return 0 if good else DOES_NOT_FIT


def target_of(name: str) -> Target:
    """The devices of that name. Raises UserError for a name that is none, devices that are not at
    hand, and without libtpu.
    """
    import jax

    from tinyjax.run import runtime

    if name in AT_HAND:
        try:
            devices = jax.devices(name)
        except RuntimeError as error:
            raise UserError(f"--accelerator {name}: there is none at hand") from error
        jax.config.update("jax_default_device", devices[0])
        return Target(name, name, devices, runtime.total_memory(), None)
    if name not in accelerators.SLICES:
        advice = suggest(name, [*AT_HAND, *accelerators.SLICES])
        raise UserError(f"--accelerator {name}: {advice}")
    jax.config.update("jax_platforms", "cpu")
    found = accelerators.SLICES[name]
    return Target(name, "tpu", described(found), found.chip.memory, found)


def described(found: accelerators.Slice) -> list[Any]:
    """A slice's devices as the compiler knows them. Raises UserError without libtpu."""
    from jax.experimental import topologies

    more: dict[str, Any] = {"chips_per_host_bounds": (1, 1, 1)} if found.chips == 1 else {}
    if found.chip.name == "v4":
        more["chip_config_name"] = "megacore"  # two cores that are one device
    try:
        topology = topologies.get_topology_desc(
            topology_name=f"{found.chip.name}:{found.topology}", platform="tpu", **more
        )
    except RuntimeError as error:
        if "TPU support" not in str(error):
            raise
        raise UserError(
            f"--accelerator {found.name}: its compiler is not installed; pip install 'tinyjax[tpu]'"
        ) from error
    return topology.devices


def prices(file: Path) -> dict[str, dict[str, float]]:
    """Dollars for an hour of a chip, {generation: {"demand": .., "spot": ..}}. Raises UserError."""
    import yaml

    try:
        found = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"--prices {file}: {str(error).splitlines()[0]}") from error
    for chip, own in found.items() if isinstance(found, dict) else [("", found)]:
        numbers = own.values() if isinstance(own, dict) else ()
        if not numbers or not all(isinstance(n, int | float) and n >= 0 for n in numbers):
            raise UserError(
                f"--prices {file}: {chip}: {own}: give numbers as {PRICES} does, such as "
                "v5e: {demand: 1.2, spot: 0.5}"
            )
    return found


# ---- of one program


def _counts(lowered) -> Any:
    """What `count` says, or the line of why it does not fit."""
    import jax

    from tinyjax.population import compiler

    try:
        return compiler.compile_step(lowered)
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        return str(error).partition("\n")[0]


def _placed(members, devices, lift: str) -> str:
    grid = " x ".join(str(n) for n in devices.mesh.devices.shape)
    how = f", by {lift}" if devices.own > 1 else ""
    return f"{len(members)} members, {devices.own} a chip on a grid of {grid}{how}"


def _lines(lift: str, counts, lowered, target: Target) -> str:
    if isinstance(counts, str):
        return f"  {lift:<6} {counts}"
    devices = lowered.devices
    each = (counts.arguments - counts.shared) / devices.own
    room = target.memory - counts.shared
    if lift == "vmap":  # all need scratch at the same time
        fit = room / (each + counts.scratch / devices.own)
    else:
        fit = (room - counts.scratch) / each
    shards = devices.mesh.size / devices.mesh.devices.shape[0] / devices.own
    lines = [
        f"{counts.needs / GIB:.2f} of {target.memory / GIB:.1f} GiB a chip; "
        f"{max(0, int(fit)):,} members a chip would fit",
        f"a member's step: {counts.flops * shards / 1e9:.3f} GFLOP, "
        f"{counts.moved * shards / 1e9:.3f} GB moved",
    ]
    if target.slice:
        seconds, by = at_best(counts, target.slice.chip)
        lines.append(f"{1e3 * seconds:.2f} ms a step at best, bound by {by}")
    lines.append(
        f"collectives: {counts.across} across members, {counts.within} among shards of a batch"
    )
    lines.append(f"compiled in {counts.seconds:.0f} s")
    return "\n".join(f"  {lift if not i else '':<6} {line}" for i, line in enumerate(lines))


def at_best(counts, chip: accelerators.Chip) -> tuple[float, str]:
    """Seconds of a step by the roofline, and what bounds it."""
    return max((counts.flops / chip.flops, "arithmetic"), (counts.moved / chip.bandwidth, "memory"))


# ---- of all of them


def _described(target: Target) -> str:
    if not (own := target.slice):
        return f"{len(target.devices)} x {target.devices[0].device_kind}"
    hosts = f"{own.hosts} machines" if own.hosts > 1 else "one machine"
    chip = f"{own.chip.memory // GIB} GiB, {own.chip.flops / 1e12:.0f} TFLOP/s in bfloat16"
    return f"{own.name}: {own.chips} x {own.chip.name}, {own.topology}, {hosts}; a chip has {chip}"


def _cost(hours: float, own: accelerators.Slice, price) -> str:
    chip_hours = hours * own.chips
    known = price.get(own.chip.name, {})
    dollars = ", ".join(f"${chip_hours * each:,.2f} {how}" for how, each in known.items())
    return (
        f"training takes {hours:.2f} hours, {chip_hours:.2f} chip-hours at best: "
        f"{dollars or 'no price is known'}"
    )


if __name__ == "__main__":
    sys.exit(exit_code(main))
