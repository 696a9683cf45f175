"""Preflight: compile a sweep for an accelerator, and print memory, time and cost before you pay.

    python -m tinyjax.preflight --config C --accelerator v5litepod-8 [--prices FILE]

Each distinct program of the plan is compiled for the named TPU chips, which this machine need not
have (`pip install 'tinyjax[tpu]'`), or for its own devices with `--accelerator cpu` or `gpu`. Times
are lower bounds from arithmetic and memory traffic, not forecasts. Exit codes: 0 the sweep fits, 2
invalid input, 3 it does not fit.
"""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinyjax import config as configs
from tinyjax.config.paths import parse_local_path
from tinyjax.errors import UserError, run_command, suggest
from tinyjax.population.options import FLAGS, parse_member_batching, select_members
from tinyjax.run import accelerators
from tinyjax.run.accelerators import GIB

DOES_NOT_FIT = 3
LOCAL = ("cpu", "gpu")
PRICES = Path(accelerators.__file__).with_name("prices.yaml")
# Without these, libtpu searches for a TPU machine for minutes, or does not start.
LIBTPU_ENVIRONMENT = {
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",  # many processes may compile, one may use the chips
}


class Target(NamedTuple):
    """The devices that programs are compiled for."""

    name: str
    platform: str
    devices: Sequence[Any]
    memory: int  # bytes per device
    slice: accelerators.Slice | None  # None for local devices, whose speed is unknown


def main(argv: list[str] | None = None) -> int:
    shared = ("--sweep.only", "--sweep.limit", "--member-batching")
    flags: dict[str, dict[str, Any]] = {
        "--accelerator": {
            "required": True,
            "metavar": "NAME",
            "help": f"{', '.join(LOCAL)}, or a TPU slice such as v5litepod-8",
        },
        "--prices": {
            "type": parse_local_path,
            "default": PRICES,
            "metavar": "FILE",
            "help": f"dollars per chip-hour, in the format of {PRICES.name}",
        },
        "--larger-batch": {
            "type": int,
            "metavar": "N",
            "help": "also compile each program with batches of N images, and print how many more "
            "bytes a step moves",
        },
        **{name: FLAGS[name] for name in shared},
    }
    options = configs.parse_options("preflight", __doc__, argv, flags, ("config",))
    prices = read_prices(options.prices)
    target = find_target(options.accelerator)
    config = configs.load(options.config, options.overrides)
    members = select_members(options.config, config, options.only or (), options.limit)
    member_batching = parse_member_batching(options.member_batching)
    return preflight(config, members, target, prices, member_batching, options.larger_batch)


def preflight(
    config: Any,
    members: Sequence[Any],
    target: Target,
    prices: Mapping[str, Mapping[str, float]],
    member_batching: str | None,
    larger_batch: int | None,
) -> int:
    """Compile the programs of a sweep's plan for this target, and print their costs.

    larger_batch: see `_compare_batches`; None: no comparison.
    """
    from tinyjax.population import plan
    from tinyjax.population.cost_model import cost_model
    from tinyjax.tasks import get_task
    from tinyjax.training.validation import check_members

    check_members(config, members)
    start, task = time.time(), get_task(config.task)
    machine = plan.Machine(target.platform, len(target.devices), target.memory)
    model = cost_model(config, task, target.platform)
    populations = plan.make_plan(members, model, member_batching, machine)
    training, by_id = task.load(config.data, config.data.train), {m.id: m for m in members}
    print(
        f"{len(members)} members in {len(populations)} populations for {_describe_target(target)}"
    )
    compiled: dict[str, tuple[int, Any]] = {}  # program text -> (population number, counts)
    hours, fits = 0.0, True
    for number, population in enumerate(populations):
        group = [by_id[id] for id in population.members]
        arguments = config, group, task, training
        counts = _compile(number, population, arguments, target, compiled, larger_batch)
        if isinstance(counts, str) or counts.memory > target.memory or counts.collectives_across:
            fits = False
        elif target.slice:
            steps = group[0].point.get("schedule.steps", config.schedule.steps)
            hours += steps * roofline(counts, target.slice.chip)[0] / 3600
    print(f"compiled in {time.time() - start:.0f} s: {len(compiled)} distinct programs")
    if fits and target.slice:
        print(_describe_cost(hours, target.slice, prices))
    print("the sweep fits" if fits else "the sweep does not fit, see above")
    return 0 if fits else DOES_NOT_FIT


def _compile(
    number: int,
    population: Any,
    arguments: tuple[Any, Any, Any, Any],
    target: Target,
    compiled: dict[str, tuple[int, Any]],
    larger_batch: int | None,
) -> Any:
    """Compile a population's program, unless an earlier population has the same one, and print its
    costs. Returns `StepCounts`, or the compiler's message if the program does not fit.
    """
    from tinyjax.population import tiling
    from tinyjax.population.compiler import lower_step

    method = population.member_batching
    step = lower_step(*arguments, target.devices, method, population.chunk_size)
    text = step.program.as_text()
    title = (
        f"population {number}: {_describe_placement(len(population.members), step.layout, method)}"
    )
    if text in compiled:
        print(f"{title}; the same program as population {compiled[text][0]}")
        return compiled[text][1]
    print(title, flush=True)
    steps = {method: step}
    if step.layout.members_per_device > 1:  # with one member all methods are the same
        alternative = "vmap" if method == "map" else "map"
        steps[alternative] = lower_step(*arguments, target.devices, alternative)
    counts = {name: _step_counts(lowered) for name, lowered in steps.items()}
    for name, lowered in steps.items():
        print(_describe_counts(name, counts[name], lowered.layout, target), flush=True)
    if target.platform == "tpu" and not isinstance(counts[method], str):
        lines = tiling.describe(counts[method].operations)
        print(*(f"{'':9}{line}" for line in lines), sep="\n", flush=True)
    if larger_batch and not isinstance(counts[method], str):
        moved = _member_bytes(counts[method], step.layout)
        comparison = _compare_batches(larger_batch, moved, population, arguments, target)
        print(f"{'':9}{comparison}", flush=True)
    compiled[text] = number, counts[method]
    return counts[method]


def _compare_batches(
    larger_batch: int,
    moved: float,
    population: Any,
    arguments: tuple[Any, Any, Any, Any],
    target: Target,
) -> str:
    """How many more bytes a member's step moves with a larger batch, by compiling it.

    On a TPU a larger batch may cost nothing, because it takes the place of padding. The tiles of
    the smaller program do not tell: XLA lays out arrays differently when a batch fills the lanes
    (docs/scaling.md).

    moved: bytes with the batch of the config.
    """
    from tinyjax.population.compiler import lower_step

    config, members, task, training = arguments
    batch = members[0].point.get("batch", config.batch)
    title = f"a batch of {larger_batch} instead of {batch}"
    if larger_batch <= batch:
        return f"a batch of {larger_batch} is not larger than {batch}"
    members = [m._replace(point={**m.point, "batch": larger_batch}) for m in members]
    method, chunk_size = population.member_batching, population.chunk_size
    try:
        step = lower_step(config, members, task, training, target.devices, method, chunk_size)
    except UserError as error:  # such as a subset with fewer images
        return f"{title}: {error}"
    counts = _step_counts(step)
    if isinstance(counts, str):
        return f"{title}: {counts}"
    more_bytes = _member_bytes(counts, step.layout) / moved - 1
    return (
        f"{title}: {100 * more_bytes:+.0f} % bytes for {100 * (larger_batch / batch - 1):+.0f} % "
        f"images, {counts.memory / GIB:.2f} GiB per chip"
    )


# ---- targets


def find_target(name: str) -> Target:
    """The devices to compile for. Raises UserError for an unknown name, for a platform that this
    machine does not have, and if libtpu is not installed.
    """
    for variable, value in LIBTPU_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)

    import jax

    from tinyjax.run import runtime

    if name in LOCAL:
        try:
            devices = jax.devices(name)
        except RuntimeError as error:
            raise UserError(f"--accelerator {name}: this machine has none") from error
        jax.config.update("jax_default_device", devices[0])
        return Target(name, name, devices, runtime.total_memory(), None)
    if name not in accelerators.SLICES:
        advice = suggest(name, [*LOCAL, *accelerators.SLICES])
        raise UserError(f"--accelerator {name}: {advice}")
    jax.config.update("jax_platforms", "cpu")
    slice = accelerators.SLICES[name]
    return Target(name, "tpu", slice_devices(slice), slice.chip.memory, slice)


def slice_devices(slice: accelerators.Slice) -> list[Any]:
    """The compiler's descriptions of a slice's devices. Raises UserError without libtpu."""
    from jax.experimental import topologies

    options: dict[str, Any] = {"chips_per_host_bounds": (1, 1, 1)} if slice.chips == 1 else {}
    if slice.chip.name == "v4":
        options["chip_config_name"] = "megacore"  # two cores that form one device
    try:
        topology = topologies.get_topology_desc(
            topology_name=f"{slice.chip.name}:{slice.topology}", platform="tpu", **options
        )
    except RuntimeError as error:
        if "TPU support" not in str(error):
            raise
        raise UserError(
            f"--accelerator {slice.name}: its compiler is not installed; pip install 'tinyjax[tpu]'"
        ) from error
    return topology.devices


def read_prices(file: Path) -> dict[str, dict[str, float]]:
    """Dollars per chip-hour: {generation: {"demand": .., "spot": ..}}. Raises UserError."""
    import yaml

    try:
        prices = yaml.safe_load(file.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"--prices {file}: {str(error).splitlines()[0]}") from error
    for chip, values in prices.items() if isinstance(prices, dict) else [("", prices)]:
        numbers = values.values() if isinstance(values, dict) else ()
        if not numbers or not all(isinstance(n, int | float) and n >= 0 for n in numbers):
            raise UserError(
                f"--prices {file}: {chip}: {values}: give numbers as in {PRICES}, such as "
                "v5e: {demand: 1.2, spot: 0.5}"
            )
    return prices


# ---- one program


def _step_counts(lowered: Any) -> Any:
    """`StepCounts`, or the compiler's message if the program does not fit."""
    import jax

    from tinyjax.population.compiler import compile_step

    try:
        return compile_step(lowered)
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        return str(error).partition("\n")[0]


def _describe_placement(members: int, layout: Any, method: str) -> str:
    grid = " x ".join(str(n) for n in layout.mesh.devices.shape)
    batched = f", by {method}" if layout.members_per_device > 1 else ""
    return f"{members} members, {layout.members_per_device} per chip on a grid of {grid}{batched}"


def _describe_counts(method: str, counts: Any, layout: Any, target: Target) -> str:
    if isinstance(counts, str):
        return f"  {method:<6} {counts}"
    members = layout.members_per_device
    member_bytes = (counts.argument_bytes - counts.shared_bytes) / members
    free = target.memory - counts.shared_bytes
    if method == "vmap":  # all members need scratch memory at the same time
        max_members = free / (member_bytes + counts.scratch_bytes / members)
    else:
        max_members = (free - counts.scratch_bytes) / member_bytes
    lines = [
        f"{counts.memory / GIB:.2f} of {target.memory / GIB:.1f} GiB per chip; "
        f"{max(0, int(max_members)):,} members per chip would fit",
        f"a member's step: {counts.flops * _member_share(layout) / 1e9:.3f} GFLOP, "
        f"{_member_bytes(counts, layout) / 1e9:.3f} GB moved",
    ]
    if target.slice:
        seconds, bound = roofline(counts, target.slice.chip)
        lines.append(f"{1e3 * seconds:.2f} ms per step at best, bound by {bound}")
    lines.append(
        f"collectives: {counts.collectives_across} across members, {counts.collectives_within} "
        "among shards of a batch"
    )
    lines.append(f"compiled in {counts.compile_seconds:.0f} s")
    return "\n".join(f"  {method if not i else '':<6} {line}" for i, line in enumerate(lines))


def _member_share(layout: Any) -> float:
    """A member's counts are a device's, times the shards of a batch, divided by its members."""
    return layout.mesh.size / layout.mesh.devices.shape[0] / layout.members_per_device


def _member_bytes(counts: Any, layout: Any) -> float:
    return counts.bytes_moved * _member_share(layout)


def roofline(counts: Any, chip: accelerators.Chip) -> tuple[float, str]:
    """The minimum seconds of a step by the roofline model, and whether arithmetic or memory is the
    bound.
    """
    return max(
        (counts.flops / chip.flops, "arithmetic"), (counts.bytes_moved / chip.bandwidth, "memory")
    )


# ---- all programs


def _describe_target(target: Target) -> str:
    if not (slice := target.slice):
        return f"{len(target.devices)} x {target.devices[0].device_kind}"
    hosts = f"{slice.hosts} machines" if slice.hosts > 1 else "one machine"
    chip = f"{slice.chip.memory // GIB} GiB, {slice.chip.flops / 1e12:.0f} TFLOP/s in bfloat16"
    return f"{slice.name}: {slice.chips} x {slice.chip.name}, {slice.topology}, {hosts}; {chip}"


def _describe_cost(
    hours: float, slice: accelerators.Slice, prices: Mapping[str, Mapping[str, float]]
) -> str:
    chip_hours, rates = hours * slice.chips, prices.get(slice.chip.name, {})
    dollars = ", ".join(f"${chip_hours * price:,.2f} {name}" for name, price in rates.items())
    return (
        f"training takes {hours:.2f} hours, {chip_hours:.2f} chip-hours at best: "
        f"{dollars or 'the price is unknown'}"
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
