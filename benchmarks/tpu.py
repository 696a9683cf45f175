"""What XLA:TPU makes of a training step for one v5e chip, counted by its compiler without a chip.

    python -m benchmarks.tpu [--net mobilenetv3/s-3] [--batch 64] [--members 8]

Needs `pip install jax[tpu]`. These are counts, not times: they say which form moves fewer bytes,
not which one is faster.
"""

import argparse
import os
import time
from collections.abc import Callable
from unittest.mock import patch

# Without these it looks for the machine it is not on, for minutes.
QUIET = {
    "JAX_PLATFORMS": "cpu",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_LOG_DIR": "disabled",
}
FORMS = {  # which kernels leave the library's call for the form we have on CPU
    "library": (),
    "pointwise as matmul": ("pointwise",),
    "depthwise as shifts": ("depthwise",),
    "all of CPU's forms": ("pointwise", "depthwise", "dense"),
}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--net", default="mobilenetv3/s-3")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--members", type=int, default=8)
    options = parser.parse_args(argv)
    os.environ.update(QUIET)

    from benchmarks import contest, ours

    if contest.version("libtpu") is None:
        raise SystemExit("libtpu is not installed: pip install 'jax[tpu]'")
    print(contest.machine("libtpu"))
    print(f"{options.net}, batch {options.batch}, {ours.SIDE} x {ours.SIDE}, bfloat16; per member")
    print(f"{'':<28}{'':<22}{'GFLOP':>8}{'GB moved':>10}{'peak MiB':>10}{'compile s':>11}")
    for lift in ("alone", "vmap", "map"):
        members = 1 if lift == "alone" else options.members
        for form, kinds in [*FORMS.items()][: 1 if lift == "map" else None]:
            with patch("tinyjax.ops.conv.lax.platform_dependent", choose(kinds)):
                counts = count(options.net, options.batch, lift, members)
            name = lift if members == 1 else f"{members} members, {lift}"
            print(f"{name:<28}{form:<22}{counts}", flush=True)


def choose(kinds: tuple[str, ...]) -> Callable:
    """A `lax.platform_dependent` that takes CPU's form of convolutions of these kinds."""

    def platform_dependent(x, kernel, *rest, cpu, default):
        groups = cpu.keywords["groups"]
        kind = "pointwise" if kernel.shape[:2] == (1, 1) else "dense"
        return (cpu if ("depthwise" if groups > 1 else kind) in kinds else default)(
            x, kernel, *rest
        )

    return platform_dependent


def count(net: str, batch: int, lift: str, members: int) -> str:
    """A row of the table."""
    import jax
    import jax.numpy as jnp
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    from benchmarks import ours

    chip = topologies.get_topology_desc(
        topology_name="v5e:1x1", platform="tpu", chips_per_host_bounds=(1, 1, 1)
    ).devices[0]

    def described(leaf):
        shape = leaf.shape if lift == "alone" else (members, *leaf.shape)
        return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=SingleDeviceSharding(chip))

    take, state, hyper = ours.classifier_step(net)
    images = jax.ShapeDtypeStruct((batch, ours.SIDE, ours.SIDE, 3), jnp.bfloat16)
    data = {"images": images, "labels": jax.ShapeDtypeStruct((batch,), jnp.int32)}
    args = jax.tree.map(described, (state, data, hyper))
    if lift != "alone":
        take = ours.lifted(take, lift)
    lowered = jax.jit(take, donate_argnums=0).trace(*args).lower()
    begin = time.perf_counter()
    program = lowered.compile()
    seconds = time.perf_counter() - begin
    cost, memory = program.cost_analysis(), program.memory_analysis()
    share = 1 if lift == "map" else members  # a loop's body is counted once
    flops, moved = cost["flops"] / share, cost["bytes accessed"] / share
    peak = memory.temp_size_in_bytes / members
    return f"{flops / 1e9:>8.2f}{moved / 1e9:>10.3f}{peak / 2**20:>10.1f}{seconds:>11.0f}"


if __name__ == "__main__":
    main()
