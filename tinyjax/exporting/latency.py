"""The latency of runs and exported files: calls in processes of their own, and rows of times."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinyjax.errors import UserError
from tinyjax.exporting.formats import RUNTIMES
from tinyjax.exporting.runtimes import all_cores
from tinyjax.run import timing
from tinyjax.run.logs import log

RUN_RUNTIME = "tinyjax"  # the name of the runtime of a run
Process = tuple[str, int]  # the name of a runtime, and its number of cores; 0: all


class Target(NamedTuple):
    """What is timed: a file, or a run."""

    name: str
    path: Path
    outputs: str  # what it computes
    images: np.ndarray  # [N, 1, H, W, C], of the dtype that it reads


def file_processes(
    files: Sequence[Target], threads: Sequence[int]
) -> dict[Process, timing.Candidate]:
    """A process for each number of threads and each runtime that reads some of the files."""
    processes: dict[Process, timing.Candidate] = {}
    for count in threads:
        for name, runtime in RUNTIMES.items():
            if readable := [file for file in files if file.path.suffix == runtime.suffix]:
                processes[name, count] = (build_files, (name, readable, count))
    return processes


def measure(
    processes: Mapping[Process, timing.Candidate], targets: Sequence[Target], rounds: int
) -> list[dict[str, Any]]:
    """Time all calls of the processes in turn. targets: what the calls are named after.

    Returns a row for each call. Raises UserError if nothing could be timed.
    """
    result = timing.compare(processes, rounds)
    for (name, _), reason in result.unavailable.items():
        log.warning(f"{name}: not timed: {reason}")
    outputs = {target.name: target.outputs for target in targets}
    device, rows = f"{timing.processor_name()}, cores: {all_cores()}", []
    for (runtime_name, count), calls in result.seconds.items():
        package = "jax" if runtime_name == RUN_RUNTIME else RUNTIMES[runtime_name].package
        for name, seconds in calls.items():
            low, median, high = np.quantile(seconds, (0.25, 0.5, 0.75)) * 1e3
            rows.append({
                "name": name,
                "outputs": outputs[name],
                "runtime": runtime_name,
                "version": f"{package} {timing.find_version(package)}",
                "threads": count or "all",
                "median_ms": float(median),
                "q1_ms": float(low),
                "q3_ms": float(high),
                "rounds": len(seconds),
                "device": device,
            })  # fmt: skip
    if not rows:
        raise UserError("nothing could be timed; the reasons are above")
    return rows


# ---- in a process of their own


def limit_cores(threads: int) -> int:
    """Restrict this process to `threads` cores, 0: all, where the system allows it, and return
    their number.
    """
    if threads and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    return threads or all_cores()


def build_files(
    runtime_name: str, targets: Sequence[Target], threads: int
) -> dict[str, Callable[[], Any]]:
    """Calls of files in a runtime, by name of the file."""
    threads = limit_cores(threads)
    load = RUNTIMES[runtime_name].load

    def make_call(target: Target) -> Callable[[], Any]:
        run, images = load(target.path, threads), turns(target.images)
        return lambda: run(next(images))

    return {target.name: make_call(target) for target in targets}


def turns(images: Any) -> Iterator[Any]:
    """The images in turn, each twice: for the call that is not timed, and for the one that is."""
    return cycle([image for image in images for _ in range(2)])
