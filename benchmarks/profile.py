"""Where the time of a training step goes.

    python -m benchmarks.profile [--config configs/hit_uav.py] [--steps 10] [--rows 12]

Runs the config's compiled step on its own data under jax's profiler and adds up the time of its
operations: by what they are for, and the longest one by one. Operations that run at the same time
count twice.
"""

import argparse
import gzip
import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

PARTS = (  # what an operation is for, by its path in the traced program; the first that fits
    ("no name: copies", r"^$"),
    ("augmentation", r"augmentation"),
    ("assignment and loss", r"\bloss\b"),
    ("BatchNorm", r"bn\d*/"),
    ("depthwise convolution", r"/depthwise/"),
    ("squeeze-excite", r"/se/"),
    ("other convolution", r"branch_\d_fun"),
    ("activation, sum, upsampling", r"jvp\("),
    ("batch, optimizer, average, guard", r""),
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rows", type=int, default=12)
    options = parser.parse_args(argv)
    begin = time.perf_counter()
    call, text = training_step(options.config)
    print(f"{options.config}: built in {time.perf_counter() - begin:.0f} s")
    for _ in range(3):
        call()
    begin = time.perf_counter()
    for _ in range(options.steps):
        call()
    print(f"a step takes {1e3 * (time.perf_counter() - begin) / options.steps:.1f} ms unprofiled")
    paths, spent = operations(text), traced(call, options.steps)
    whole = sum(spent.values())
    parts: Counter = Counter()
    for name, seconds in spent.items():
        parts[part(paths.get(name, ""))] += seconds
    print(f"{1e3 * whole:8.1f} ms in {len(spent)} operations")
    for (what, way), seconds in parts.most_common():
        print(f"{1e3 * seconds:8.2f} {100 * seconds / whole:5.1f} %  {what:<34}{way}")
    for name, seconds in spent.most_common(options.rows):
        print(f"{1e3 * seconds:8.2f} {name:<36}{paths.get(name, '')[-90:]}")


def training_step(spec: str) -> tuple[Callable[[], Any], str]:
    """A call that takes one step as `tinyjax.train` does, and the text of the compiled program."""
    from tinyjax.run import runtime

    runtime.tune_allocator()

    import jax

    from tinyjax import step, tasks
    from tinyjax.config import load
    from tinyjax.data.sampling import batch_indices, gather

    config = load(spec)
    kind = tasks.module(config.task)
    training = kind.load(config.data, config.data.train)
    data, n = kind.on_device(training), len(training.images)
    task = kind.make_task(config, training.classes, training.images.shape[3])
    o, s = config.optimizer, config.schedule
    tx = step.make_optimizer(o.name, o.momentum, o.b2, o.clip)
    take = step.make_step(task, tx, step.make_schedule(s.steps, s.warmup, s.flat, s.end))
    state, hyper = step.init_state(task.init(0), tx), tasks.hyper_of(config)

    def train_step(state, data, hyper):
        index = batch_indices(hyper["seed"], state.step, config.batch, n)
        return take(state, gather(data, index), hyper)

    program = jax.jit(train_step, donate_argnums=0).lower(state, data, hyper).compile()

    def call():
        nonlocal state
        state, metrics = program(state, data, hyper)
        metrics["loss"].block_until_ready()

    return call, program.as_text() or ""


def operations(text: str) -> dict[str, str]:
    """Name of an instruction -> path of the operation it is from, by a compiled program's text."""
    lines = re.finditer(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name="([^"]*)"', text, re.M)
    return {match[1]: match[2] for match in lines}


def part(path: str) -> tuple[str, str]:
    """What an operation is for, and which way it goes."""
    what = next(name for name, pattern in PARTS if re.search(pattern, path))
    return what, "backward" if "transpose(" in path else "forward" if "jvp(" in path else ""


def traced(call: Callable[[], Any], steps: int) -> Counter:
    """Instruction -> seconds a step."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                call()
        (file,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    spent: Counter = Counter()
    for event in events:
        if "hlo_op" in event.get("args", {}):
            spent[event["args"]["hlo_op"]] += event["dur"] * 1e-6 / steps
    return spent


if __name__ == "__main__":
    main()
