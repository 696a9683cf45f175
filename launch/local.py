"""Worker processes of this machine, each restarted when it was ended and not when it is done."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.job import (
    DONE,
    MISTAKE,
    RESTART,
    STOPPED,
    Job,
    Rendered,
    dies_with_us,
    of,
    place,
    shell,
    worker,
    write_down,
)
from tinyjax.run.distributed import local_stop_requests

PAUSE = 0.2  # seconds between looks at the workers


def render(job: Job, given: Mapping[str, Any]) -> Rendered:
    return Rendered({}, [worker(job, shard) for shard in range(job.shards)])


def submit(job: Job, rendered: Rendered, given: Mapping[str, Any]) -> int:
    """Run the workers, `job.at_once` of them at a time, and wait for them. Returns 0, `STOPPED` if
    this process was told to stop, which it hands on, or the code of a worker that will not do.
    """
    logs, slots = place(job), [*range(job.at_once or 1)]
    write_down(job)
    logs.mkdir(parents=True, exist_ok=True)
    waiting = list(range(job.shards))
    running: dict[int, tuple[int, subprocess.Popen]] = {}
    tries, failed = [0] * job.shards, DONE
    with local_stop_requests() as stop:
        while (waiting and not stop and not failed) or running:
            while waiting and slots and not stop and not failed:
                shard, slot = waiting.pop(0), slots.pop()
                log, cores = logs / f"{shard}.txt", share(slot, job.at_once)
                own = {"CUDA_VISIBLE_DEVICES": str(slot)} if job.accelerator == "gpu" else {}
                running[shard] = slot, _start(rendered.commands[shard], log, own, cores)
            for shard, (slot, process) in [*running.items()]:
                if (code := process.poll()) is None:
                    continue
                del running[shard]
                slots.append(slot)
                code, tries[shard] = of(code), tries[shard] + 1
                if code == DONE or stop or failed:
                    continue
                if code in RESTART and tries[shard] <= job.restarts:
                    print(f"shard {shard} ended with {code}; it goes on", flush=True)
                    waiting.append(shard)
                    continue
                failed, log = code, logs / f"{shard}.txt"
                print(f"shard {shard} ended with {code}; {_why(code)}, see {log}", file=sys.stderr)
            if stop or failed:
                for _, process in running.values():
                    process.send_signal(signal.SIGTERM)
            time.sleep(PAUSE)
    return failed or (STOPPED if stop else DONE)


def share(slot: int, slots: int) -> Sequence[int]:
    """Cores for one of so many workers: where each would use all of them, they wait for each other.
    Of fewer cores than workers, and where they cannot be chosen, all.
    """
    if not hasattr(os, "sched_getaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    at, each = slot * len(cores), max(1, slots)
    return cores[at // each : (at + len(cores)) // each] or cores


def _start(
    command, log: Path, environment: Mapping[str, str], cores: Sequence[int]
) -> subprocess.Popen:
    def prepare():
        dies_with_us()
        if cores:
            os.sched_setaffinity(0, cores)

    with log.open("a") as stream:
        stream.write(f"$ {shell(command)}\n")
        stream.flush()
        # A session of its own: Ctrl-C is handed on once, by us.
        return subprocess.Popen(
            [sys.executable, *command[1:]], stdout=stream, stderr=stream, start_new_session=True,
            env={**os.environ, **environment}, preexec_fn=prepare,
        )  # fmt: skip


def _why(code: int) -> str:
    if code == MISTAKE:
        return "there is something to mend in what it was given"
    return "it was restarted too often" if code in RESTART else "this is a defect"
