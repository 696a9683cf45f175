"""Timing of candidates, each in its own process, as users run it.

The candidates take turns, so that noise of the machine affects all of them alike.
"""

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

WARMUP_ROUNDS = 3
Candidate = tuple[Callable[..., Callable[[], Any]], tuple]  # builds the timed call; its arguments


class Comparison(NamedTuple):
    """Times of all candidates, by name."""

    seconds: dict[Any, list[float]]  # of each round
    build_seconds: dict[Any, float]
    unavailable: list[str]  # one line per candidate that could not be built


def compare(candidates: Mapping[Any, Candidate], rounds: int) -> Comparison:
    """Time the candidates in turn.

    A call must return only when its result is ready. A candidate's build function may raise
    ImportError with a message that says what to install.
    """
    spawn = multiprocessing.get_context("spawn")
    pipes, build_seconds, unavailable = {}, {}, []
    for name, candidate in candidates.items():
        pipe, child_pipe = spawn.Pipe()
        # Not a daemon, which could not start workers. The process ends when its pipe is closed.
        spawn.Process(target=_serve, args=(child_pipe, *candidate)).start()
        child_pipe.close()  # so that the pipe closes if the process ends
        try:
            reply = pipe.recv()  # wait: candidates are built one at a time, with all cores
        except EOFError:
            reply = "its process ended during the build; its output is above"
        if isinstance(reply, str):
            unavailable.append(f"{name}: {reply}")
        else:
            pipes[name], build_seconds[name] = pipe, reply
    seconds: dict[Any, list[float]] = {name: [] for name in pipes}
    try:
        for round_ in range(WARMUP_ROUNDS + rounds):
            for name, pipe in pipes.items():
                pipe.send(True)
                elapsed = pipe.recv()
                if round_ >= WARMUP_ROUNDS:
                    seconds[name].append(elapsed)
    finally:
        for pipe in pipes.values():
            pipe.close()
    return Comparison(seconds, build_seconds, unavailable)


def _serve(pipe: Connection, build: Callable, args: tuple) -> None:
    """Build a call, then time it once per message."""
    start = time.perf_counter()
    try:
        call = build(*args)
    except ImportError as error:
        pipe.send(str(error))
        return
    pipe.send(time.perf_counter() - start)
    while _is_requested(pipe):
        call()  # not timed: the other candidates evicted the caches
        start = time.perf_counter()
        call()
        pipe.send(time.perf_counter() - start)


def _is_requested(pipe: Connection) -> bool:
    try:
        return pipe.recv()
    except EOFError:
        return False


def print_comparison(title: str, candidates: dict[str, Candidate], rounds: int) -> None:
    """Print the times of all candidates, and the ratio of the first one's time to each other's."""
    seconds, build_seconds, unavailable = compare(candidates, rounds)
    first, *_ = candidates
    for name, times in seconds.items():
        line = f"{title:<20}{name:<22}{milliseconds(times):>16}"
        line += f"{'' if name == first else f'{median_ratio(seconds[first], times):.2f}':>8}"
        print(f"{line}{build_seconds[name]:>10.1f}", flush=True)
    for line in unavailable:
        print(f"{title:<20}{line}", flush=True)


HEADER = f"{'':<20}{'':<22}{'ms':>16}{'ratio':>8}{'build s':>10}"


def milliseconds(seconds: list[float]) -> str:
    """Format the median and half the interquartile range, in milliseconds."""
    low, median, high = statistics.quantiles(seconds, n=4)
    return f"{1e3 * median:.1f} ± {1e3 * (high - low) / 2:.1f}"


def median_ratio(numerators: list[float], denominators: list[float]) -> float:
    """Return the median over rounds of the ratio within a round."""
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def describe_machine(*packages: str) -> str:
    """Return processor, cores, and the versions of jax, flax and `packages`."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            name = next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    versions = (
        f"{package} {find_version(package) or 'not installed'}"
        for package in ("jax", "flax", *packages)
    )
    return f"{os.cpu_count()} cores of {name}; {', '.join(versions)}"


def find_version(package: str) -> str | None:
    """Return the version of a package, or None if it is not installed."""
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return None
