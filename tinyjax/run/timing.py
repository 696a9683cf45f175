"""Timing of calls that take turns, in processes of their own, so that noise of the machine affects
all of them alike and none shares its threads with another.
"""

import multiprocessing
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from tinyjax.errors import UserError

WARMUP_ROUNDS = 3
Call = Callable[[], Any]  # returns only when its result is ready
# Builds the timed calls of a process, by name; its arguments. It may raise ImportError or UserError
# with a message that says what to install or to give.
Candidate = tuple[Callable[..., Mapping[Any, Call]], tuple]


class Comparison(NamedTuple):
    """Times of the calls of all processes."""

    seconds: dict[Any, dict[Any, list[float]]]  # process -> call -> seconds of each round
    build_seconds: dict[Any, float]  # of each process
    unavailable: dict[Any, str]  # process that could not be built -> why


def compare(candidates: Mapping[Any, Candidate], rounds: int) -> Comparison:
    """Time all calls in turn, `rounds` times. candidates: by name of their process."""
    spawn = multiprocessing.get_context("spawn")
    pipes, names, build_seconds, unavailable = {}, {}, {}, {}
    for process, candidate in candidates.items():
        pipe, child_pipe = spawn.Pipe()
        # Not a daemon, which could not start workers. The process ends when its pipe is closed.
        spawn.Process(target=_serve, args=(child_pipe, *candidate)).start()
        child_pipe.close()  # so that the pipe closes if the process ends
        try:
            reply = pipe.recv()  # wait: processes are built one at a time, with all cores
        except EOFError:
            reply = "its process ended during the build; its output is above"
        if isinstance(reply, str):
            unavailable[process] = reply
        else:
            pipes[process], (build_seconds[process], names[process]) = pipe, reply
    seconds: dict[Any, dict[Any, list[float]]] = {
        process: {name: [] for name in names[process]} for process in pipes
    }
    try:
        for round_ in range(WARMUP_ROUNDS + rounds):
            for process, pipe in pipes.items():
                for name in names[process]:
                    pipe.send(name)
                    elapsed = pipe.recv()
                    if round_ >= WARMUP_ROUNDS:
                        seconds[process][name].append(elapsed)
    finally:
        for pipe in pipes.values():
            pipe.close()
    return Comparison(seconds, build_seconds, unavailable)


def _serve(pipe: Connection, build: Callable, args: tuple) -> None:
    """Build the calls, then time one for each name that is received."""
    start = time.perf_counter()
    try:
        calls = build(*args)
    except (ImportError, UserError) as error:
        pipe.send(str(error))
        return
    pipe.send((time.perf_counter() - start, [*calls]))
    while True:
        try:
            call = calls[pipe.recv()]
        except EOFError:
            return
        call()  # not timed: the other calls evicted the caches
        start = time.perf_counter()
        call()
        pipe.send(time.perf_counter() - start)


def processor_name() -> str:
    """The model of this machine's processor."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.partition(":")[2].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def find_version(package: str) -> str | None:
    """The version of a package, or None if it is not installed."""
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return None
