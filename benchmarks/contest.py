"""How contestants are timed: each in a process of its own, as its users run it, and in turn, so
that a noisy machine is noisy for all of them.
"""

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from multiprocessing.connection import Connection
from typing import Any

WARM = 3  # rounds that are not counted
Contestant = tuple[Callable[..., Callable[[], Any]], tuple]  # what builds a call, and its arguments
Times = dict[str, list[float]]


def race(contestants: dict[str, Contestant], rounds: int) -> tuple[Times, dict[str, float], list]:
    """Seconds of each one's call, round by round; seconds it took to build; what kept the others
    out, a line each.

    A call returns when its result is there. A contestant is built by a function that may raise
    ImportError, with what to install.
    """
    spawn = multiprocessing.get_context("spawn")
    pipes, built, absent = {}, {}, []
    for name, contestant in contestants.items():
        pipe, theirs = spawn.Pipe()
        # No daemon: it may have workers of its own. It ends when its pipe does.
        spawn.Process(target=_serve, args=(theirs, *contestant)).start()
        theirs.close()  # so that the end of a contestant is the end of the pipe
        try:
            ready = pipe.recv()  # one is built at a time: the cores are its own
        except EOFError:
            ready = "ended while it was built; what it said is above"
        if isinstance(ready, str):
            absent.append(f"{name}: {ready}")
        else:
            pipes[name], built[name] = pipe, ready
    times: Times = {name: [] for name in pipes}
    try:
        for round_ in range(WARM + rounds):
            for name, pipe in pipes.items():
                pipe.send(True)
                seconds = pipe.recv()
                if round_ >= WARM:
                    times[name].append(seconds)
    finally:
        for pipe in pipes.values():
            pipe.close()
    return times, built, absent


def _serve(pipe: Connection, build: Callable, args: tuple) -> None:
    begin = time.perf_counter()
    try:
        call = build(*args)
    except ImportError as error:
        pipe.send(str(error))
        return
    pipe.send(time.perf_counter() - begin)
    while _asked(pipe):
        call()  # not counted: it finds the caches as the one before left them
        begin = time.perf_counter()
        call()
        pipe.send(time.perf_counter() - begin)


def _asked(pipe: Connection) -> bool:
    try:
        return pipe.recv()
    except EOFError:
        return False


def print_race(title: str, contestants: dict[str, Contestant], rounds: int) -> None:
    """The first one's milliseconds, and those of each other with the ratio of the first to it."""
    times, built, absent = race(contestants, rounds)
    first, *_ = contestants
    for name, own in times.items():
        line = f"{title:<20}{name:<22}{milliseconds(own):>16}"
        line += f"{'' if name == first else f'{ratio(times[first], own):.2f}':>8}"
        print(f"{line}{built[name]:>10.1f}", flush=True)
    for line in absent:
        print(f"{title:<20}{line}", flush=True)


HEADER = f"{'':<20}{'':<22}{'ms':>16}{'ratio':>8}{'build s':>10}"


def milliseconds(times: list[float]) -> str:
    """The median, and how far the quartiles are from it."""
    low, median, high = statistics.quantiles(times, n=4)
    return f"{1e3 * median:.1f} ± {1e3 * (high - low) / 2:.1f}"


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over the rounds of ours / theirs in the same round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def machine(*packages: str) -> str:
    """What a table was measured on: processor, cores, versions of jax and of `packages`."""
    try:
        with open("/proc/cpuinfo") as lines:
            name = next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    versions = (
        f"{package} {version(package) or 'not installed'}" for package in ("jax", "flax", *packages)
    )
    return f"{os.cpu_count()} cores of {name}; {', '.join(versions)}"


def version(package: str) -> str | None:
    """Of an installed package; None of another."""
    try:
        return installed(package)
    except PackageNotFoundError:
        return None
