"""A Slurm cluster, through submitit: a job array with a job per shard. `--set cluster=local` runs
the jobs as processes of this machine.
"""

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tinyjax.errors import UserError

from . import extras
from .job import (
    DONE,
    RESTART,
    Job,
    Rendered,
    die_with_parent,
    job_folder,
    record_launch,
    shell_exit_code,
    worker_command,
)

SIGNAL_DELAY = 120  # seconds between the signal to save and the time limit of a job
TIME_LIMIT = 24 * 60  # minutes, after which a job is queued again
POLL_INTERVAL = 0.5  # seconds


class WorkerError(Exception):
    """Raised with a worker's exit code: Slurm counts a job that returns as completed."""


class Worker:
    """The function that a job runs: the command of a shard, with restarts. Called by submitit."""

    def __init__(self, command: Sequence[str], restarts: int):
        self.command, self.restarts = [*command], restarts
        self.process: subprocess.Popen | None = None

    def __call__(self) -> int:
        for _ in range(self.restarts + 1):
            self.process = subprocess.Popen(
                [sys.executable, *self.command[1:]], preexec_fn=die_with_parent
            )
            if (code := _wait(self.process)) == DONE:
                return code
            if code not in RESTART:
                break
        raise WorkerError(code)

    def checkpoint(self) -> Any:
        """Stop the worker, which saves, and queue the job again.

        submitit calls this before the time limit and on preemption.
        """
        import submitit

        if self.process:
            self.process.terminate()
            _wait(self.process)
        return submitit.helpers.DelayedSubmission(Worker(self.command, self.restarts))


def _wait(process: subprocess.Popen) -> int:
    # Not Popen.wait, which is not reentrant: a signal may run `checkpoint` during this loop.
    while (code := process.poll()) is None:
        time.sleep(POLL_INTERVAL)
    return shell_exit_code(code)


def render(job: Job, parameters: Mapping[str, Any]) -> Rendered:
    """Return the script for sbatch, and the commands that the jobs of its array run."""
    extras.import_extra("submitit", "slurm")
    from submitit.slurm.slurm import _make_sbatch_string

    folder = str(job_folder(job))
    text = _make_sbatch_string(
        f"python -u -m submitit.core._submit {folder}",
        folder,
        map_count=job.shards,
        **_sbatch_parameters(job, parameters),
    )
    commands = [worker_command(job, shard) for shard in range(job.shards)]
    return Rendered({"submission.sh": text}, commands)


def submit(job: Job, rendered: Rendered, parameters: Mapping[str, Any]) -> int:
    """Submit the jobs and return 0; with `cluster=local`, wait for them and return an exit code."""
    submitit = extras.import_extra("submitit", "slurm")
    folder, sbatch = str(job_folder(job)), _sbatch_parameters(job, parameters)
    local = parameters.get("cluster") == "local"
    if local:
        executor = submitit.LocalExecutor(folder, max_num_timeout=job.restarts)
        delay = sbatch["signal_delay_s"]
        executor.update_parameters(timeout_min=sbatch["time"], signal_delay_s=delay)
    elif not shutil.which("srun"):
        raise UserError("slurm: srun is missing; run this on a login node, or --set cluster=local")
    else:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=job.restarts)
        executor.update_parameters(**sbatch)
    record_launch(job)
    workers = [Worker(command, job.restarts) for command in rendered.commands]
    if local:
        jobs = [executor.submit(worker) for worker in workers]
    else:
        jobs = executor.submit_array(workers)
    print(f"jobs: {', '.join(submitted.job_id for submitted in jobs)}; their logs are in {folder}")
    return max(map(_exit_code, jobs)) if local else DONE


def _exit_code(submitted: Any) -> int:
    """Wait for a job and return the exit code of its worker."""
    if (error := submitted.exception()) is None:
        return submitted.result()
    match = re.search(rf"{WorkerError.__name__}: (\d+)", str(error))
    return int(match[1]) if match else 1


def _sbatch_parameters(job: Job, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of sbatch, by submitit's names."""
    return {
        "job_name": job.name,
        "time": TIME_LIMIT,
        "signal_delay_s": SIGNAL_DELAY,
        **({"array_parallelism": job.at_once} if job.at_once else {}),
        **({"gpus_per_node": 1} if job.accelerator == "gpu" else {}),
        **{key: value for key, value in parameters.items() if key != "cluster"},
    }
