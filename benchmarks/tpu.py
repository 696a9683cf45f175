"""Costs of a training step on one TPU v5e chip, counted by XLA's compiler without hardware.

    python -m benchmarks.tpu [--net mobilenetv3/s-3] [--batch 64] [--members 8]

Needs `pip install jax[tpu]`. These are counts, not times: they show which form moves fewer bytes,
not which one is faster.
"""

import argparse
import os
import time
from collections.abc import Callable
from unittest.mock import patch

# Without these, libtpu spends minutes searching for a TPU machine.
LIBTPU_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_LOG_DIR": "disabled",
}
FORMS = {  # name -> types of convolution that use our CPU form instead of XLA's convolution
    "XLA convolution": (),
    "pointwise as matmul": ("pointwise",),
    "depthwise as shifts": ("depthwise",),
    "all CPU forms": ("pointwise", "depthwise", "dense"),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", default="mobilenetv3/s-3")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--members", type=int, default=8)
    options = parser.parse_args(argv)
    os.environ.update(LIBTPU_ENVIRONMENT)

    from benchmarks import timing
    from benchmarks.common import SIDE

    if timing.find_version("libtpu") is None:
        raise SystemExit("libtpu is not installed: pip install 'jax[tpu]'")
    print(timing.describe_machine("libtpu"))
    print(f"{options.net}, batch {options.batch}, {SIDE} x {SIDE}, bfloat16; per member")
    print(f"{'':<28}{'':<22}{'GFLOP':>8}{'GB moved':>10}{'peak MiB':>10}{'compile s':>11}")
    for method in ("single", "vmap", "map"):
        members = 1 if method == "single" else options.members
        for form, kernels in [*FORMS.items()][: 1 if method == "map" else None]:
            with patch("tinyjax.ops.conv.lax.platform_dependent", use_cpu_forms(kernels)):
                counts = count_costs(options.net, options.batch, method, members)
            name = "single network" if members == 1 else f"{members} members, {method}"
            print(f"{name:<28}{form:<22}{counts}", flush=True)


def use_cpu_forms(kernels: tuple[str, ...]) -> Callable:
    """Return a `lax.platform_dependent` that selects the CPU form of these kernels only."""

    def platform_dependent(x, kernel, *rest, cpu, default):
        groups = cpu.keywords["groups"]
        dense = "pointwise" if kernel.shape[:2] == (1, 1) else "dense"
        function = cpu if ("depthwise" if groups > 1 else dense) in kernels else default
        return function(x, kernel, *rest)

    return platform_dependent


def count_costs(net: str, batch: int, method: str, members: int) -> str:
    """Return a row of the table: FLOPs, bytes moved, peak memory and compile time."""
    import jax
    import jax.numpy as jnp
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    from benchmarks import tinyjax_calls
    from benchmarks.common import SIDE

    chip = topologies.get_topology_desc(
        topology_name="v5e:1x1", platform="tpu", chips_per_host_bounds=(1, 1, 1)
    ).devices[0]

    def abstract(leaf):
        shape = leaf.shape if method == "single" else (members, *leaf.shape)
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=SingleDeviceSharding(chip))

    step, state, hyper = tinyjax_calls.make_classifier_step(net)
    images = jax.ShapeDtypeStruct((batch, SIDE, SIDE, 3), jnp.bfloat16)
    data = {"image": images, "labels": jax.ShapeDtypeStruct((batch,), jnp.int32)}
    args = jax.tree.map(abstract, (state, data, hyper))
    if method != "single":
        step = tinyjax_calls.batch_step(step, method)
    lowered = jax.jit(step, donate_argnums=0).trace(*args).lower()
    start = time.perf_counter()
    program = lowered.compile()
    seconds = time.perf_counter() - start
    cost, memory = program.cost_analysis(), program.memory_analysis()
    counted = 1 if method == "map" else members  # the body of a loop is counted once
    flops, moved = cost["flops"] / counted, cost["bytes accessed"] / counted
    peak = memory.temp_size_in_bytes / members
    return f"{flops / 1e9:>8.2f}{moved / 1e9:>10.3f}{peak / 2**20:>10.1f}{seconds:>11.0f}"


if __name__ == "__main__":
    main()
