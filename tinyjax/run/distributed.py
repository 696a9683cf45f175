"""Several processes that run one program: startup, checks, collectives and stop requests.

With a single process these functions do nothing. jax is imported where it is needed, because the
import takes a second.
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
        "help": "run as process I of N (from 0); HOST:PORT is an address of process 0. Without a "
        "value, the cluster sets these: Slurm, Open MPI or a TPU pod",
    },
    "--join-timeout": {
        "type": int,
        "default": 300,
        "metavar": "SECONDS",
        "help": "time to wait for the other processes before exit code 69 (default 300)",
    },
    "--expect": {
        "metavar": "PLATFORM:DEVICES[:PROCESSES]",
        "help": "exit with code 69 unless all processes together have these devices, such as tpu:8",
    },
}
EXIT_DELAY = 5  # seconds from an error of the main process to its exit, which ends the others
_stop_checks = count()


@contextmanager
def process_group(address: str | None, seconds: int) -> Iterator[None]:
    """Join the other processes, see `join_processes`, and leave together with them.

    A process that fails exits at once, which ends the others, because they wait for its data.
    """
    import jax

    join_processes(address, seconds)
    try:
        yield
    except BaseException as error:
        if jax.process_count() == 1:
            raise
        code = _report(error)
        if is_main_process():  # its exit ends the others: let them report their errors first
            time.sleep(EXIT_DELAY)
        os._exit(code)
    if jax.process_count() > 1:
        barrier("end")
        jax.distributed.shutdown()


def _report(error: BaseException) -> int:
    """Print an error as a command does and return the command's exit code."""
    import jax

    def raise_error():
        raise error

    try:
        return exit_code(raise_error)
    except jax.errors.JaxRuntimeError:
        reason = str(error).partition("\n")[0]
        print(f"error: another process of this program is gone ({reason})", file=sys.stderr)
        return EX_UNAVAILABLE
    except BaseException:
        traceback.print_exc()
        return 1


def join_processes(address: str | None, seconds: int) -> None:
    """Wait until all processes have started. Call it before jax looks for devices.

    The process ends with exit code `EX_UNAVAILABLE` if others are missing after `seconds`.

    Args:
        address: "host:port,i/n", "auto", or None for a single process.
        seconds: time to wait for the others.

    Raises UserError for any other address, and MachineError if the processes cannot connect.
    """
    if address is None:
        return
    import jax

    arguments: dict[str, Any] = {}
    if address != "auto":
        coordinator, _, process = address.rpartition(",")
        try:
            i, n = map(int, process.split("/"))
        except ValueError:
            i, n = -1, 0
        if not (0 <= i < n and coordinator.rpartition(":")[2].isdecimal()):
            raise UserError(
                f"--processes {address}: give host:port,i/n, with i from 0 to n - 1, such as "
                "10.0.0.2:8476,0/4"
            )
        arguments = {"coordinator_address": coordinator, "num_processes": n, "process_id": i}

    def give_up():
        print(
            f"error: --processes {address}: some processes have not joined after {seconds} s; look "
            "at their logs, or give a longer --join-timeout",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EX_UNAVAILABLE)

    # Before jax's own timeout, which ends the process with a C++ stack trace.
    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(**arguments, initialization_timeout=seconds + 60)
    except ValueError as error:
        raise UserError(f"--processes {address}: {error}") from error
    except RuntimeError as error:
        raise MachineError(f"--processes {address}: {str(error).partition(chr(10))[0]}") from error
    finally:
        timer.cancel()


def check_devices(expected: str | None) -> None:
    """Check the devices of all processes against "platform:devices" or
    "platform:devices:processes".

    Otherwise jax would use the CPU if another process holds the TPU, and a host of a pod would use
    only its own devices if the others did not join, both without an error.

    Raises MachineError for other devices, and UserError for a text of another form.
    """
    if expected is None:
        return
    import jax

    platform, _, counts = expected.partition(":")
    numbers = counts.split(":")
    if not platform or len(numbers) > 2 or not all(n.isdecimal() and int(n) for n in numbers):
        raise UserError(
            f"--expect {expected}: give platform:devices or platform:devices:processes, such as "
            "tpu:8:2"
        )
    actual = jax.default_backend(), jax.device_count(), jax.process_count()
    if (platform, *map(int, numbers)) != actual[: 1 + len(numbers)]:
        raise MachineError(f"--expect {expected}: this is {actual[0]}:{actual[1]}:{actual[2]}")


def process_index() -> int:
    """Return the number of this process, from 0."""
    import jax

    return jax.process_index()


def is_main_process() -> bool:
    """Return whether this process writes the run folder."""
    return process_index() == 0


def all_true(value: bool) -> bool:
    """Return whether `value` is true in all processes."""
    import jax

    if jax.process_count() == 1:
        return value
    import numpy as np
    from jax.experimental import multihost_utils

    return bool(multihost_utils.process_allgather(np.asarray(value)).all())


def barrier(name: str) -> None:
    """Wait until all processes have called this with the same name."""
    import jax

    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


@contextmanager
def local_stop_requests() -> Iterator[list[int]]:
    """Yield a list that collects SIGTERM and SIGINT (Ctrl-C), which do not end the process here."""
    received: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    previous = [signal.signal(n, lambda number, _: received.append(number)) for n in numbers]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, previous, strict=True):
            signal.signal(number, handler)


@contextmanager
def stop_requests() -> Iterator[Sequence[int]]:
    """Yield the signals received by this process, for `stop_requested`."""
    import jax

    if jax.process_count() == 1:
        with local_stop_requests() as stop:
            yield stop
        return
    # jax handles SIGTERM and notifies the other processes; Ctrl-C is converted to SIGTERM.
    previous = signal.signal(signal.SIGINT, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        yield ()
    finally:
        signal.signal(signal.SIGINT, previous)


def stop_requested(received: Sequence[int]) -> bool:
    """Return whether any process of the group has received a stop signal.

    The answer is the same in all processes, which must all call it equally often.

    received: from `stop_requests`.
    """
    import jax

    if jax.process_count() == 1:
        return bool(received)
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(next(_stop_checks))
