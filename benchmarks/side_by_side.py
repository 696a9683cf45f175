"""Costs of classifiers side by side on a TPU v5e chip, counted by XLA's compiler without hardware.

    python -m benchmarks.side_by_side [--net mobilenetv3/s-3] [--method wide] [--effort 0]

The step of gradient descent on gray images of 160 x 160 in bfloat16, per member: bytes, which
include the chip's memory, the cycles that the compiler estimates for the program's operations, and
the bytes of arrays in tiles divided by those of their values. "map" compiles one member: the
compiler counts a loop's body once. These are counts, not times.
"""

import argparse
import re
import sys
import time
from typing import Any

from tinyjax import preflight
from tinyjax.errors import run_command

CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
METHODS = ("wide", "vmap", "map")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", default="mobilenetv3/s-3")
    parser.add_argument("--method", choices=METHODS, default="wide")
    parser.add_argument("--members", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--side", type=int, default=160)
    parser.add_argument("--effort", type=float, default=0, help="of the compiler; -1: the lowest")
    options = parser.parse_args(argv)
    (chip,) = preflight.find_target("v5litepod-1").devices
    print(count_costs(options, chip), flush=True)
    return 0


def count_costs(options: argparse.Namespace, chip: Any) -> str:
    """Compile the step for a chip. Returns a line."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import SingleDeviceSharding

    from tinyjax import models
    from tinyjax.population import tiling, wide

    shape = options.side, options.side, 1
    model = models.build(options.net, classes=10, dtype=jnp.bfloat16)
    variables = jax.eval_shape(lambda: models.init(model, 0, (1, *shape)))
    images = jax.ShapeDtypeStruct((options.batch, *shape), jnp.float32)

    def loss(params, rest):
        stats, x = rest
        (logits, _), stats = models.apply(model, params, stats, x, train=True)
        return -jax.nn.log_softmax(logits)[:, 0].mean(), stats

    gradient = jax.value_and_grad(loss, has_aux=True)
    if options.method == "wide":
        gradient = wide.value_and_grad(loss)

    def step(params, stats, x):
        (_, stats), grads = gradient(params, (stats, x))
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), stats

    members = 1 if options.method == "map" else options.members

    def on_chip(leaf):
        axes = () if options.method == "map" else (members,)
        return jax.ShapeDtypeStruct(
            (*axes, *leaf.shape), leaf.dtype, sharding=SingleDeviceSharding(chip)
        )

    function = step if options.method == "map" else jax.vmap(step)
    lowered = jax.jit(function).trace(*jax.tree.map(on_chip, (*variables, images))).lower()
    start = time.perf_counter()
    program = lowered.compile(
        compiler_options={"exec_time_optimization_effort": float(options.effort)}
    )
    seconds, text = time.perf_counter() - start, program.as_text()
    logical, padded = tiling.logical_and_padded(tiling.read_operations(text))
    moved = program.cost_analysis()["bytes accessed"] / members
    cycles = sum(map(int, CYCLES.findall(text))) / members
    scratch = program.memory_analysis().temp_size_in_bytes
    return (
        f"{options.net} by {options.method}, {members} x {options.batch} images: "
        f"{moved / 1e6:.0f} MB and {cycles / 1e3:.0f} k cycles per member, tiles "
        f"{padded / logical:.2f}, {scratch / 2**20:.0f} MiB scratch, compiled in {seconds:.0f} s"
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
