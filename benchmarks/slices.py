"""What XLA:TPU makes of one population's step on slices of a TPU pod, without one.

    python -m benchmarks.slices [--members 64] [--net mobilenetv3/s-3] [--slice v5litepod-8 ..]

A detector's step on batches of 8 windows of 144 x 144 in bfloat16. Times are the least that
arithmetic and memory traffic allow.
"""

import argparse
import os

from tinyjax import preflight
from tinyjax.run import accelerators

NAMES = [
    f"{prefix}-{chips}"
    for prefix in ("v5litepod", "v6e")
    for chips in (1, 4, 8, 16, 32, 64, 128, 256)
]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=64)
    parser.add_argument("--net", default="mobilenetv3/s-3")
    parser.add_argument("--slice", nargs="*", default=NAMES)
    parser.add_argument("--member-batching", choices=("map", "vmap"), default="map")
    parser.add_argument("--effort", type=float, default=-1, help="the compiler's; 0: the usual")
    options = parser.parse_args(argv)
    os.environ.update(preflight.QUIET)

    import jax

    jax.config.update("jax_platforms", "cpu")
    from benchmarks import contest
    from tinyjax.population import compiler

    print(contest.machine("libtpu"))
    print(f"{options.members} members of {options.net}, by {options.lift}")
    print(
        f"{'slice':<15}{'machines':>9}{'members x shards':>18}{'a chip':>8}{'GiB':>8}"
        f"{'ms a step':>11}{'across':>8}{'within':>8}{'compile s':>11}"
    )
    config, members, kind, training = population(options.net, options.members)
    for name in options.slice:
        found = accelerators.named(name)
        target = preflight.target_of(name)
        lowered = compiler.lower_step(config, members, kind, training, target.devices, options.lift)
        counts = compiler.compile_step(lowered, options.effort)
        seconds, _ = preflight.at_best(counts, found.chip)
        grid = " x ".join(str(n) for n in lowered.devices.mesh.devices.shape)
        print(
            f"{name:<15}{found.hosts:>9}{grid:>18}{lowered.devices.own:>8}"
            f"{counts.needs / 2**30:>8.2f}{1e3 * seconds:>11.2f}{counts.across:>8}"
            f"{counts.within:>8}{counts.seconds:>11.0f}",
            flush=True,
        )


def population(net: str, many: int):
    """A sweep over seeds on synthetic scenes."""
    from tinyjax import tasks
    from tinyjax.config.defaults import detector
    from tinyjax.population import search_space

    config = detector()
    config.model.backbone, config.model.dtype = net, "bfloat16"
    config.data.format, config.data.common = "synthetic", {"size": (256, 320)}
    config.data.train, config.data.suites = {"n": 64}, {"val": {"n": 4, "seed": 1}}
    config.crop_size, config.batch = (144, 144), 8
    kind = tasks.module(config.task)
    members = search_space.make_members(config, search_space.sweep("seed", range(many)))
    return config, members, kind, kind.load(config.data, config.data.train)


if __name__ == "__main__":
    main()
