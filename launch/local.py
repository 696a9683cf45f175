"""Worker processes of this machine, each restarted when it was ended and not when it is done."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
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
    shell,
    worker,
)
from tinyjax import runfolder

PAUSE = 0.2  # seconds between looks at the workers


def render(job: Job, given: Mapping[str, Any]) -> Rendered:
    return Rendered({}, [worker(job, shard) for shard in range(job.shards)])


def submit(
    job: Job, rendered: Rendered, given: Mapping[str, Any], at_once: int, restarts: int
) -> int:
    """Run the workers, so many at a time, and wait for them. Returns 0, `STOPPED` if this process
    was told to stop, which it hands on, or the code of a worker that will not do.
    """
    logs = Path(job.workdir) / "workers"
    logs.mkdir(parents=True, exist_ok=True)
    waiting = list(range(job.shards))
    running: dict[int, subprocess.Popen] = {}
    tries, failed = [0] * job.shards, DONE
    with runfolder.stop_requests() as stop:
        while (waiting and not stop and not failed) or running:
            while waiting and len(running) < at_once and not stop and not failed:
                shard = waiting.pop(0)
                running[shard] = _start(rendered.commands[shard], logs / f"{shard}.txt")
            for shard, process in [*running.items()]:
                if (code := process.poll()) is None:
                    continue
                del running[shard]
                code, tries[shard] = of(code), tries[shard] + 1
                if code == DONE or stop:
                    continue
                if code in RESTART and tries[shard] <= restarts:
                    print(f"shard {shard} ended with {code}; it goes on", flush=True)
                    waiting.append(shard)
                    continue
                failed = failed or code
                log = logs / f"{shard}.txt"
                print(f"shard {shard} ended with {code}; {_why(code)}, see {log}", file=sys.stderr)
            if stop or failed:
                for process in running.values():
                    process.send_signal(signal.SIGTERM)
            time.sleep(PAUSE)
    return failed or (STOPPED if stop else DONE)


def _start(command, log: Path) -> subprocess.Popen:
    with log.open("a") as stream:
        stream.write(f"$ {shell(command)}\n")
        stream.flush()
        # A session of its own: Ctrl-C is handed on once, by us.
        return subprocess.Popen(
            [sys.executable, *command[1:]], stdout=stream, stderr=stream, env=os.environ,
            start_new_session=True, preexec_fn=dies_with_us,
        )  # fmt: skip


def _why(code: int) -> str:
    if code == MISTAKE:
        return "there is something to mend in what it was given"
    return "it was restarted too often" if code in RESTART else "this is a defect"
