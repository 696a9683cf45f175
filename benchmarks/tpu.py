"""Costs of a training step on one TPU v5e chip, counted by XLA's compiler without hardware.

    python -m benchmarks.tpu [--net mobilenetv3/s-3] [--batch 64] [--members 8] [--effort -1]

Needs `pip install jax[tpu]`. These are counts, not times: they show which form moves fewer bytes,
not which one is faster. "tiles" is the bytes of all arrays in the chip's tiles, divided by those of
their values; below each row are the two operations with the most padding.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from benchmarks import timing, tinyjax_calls
from benchmarks.common import SIDE
from tinyjax import preflight
from tinyjax.errors import run_command

FORMS = {  # name -> types of convolution that use our CPU form instead of XLA's convolution
    "XLA convolution": (),
    "pointwise as matmul": ("pointwise",),
    "depthwise as shifts": ("depthwise",),
    "all CPU forms": ("pointwise", "depthwise", "dense"),
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", default="mobilenetv3/s-3")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--side", type=int, default=SIDE, help="of the images, in pixels")
    parser.add_argument("--effort", type=float, default=0, help="of the compiler; -1: the lowest")
    options = parser.parse_args(argv)
    (chip,) = preflight.find_target("v5litepod-1").devices
    print(timing.describe_machine("libtpu"))
    print(
        f"{options.net}, batch {options.batch}, {options.side} x {options.side}, bfloat16, "
        f"compiler effort {options.effort:g}; per member"
    )
    print(
        f"{'':<28}{'':<22}{'GFLOP':>8}{'GB moved':>10}{'tiles':>7}{'peak MiB':>10}{'compile s':>11}"
    )
    for batching in ("single", "vmap", "map", f"wide:{options.members}"):
        members = 1 if batching == "single" else options.members
        # A loop has the operations of a single network; wide has convolutions of its own.
        forms = FORMS if batching in ("single", "vmap") else {"XLA convolution": ()}
        for form, kernels in forms.items():
            with patch("tinyjax.ops.conv.lax.platform_dependent", use_cpu_forms(kernels)):
                counts = count_costs(options, batching, members, chip)
            name = "single network" if members == 1 else f"{members} members, {batching}"
            print(f"{name:<28}{form:<22}{counts}", flush=True)
    return 0


def use_cpu_forms(kernels: tuple[str, ...]) -> Callable:
    """Return a `lax.platform_dependent` that selects the CPU form of these kernels only."""

    def platform_dependent(x, kernel, *rest, cpu, default):
        groups = cpu.keywords["groups"]
        dense = "pointwise" if kernel.shape[:2] == (1, 1) else "dense"
        function = cpu if ("depthwise" if groups > 1 else dense) in kernels else default
        return function(x, kernel, *rest)

    return platform_dependent


def count_costs(options: argparse.Namespace, batching: str, members: int, chip: Any) -> str:
    """Return a row of the table: FLOPs, bytes moved, bytes in tiles, peak memory, compile time, and
    the operations with the most padding.
    """
    import jax
    import jax.numpy as jnp
    from jax.sharding import SingleDeviceSharding

    from tinyjax.population import tiling

    def abstract(leaf):
        shape = leaf.shape if batching == "single" else (members, *leaf.shape)
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=SingleDeviceSharding(chip))

    step, state, hyper = tinyjax_calls.make_classifier_step(options.net, "bfloat16", batching)
    shape = (options.batch, options.side, options.side, 3)
    data = {
        "image": jax.ShapeDtypeStruct(shape, jnp.bfloat16),
        "labels": jax.ShapeDtypeStruct((options.batch,), jnp.int32),
    }
    args = jax.tree.map(abstract, (state, data, hyper))
    if batching != "single":
        step = tinyjax_calls.batch_step(step, batching)
    lowered = jax.jit(step, donate_argnums=0).trace(*args).lower()
    start = time.perf_counter()
    program = lowered.compile(compiler_options={"exec_time_optimization_effort": options.effort})
    seconds = time.perf_counter() - start
    cost, memory = program.cost_analysis() or {}, program.memory_analysis()
    counted = 1 if batching == "map" else members  # the body of a loop is counted once
    flops, moved = cost["flops"] / counted, cost["bytes accessed"] / counted
    operations = tiling.read_operations(program.as_text())
    logical, padded = tiling.logical_and_padded(operations)
    peak = memory.temp_size_in_bytes / members
    row = (
        f"{flops / 1e9:>8.2f}{moved / 1e9:>10.3f}{padded / logical:>7.2f}{peak / 2**20:>10.1f}"
        f"{seconds:>11.0f}"
    )
    wasteful = (tiling.describe_padding(op) for op in tiling.most_wasteful(operations, 2))
    return "\n    ".join((row, *wasteful))


if __name__ == "__main__":
    sys.exit(run_command(main))
