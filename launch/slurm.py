"""A Slurm cluster, through submitit: an array of jobs, one a shard. `--set cluster=local` runs them
as processes of this machine.
"""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from launch import installed
from launch.job import DONE, RESTART, Job, Rendered, dies_with_us, of, place, worker, write_down
from tinyjax.errors import UserError

NOTICE = 120  # seconds before its time is over that a job is told so, to save
MINUTES = 24 * 60  # that a job may take before it queues again
PAUSE = 0.5


class Ended(Exception):
    """A worker that will not do, by its code: a job that returned would count as completed."""


class Worker:
    """What a job runs: a shard's command, restarted where it was ended. Called by submitit."""

    def __init__(self, command: Sequence[str], restarts: int):
        self.command, self.restarts = [*command], restarts
        self.process: subprocess.Popen | None = None

    def __call__(self) -> int:
        for _ in range(self.restarts + 1):
            self.process = subprocess.Popen(
                [sys.executable, *self.command[1:]], preexec_fn=dies_with_us
            )
            if (code := _ended(self.process)) == DONE:
                return code
            if code not in RESTART:
                break
        raise Ended(code)

    def checkpoint(self) -> Any:
        """Before its time is over or it is preempted: the worker saves, the job queues again."""
        import submitit

        if self.process:
            self.process.terminate()
            _ended(self.process)
        return submitit.helpers.DelayedSubmission(Worker(self.command, self.restarts))


def _ended(process: subprocess.Popen) -> int:
    # Not `wait`: `checkpoint` is called in the midst of it, by a signal.
    while (code := process.poll()) is None:
        time.sleep(PAUSE)
    return of(code)


def render(job: Job, given: Mapping[str, Any]) -> Rendered:
    """The script that sbatch is given, and what the jobs of its array do."""
    installed.module("submitit", "slurm")
    from submitit.slurm.slurm import _make_sbatch_string

    python = "python -u -m submitit.core._submit"
    text = _make_sbatch_string(
        f"{python} {_folder(job)}", _folder(job), map_count=job.shards, **_parameters(job, given)
    )
    commands = [worker(job, shard) for shard in range(job.shards)]
    return Rendered({"submission.sh": text}, commands)


def submit(job: Job, rendered: Rendered, given: Mapping[str, Any]) -> int:
    """Hand the shards to Slurm and return; those of this machine's processes are waited for."""
    submitit = installed.module("submitit", "slurm")
    parameters = _parameters(job, given)
    local = given.get("cluster") == "local"
    if local:
        executor = submitit.LocalExecutor(_folder(job), max_num_timeout=job.restarts)
        notice = parameters["signal_delay_s"]
        executor.update_parameters(timeout_min=parameters["time"], signal_delay_s=notice)
    elif not shutil.which("srun"):
        raise UserError("slurm: no srun here; run this on a login node, or --set cluster=local")
    else:
        executor = submitit.SlurmExecutor(_folder(job), max_num_timeout=job.restarts)
        executor.update_parameters(**parameters)
    write_down(job)
    found = [Worker(command, job.restarts) for command in rendered.commands]
    jobs = [executor.submit(each) for each in found] if local else executor.submit_array(found)
    print(f"jobs: {', '.join(each.job_id for each in jobs)}; their logs are in {_folder(job)}")
    return max(map(_code, jobs)) if local else DONE


def _code(one: Any) -> int:
    """What a job's worker ended with."""
    if (error := one.exception()) is None:
        return one.result()
    found = re.search(rf"{Ended.__name__}: (\d+)", str(error))
    return int(found[1]) if found else 1


def _parameters(job: Job, given: Mapping[str, Any]) -> dict[str, Any]:
    """sbatch's own, by the names that it has for them."""
    gpu = {"gpus_per_node": 1} if job.accelerator == "gpu" else {}
    own = {key: value for key, value in given.items() if key != "cluster"}
    many = {"array_parallelizm": job.at_once} if job.at_once else {}
    return {"job_name": job.name, "time": MINUTES, "signal_delay_s": NOTICE, **many, **gpu, **own}


def _folder(job: Job) -> str:
    return str(place(job))
