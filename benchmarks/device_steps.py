"""Time of a training step per member on this machine's GPU or TPU, within a budget of seconds.

    bash benchmarks/device.sh [--budget 480] [--net efficientnet/b-5 ..] [--dry-run]

Classification, batch 16, 160 x 160, bfloat16. Populations are computed by each method of
`tinyjax.population.member_batching`; "vmap" has activations [M, B, H, W, C], "wide" [B, H, W, M C].
One network is also computed in torch, eager and as a CUDA graph. "floor" is the time that the
device's memory needs for the bytes that the compiler counts, at the bandwidth of a large copy.

Rows come in order of importance. One that the rest of the budget does not suffice for is skipped,
and the process ends when the budget is spent. --dry-run tries everything on a CPU with tiny inputs.
"""

import argparse
import math
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from benchmarks import timing, tinyjax_calls, torch_calls
from benchmarks.common import BATCH, SIDE
from tinyjax.errors import UserError, run_command

NETS = ("efficientnet/b-5", "mobilenetv3/s-3")
ROUNDS = 5
TORCH = {"torch eager": False, "torch CUDA graph": True}  # method -> whether it is a CUDA graph
HEADER = (
    f"{'network':<18}{'members':>8}  {'method':<17}{'ms':>17}{'floor':>9}{'ratio':>8}{'GB':>8}"
    f"{'build s':>9}"
)


class Setting(NamedTuple):
    """What is measured."""

    rows: Sequence[tuple[int, str]]  # members, method; in order of importance
    batch: int
    side: int  # of the images, in pixels
    round_seconds: float  # of steps that are timed together, at least one
    torch_steps: int  # in a round
    copied_bytes: int  # by the copy that measures the bandwidth
    allow_cpu: bool


# The bodies of loops come before the loops, see `loop_body`.
FULL = Setting(
    (
        (1, "single"), (8, "vmap"), (8, "wide:8"), *((1, method) for method in TORCH),
        (64, "vmap"), (64, "wide:8"), (64, "map"), (64, "chunks:8"), (8, "map"),
        (256, "vmap"), (256, "wide:8"), (256, "map"), (256, "chunks:8"),
    ),
    BATCH, SIDE, 0.3, 20, 2**30, False,
)  # fmt: skip
DRY_RUN = Setting(
    (
        (1, "single"), (2, "vmap"), (2, "wide:2"), *((1, method) for method in TORCH),
        (2, "map"), (2, "chunks:2"),
    ),
    2, 32, 0.0, 1, 2**22, True,
)  # fmt: skip


class Device(NamedTuple):
    """The device that computes."""

    description: str
    dtype: str  # of the activations
    bandwidth: float  # of its memory, bytes per second


class Row(NamedTuple):
    net: str
    members: int
    method: str  # of `TORCH`, "single", or as in `tinyjax_calls.batch_step`


class Result(NamedTuple):
    seconds: list[float]  # of a step, by round
    build_seconds: float  # tracing and compiling
    counted_bytes: float = math.nan  # that a member's step moves, as the compiler counts them


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--budget", type=float, default=480, metavar="SECONDS")
    parser.add_argument("--net", nargs="*", default=NETS)
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args(argv)
    with end_after(options.budget):
        print_table(options.net, options.budget, options.dry_run)
    return 0


def print_table(nets: Sequence[str], budget: float, dry_run: bool) -> None:
    """Print a line per row. Raises UserError if there is no accelerator."""
    start = time.monotonic()
    setting = DRY_RUN if dry_run else FULL
    device = find_device(setting)
    print(timing.describe_machine(*torch_calls.PACKAGES))
    print(
        f"{device.description}; {device.bandwidth / 1e9:.1f} GB/s in a copy\nclassification, batch "
        f"{setting.batch}, {setting.side} x {setting.side}, {device.dtype}; ms and GB per member"
    )
    print(HEADER, flush=True)
    spent: dict[Row, float] = {}
    counted: dict[Row, float] = {}
    for row in (Row(net, *rest) for rest in setting.rows for net in nets):
        # The title comes first: the row that the budget ends in has one, too.
        print(f"{row.net:<18}{row.members:>8}  {row.method:<17}", end="", flush=True)
        begin = time.monotonic()
        if reason := reason_to_skip(row, spent, start + budget - begin):
            print(f"skipped: {reason}", flush=True)
            continue
        print(measure_or_explain(row, setting, device, counted), flush=True)
        spent[row] = time.monotonic() - begin


def measure_or_explain(
    row: Row, setting: Setting, device: Device, counted: dict[Row, float]
) -> str:
    """The numbers of a row, or why it has none. counted: see `Result.counted_bytes`, by row."""
    try:
        if row.method in TORCH:
            result = measure_torch(row, setting)
        else:
            result = measure(row, setting, device)
    except UserError as error:
        return f"skipped: {error}"
    except RuntimeError as error:  # of jax; the other rows are worth having
        reason = str(error).partition("\n")[0]
        return "out of memory" if reason.startswith("RESOURCE_EXHAUSTED") else f"failed: {reason}"
    counted[row] = result.counted_bytes
    return format_result(row, result, counted.get(loop_body(row), math.nan), device.bandwidth)


@contextmanager
def end_after(seconds: float) -> Iterator[None]:
    """End the process when the budget is spent, even if it compiles: a lent machine is paid by the
    minute, and the rows that are printed remain.
    """

    def end():
        print(f"ended: the budget of {seconds:.0f} s is spent", flush=True)
        os._exit(0)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def reason_to_skip(row: Row, spent: Mapping[Row, float], remaining: float) -> str | None:
    """Why the rest of the budget does not suffice for a row; None if it does.

    Most of a row's time is compiling, which depends on the method: a row takes as long as the
    longest one before it of the same method, or else as the longest of all.

    spent: seconds that the rows before it took. remaining: seconds of the budget.
    """
    same_method = [seconds for other, seconds in spent.items() if other.method == row.method]
    expected = max(same_method or spent.values(), default=0.0)
    if expected <= remaining:
        return None
    return f"it would take about {expected:.0f} s, and {max(0.0, remaining):.0f} s are left"


# ---- the device


def find_device(setting: Setting) -> Device:
    """Raises UserError if jax sees only a CPU, unless the setting allows it."""
    import jax

    from tinyjax.run import runtime

    on_cpu = jax.default_backend() == "cpu"
    if on_cpu and not setting.allow_cpu:
        raise UserError(
            f"jax sees only a CPU; on a GPU: pip install 'jax[cuda12]=={jax.__version__}', on a "
            f"TPU: pip install 'jax[tpu]=={jax.__version__}'; --dry-run tries this on a CPU"
        )
    dtype = "float32" if on_cpu else "bfloat16"
    return Device(runtime.describe_devices(), dtype, copy_bandwidth(setting))


def copy_bandwidth(setting: Setting) -> float:
    """Bytes per second that the device's memory reads and writes in a large copy."""
    import jax
    import jax.numpy as jnp

    x = jnp.zeros(setting.copied_bytes // 4, jnp.float32)
    program = jax.jit(lambda x: x + 1, donate_argnums=0).lower(x).compile()

    def run(steps):
        nonlocal x
        for _ in range(steps):
            x = program(x)
        x.block_until_ready()

    return 2 * setting.copied_bytes / statistics.median(time_rounds(run, setting.round_seconds))


def time_rounds(run: Callable[[int], None], round_seconds: float) -> list[float]:
    """Seconds per step, in each round. run: makes a number of steps, then waits for the device."""

    def seconds(steps):
        start = time.perf_counter()
        run(steps)
        return (time.perf_counter() - start) / steps

    run(1)  # the first step also loads the program
    steps = max(1, int(round_seconds / seconds(1)))
    return [seconds(steps) for _ in range(ROUNDS)]


# ---- rows


def measure(row: Row, setting: Setting, device: Device) -> Result:
    """Compile and time the step of a population."""
    import jax

    members = 0 if row.method == "single" else row.members
    step, state, data, hyper = tinyjax_calls.make_classification(
        row.net, setting.batch, members, row.method, setting.side, device.dtype
    )
    start = time.perf_counter()
    program = jax.jit(step, donate_argnums=0).lower(state, data, hyper).compile()
    build_seconds = time.perf_counter() - start

    def run(steps):
        nonlocal state
        for _ in range(steps):
            state, metrics = program(state, data, hyper)
        metrics["loss"].block_until_ready()

    counts = program.cost_analysis() or {}
    counted_bytes = counts.get("bytes accessed", math.nan) / row.members
    return Result(time_rounds(run, setting.round_seconds), build_seconds, counted_bytes)


def loop_body(row: Row) -> Row:
    """The row whose program is the body of this row's loop over members, or over chunks of them.

    Its bytes are those of an iteration. The compiler's count for the loop is not: it counts the
    body once, and the arrays of all members where the body reads a slice of them.
    """
    method, _, chunk_size = row.method.partition(":")
    if method == "map":
        return Row(row.net, 1, "single")
    if method in ("chunks", "wide"):
        return Row(row.net, int(chunk_size), "vmap" if method == "chunks" else row.method)
    return row


def measure_torch(row: Row, setting: Setting) -> Result:
    """Time torch in a process of its own, which shares neither libraries nor memory with jax.

    Raises UserError if torch is missing or has no GPU.
    """
    arguments = (
        row.net, setting.batch, setting.side, setting.torch_steps, TORCH[row.method],
        setting.allow_cpu,
    )  # fmt: skip
    build = torch_calls.torch_device_steps
    result = timing.compare({row.method: (build, arguments)}, ROUNDS)
    if result.unavailable:
        raise UserError(result.unavailable[0].removeprefix(f"{row.method}: "))
    seconds = [value / setting.torch_steps for value in result.seconds[row.method]]
    return Result(seconds, result.build_seconds[row.method])


def format_result(row: Row, result: Result, counted_bytes: float, bandwidth: float) -> str:
    """counted_bytes: those that a member's step moves at least; nan: unknown."""
    milliseconds = [1e3 * seconds / row.members for seconds in result.seconds]
    low, median, high = statistics.quantiles(milliseconds, n=4)
    floor = 1e3 * counted_bytes / bandwidth
    numbers = f"{floor:>9.3f}{median / floor:>8.2f}{counted_bytes / 1e9:>8.3f}"
    if math.isnan(floor):
        numbers = f"{'-':>9}{'-':>8}{'-':>8}"
    return f"{f'{median:.3f} ± {(high - low) / 2:.3f}':>17}{numbers}{result.build_seconds:>9.1f}"


if __name__ == "__main__":
    sys.exit(run_command(main))
