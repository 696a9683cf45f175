"""Processes that run one program together, each with devices of its own: how they meet, what must
be true before they start, and how all of them stop at the same step.

Of one process alone nothing here does anything. jax, which takes a second, is imported when it is
needed.
"""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

from tinyjax.errors import EX_UNAVAILABLE, MachineError, UserError, exit_code

FLAGS: dict[str, dict[str, Any]] = {
    "--processes": {
        "nargs": "?",
        "const": "auto",
        "metavar": "HOST:PORT,I/N",
        "help": "run as process I of N (from 0), which meet at HOST:PORT of the first; without a "
        "value as the cluster says it: Slurm, Open MPI, a TPU pod",
    },
    "--wait": {
        "type": int,
        "default": 300,
        "metavar": "SECONDS",
        "help": "for the other processes, before giving up with exit code 69 (default 300)",
    },
    "--expect": {
        "metavar": "PLATFORM:DEVICES[:PROCESSES]",
        "help": "start on such devices alone, those of all processes, such as tpu:8, else end with "
        "exit code 69",
    },
}
LAST_WORDS = 5  # seconds
_calls = count()


@contextmanager
def process_group(where: str | None, seconds: int) -> Iterator[None]:
    """What processes do together, see `meet`; they also leave together.

    Where one fails it ends at once: the others, which wait for what it will not send, then do too.
    """
    import jax

    join_processes(where, seconds)
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        code = _code_of(error)
        if (
            is_main_process()
        ):  # the others end as soon as it does: let them say first what they have to
            time.sleep(LAST_WORDS)
        os._exit(code)
    if jax.process_count() > 1:
        barrier("end")
        jax.distributed.shutdown()


def _code_of(error: BaseException) -> int:
    """What a command that raised this ends with, after saying it."""
    import jax

    def raises():
        raise error

    try:
        return exit_code(raises)
    except jax.errors.JaxRuntimeError:
        reason = str(error).partition("\n")[0]
        print(f"error: another process of this program is gone ({reason})", file=sys.stderr)
        return EX_UNAVAILABLE
    except BaseException:
        traceback.print_exc()
        return 1


def join_processes(where: str | None, seconds: int) -> None:
    """Wait until all processes are there. To be called before jax has looked for devices.

    where: "host:port,i/n", "auto", or None for a process alone. Raises UserError for what is
    neither; the process ends with `UNFIT` if others stay away for so many seconds.
    """
    if where is None:
        return
    import jax

    given: dict[str, Any] = {}
    if where != "auto":
        address, _, which = where.rpartition(",")
        try:
            i, n = map(int, which.split("/"))
        except ValueError:
            i, n = -1, 0
        if not (0 <= i < n and address.rpartition(":")[2].isdecimal()):
            raise UserError(
                f"--processes {where}: give host:port,i/n, with i from 0 to n - 1, such as "
                "10.0.0.2:8476,0/4"
            )
        given = {"coordinator_address": address, "num_processes": n, "process_id": i}

    def give_up():
        print(
            f"error: --processes {where}: after {seconds} s not all of them are there; look at the "
            "logs of the others, or give a longer --wait",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EX_UNAVAILABLE)

    # jax's own time-out ends the process with a C++ stack trace.
    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(**given, initialization_timeout=seconds + 60)
    except ValueError as error:
        raise UserError(f"--processes {where}: {error}") from error
    except RuntimeError as error:
        raise MachineError(f"--processes {where}: {str(error).partition(chr(10))[0]}") from error
    finally:
        timer.cancel()


def check_devices(wanted: str | None) -> None:
    """Raise `Unfit` unless the devices of all processes are "platform:devices", and the processes
    as many as "platform:devices:processes" says. Raises UserError for any other text.

    jax goes on with a CPU where a TPU is taken, and a host of a pod with its own devices where the
    others were not met: both would train, slowly or each for itself, and say nothing.
    """
    if wanted is None:
        return
    import jax

    platform, _, counts = wanted.partition(":")
    numbers = counts.split(":")
    if not platform or len(numbers) > 2 or not all(n.isdecimal() and int(n) for n in numbers):
        raise UserError(
            f"--expect {wanted}: give platform:devices or platform:devices:processes, such as "
            "tpu:8:2"
        )
    found = jax.default_backend(), jax.device_count(), jax.process_count()
    if (platform, *map(int, numbers)) != found[: 1 + len(numbers)]:
        raise MachineError(f"--expect {wanted}: here are {found[0]}:{found[1]}:{found[2]}")


def process_index() -> int:
    """Which of them this is, from 0."""
    import jax

    return jax.process_index()


def is_main_process() -> bool:
    """Whether this is the process that writes."""
    return process_index() == 0


def all_true(value: bool) -> bool:
    """Whether it is true in all processes."""
    import jax

    if jax.process_count() == 1:
        return value
    import numpy as np
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.asarray(value)).all())


def barrier(point: str) -> None:
    """Go on when all processes have come to this point."""
    import jax

    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(point)


@contextmanager
def local_stop_requests() -> Iterator[list[int]]:
    """A list that SIGTERM and SIGINT (Ctrl-C) add themselves to, instead of ending the process."""
    received: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(n, lambda number, _: received.append(number)) for n in numbers]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def stop_requests() -> Iterator[Sequence[int]]:
    """What `told_to_stop` asks, see `local_stop_requests`."""
    import jax

    if jax.process_count() == 1:
        with local_stop_requests() as stop:
            yield stop
        return
    # SIGTERM is jax's, which tells the others of it; Ctrl-C is handed on as one.
    before = signal.signal(signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        yield ()
    finally:
        signal.signal(signal.SIGINT, before)


def stop_requested(stop: Sequence[int]) -> bool:
    """Whether this process was told to stop; of several, whether any of them was, with the same
    answer in all at the same call. Each must call it as often as the others.

    stop: what this process was told.
    """
    import jax

    if jax.process_count() == 1:
        return bool(stop)
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(next(_calls))
