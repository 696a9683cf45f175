"""Costs of a population's step on slices of a TPU pod, counted by XLA's compiler without hardware.

    python -m benchmarks.slices [--members 64] [--net mobilenetv3/s-3] [--slice v5litepod-8 ..]
        [--member-batching wide:8] [--batch 8]

The step is that of a detector, on windows of 144 x 144 in bfloat16. Times are lower bounds from
arithmetic and memory traffic; MB are those that a chip moves per member.
"""

import argparse
import sys

from benchmarks import timing
from tinyjax import preflight
from tinyjax.errors import run_command
from tinyjax.population.options import parse_member_batching
from tinyjax.run import accelerators

SLICES = [
    f"{prefix}-{chips}"
    for prefix in ("v5litepod", "v6e")
    for chips in (1, 4, 8, 16, 32, 64, 128, 256)
]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=64)
    parser.add_argument("--net", default="mobilenetv3/s-3")
    parser.add_argument("--batch", type=int, default=8, help="windows per member")
    parser.add_argument("--slice", nargs="*", default=SLICES)
    parser.add_argument("--member-batching", default="map", metavar="METHOD")
    parser.add_argument("--effort", type=float, default=-1, help="of the compiler; 0: the default")
    options = parser.parse_args(argv)
    parse_member_batching(options.member_batching)
    method, _, chunk_size = options.member_batching.partition(":")
    # Before jax looks for devices of this machine.
    targets = {name: preflight.find_target(name) for name in options.slice}

    from tinyjax.population import compiler

    print(timing.describe_machine("libtpu"))
    print(f"{options.members} members of {options.net}, by {options.member_batching}")
    print(
        f"{'slice':<15}{'machines':>9}{'members x shards':>18}{'per chip':>10}{'GiB':>8}"
        f"{'MB':>8}{'ms/step':>11}{'across':>8}{'within':>8}{'compile s':>11}"
    )
    config, members, task, training = population(options.net, options.members, options.batch)
    for name, target in targets.items():
        tpu_slice = accelerators.find_slice(name)
        lowered = compiler.lower_step(
            config, members, task, training, target.devices, method, int(chunk_size or 0)
        )
        counts = compiler.compile_step(lowered, options.effort)
        seconds, _ = preflight.roofline(counts, tpu_slice.chip)
        members_per_chip = lowered.layout.members_per_device
        grid = " x ".join(str(n) for n in lowered.layout.mesh.devices.shape)
        print(
            f"{name:<15}{tpu_slice.hosts:>9}{grid:>18}{members_per_chip:>10}"
            f"{counts.memory / 2**30:>8.2f}{counts.bytes_moved / members_per_chip / 1e6:>8.0f}"
            f"{1e3 * seconds:>11.2f}{counts.collectives_across:>8}"
            f"{counts.collectives_within:>8}{counts.compile_seconds:>11.0f}",
            flush=True,
        )
    return 0


def population(net: str, size: int, batch: int = 8):
    """Return config, members, task and training split of a sweep over seeds on synthetic scenes."""
    from tinyjax.config import detector
    from tinyjax.population import search_space
    from tinyjax.tasks import get_task

    config = detector()
    config.model.backbone, config.model.dtype = net, "bfloat16"
    config.data.format, config.data.common = "synthetic", {"size": (256, 320)}
    config.data.train, config.data.suites = {"n": 64}, {"val": {"n": 4, "seed": 1}}
    config.crop_size, config.batch = (144, 144), batch
    task = get_task(config.task)
    members = search_space.make_members(config, search_space.sweep("seed", range(size)))
    return config, members, task, task.load(config.data, config.data.train)


if __name__ == "__main__":
    sys.exit(run_command(main))
