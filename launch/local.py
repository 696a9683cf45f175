"""Workers as processes of this machine."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyjax.errors import STOPPED
from tinyjax.run.distributed import local_stop_requests

from .job import (
    DONE,
    RESTART,
    USER_ERROR,
    Job,
    Rendered,
    die_with_parent,
    job_folder,
    record_launch,
    shell_exit_code,
    shell_line,
    worker_command,
)

POLL_INTERVAL = 0.2  # seconds


def render(job: Job, parameters: Mapping[str, Any]) -> Rendered:
    """Return a command per shard."""
    return Rendered({}, [worker_command(job, shard) for shard in range(job.shards)])


def submit(job: Job, rendered: Rendered, parameters: Mapping[str, Any]) -> int:
    """Run the workers, at most `job.at_once` of them concurrently, and wait for them.

    A worker is restarted up to `job.restarts` times. Returns 0; `STOPPED` if this process was told
    to stop, after it stopped the workers; or the exit code of a worker that failed.
    """
    logs, slots = job_folder(job), [*range(job.at_once or 1)]
    record_launch(job)
    logs.mkdir(parents=True, exist_ok=True)
    waiting = list(range(job.shards))
    running: dict[int, tuple[int, subprocess.Popen]] = {}
    attempts, failed = [0] * job.shards, DONE
    with local_stop_requests() as stop:
        while (waiting and not stop and not failed) or running:
            while waiting and slots and not stop and not failed:
                shard, slot = waiting.pop(0), slots.pop()
                log, cores = logs / f"{shard}.txt", worker_cores(slot, job.at_once)
                gpu = {"CUDA_VISIBLE_DEVICES": str(slot)} if job.accelerator == "gpu" else {}
                running[shard] = slot, _start(rendered.commands[shard], log, gpu, cores)
            for shard, (slot, process) in [*running.items()]:
                if (code := process.poll()) is None:
                    continue
                del running[shard]
                slots.append(slot)
                code, attempts[shard] = shell_exit_code(code), attempts[shard] + 1
                if code == DONE or stop or failed:
                    continue
                if code in RESTART and attempts[shard] <= job.restarts:
                    print(f"shard {shard} ended with exit code {code}; restarting it", flush=True)
                    waiting.append(shard)
                    continue
                failed, log = code, logs / f"{shard}.txt"
                reason = f"exit code {code}: {_describe_failure(code)}"
                print(f"shard {shard} ended with {reason}; see {log}", file=sys.stderr)
            if stop or failed:
                for _, process in running.values():
                    process.send_signal(signal.SIGTERM)
            time.sleep(POLL_INTERVAL)
    return failed or (STOPPED if stop else DONE)


def worker_cores(slot: int, slots: int) -> Sequence[int]:
    """Return the CPU cores of worker `slot` of `slots` concurrent workers.

    Workers that share cores would wait for each other. Returns all cores if there are fewer cores
    than workers, and none, which means no restriction, if the platform cannot set the cores.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    offset, slots = slot * len(cores), max(1, slots)
    return cores[offset // slots : (offset + len(cores)) // slots] or cores


def _start(
    command: Sequence[str], log: Path, environment: Mapping[str, str], cores: Sequence[int]
) -> subprocess.Popen:
    def prepare():
        die_with_parent()
        if cores:
            os.sched_setaffinity(0, cores)

    with log.open("a", encoding="utf-8") as stream:
        stream.write(f"$ {shell_line(command)}\n")
        stream.flush()
        # In a new session: Ctrl-C does not reach the worker, which gets SIGTERM from us instead.
        return subprocess.Popen(
            [sys.executable, *command[1:]], stdout=stream, stderr=stream, start_new_session=True,
            env={**os.environ, **environment}, preexec_fn=prepare,
        )  # fmt: skip


def _describe_failure(code: int) -> str:
    if code == USER_ERROR:
        return "invalid input"
    return "restarted too often" if code in RESTART else "an internal error"
