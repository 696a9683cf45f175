"""Time of a training step by category of operations.

    python -m benchmarks.profile [--config configs/hit_uav.py] [--steps 10] [--rows 12]

Runs the config's compiled step on its own data under jax's profiler and sums the time of its
operations by category; the longest operations are also listed one by one. Operations that run
concurrently count twice.
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

CATEGORIES = (  # category, pattern of an operation's path in the traced program; first match wins
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
    start = time.perf_counter()
    call, text = compile_training_step(options.config)
    print(f"{options.config}: built in {time.perf_counter() - start:.0f} s")
    for _ in range(3):
        call()
    start = time.perf_counter()
    for _ in range(options.steps):
        call()
    print(f"a step takes {1e3 * (time.perf_counter() - start) / options.steps:.1f} ms unprofiled")
    paths, operation_seconds = operation_paths(text), profile_operations(call, options.steps)
    total = sum(operation_seconds.values())
    categories: Counter = Counter()
    for name, seconds in operation_seconds.items():
        categories[categorize(paths.get(name, ""))] += seconds
    print(f"{1e3 * total:8.1f} ms in {len(operation_seconds)} operations")
    for (category, direction), seconds in categories.most_common():
        print(f"{1e3 * seconds:8.2f} {100 * seconds / total:5.1f} %  {category:<34}{direction}")
    for name, seconds in operation_seconds.most_common(options.rows):
        print(f"{1e3 * seconds:8.2f} {name:<36}{paths.get(name, '')[-90:]}")


def compile_training_step(spec: str) -> tuple[Callable[[], Any], str]:
    """Build a call of one step of `tinyjax.train`; return it with its compiled program's text."""
    from tinyjax.run import runtime

    runtime.tune_allocator()

    import jax

    from tinyjax import step as steps
    from tinyjax.config import load
    from tinyjax.data.sampling import gather
    from tinyjax.population.networks import input_shapes
    from tinyjax.population.stack import hyper_arrays
    from tinyjax.tasks import get_task

    config = load(spec)
    task = get_task(config.task)
    training = task.load(config.data, config.data.train)
    data = task.device_arrays(training)
    model = task.model_functions(config, training.classes, input_shapes(training))
    o, s = config.optimizer, config.schedule
    tx = steps.make_optimizer(o.name, o.momentum, o.b2, o.clip_norm)
    schedule = steps.make_schedule(s.steps, s.warmup, s.decay_start, s.final_lr_scale)
    step = steps.make_step(model, tx, schedule)
    state, hyper = steps.init_state(model.init(0), tx), hyper_arrays(config)

    def train_step(state, data, hyper):
        index = task.sample(hyper["seed"], state.step, config, data)
        return step(state, gather(data, index), hyper)

    program = jax.jit(train_step, donate_argnums=0).lower(state, data, hyper).compile()

    def call():
        nonlocal state
        state, metrics = program(state, data, hyper)
        metrics["loss"].block_until_ready()

    return call, program.as_text() or ""


def operation_paths(text: str) -> dict[str, str]:
    """Return instruction name -> path of its operation, from the text of a compiled program."""
    lines = re.finditer(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name="([^"]*)"', text, re.M)
    return {match[1]: match[2] for match in lines}


def categorize(path: str) -> tuple[str, str]:
    """Return the category of an operation, and "forward", "backward" or "" for neither."""
    category = next(name for name, pattern in CATEGORIES if re.search(pattern, path))
    return category, "backward" if "transpose(" in path else "forward" if "jvp(" in path else ""


def profile_operations(call: Callable[[], Any], steps: int) -> Counter:
    """Return instruction name -> seconds per step."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            for _ in range(steps):
                call()
        (file,) = Path(folder).rglob("*.trace.json.gz")
        events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    seconds: Counter = Counter()
    for event in events:
        if "hlo_op" in event.get("args", {}):
            seconds[event["args"]["hlo_op"]] += event["dur"] * 1e-6 / steps
    return seconds


if __name__ == "__main__":
    main()
