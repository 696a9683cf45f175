"""A Ray cluster: every shard is a task, which Ray restarts if its node is lost."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from tinyjax.errors import UserError

from . import extras
from .job import (
    DONE,
    RESTART,
    Job,
    Rendered,
    die_with_parent,
    record_launch,
    shell_exit_code,
    worker_command,
)

ERROR = 1
EXCLUDED = ["/.git", "/.venv", "/runs", "/launched"]  # paths of the checkout not sent to nodes


class Restart(Exception):
    """Raised in a task whose worker has to be restarted."""


def render(job: Job, parameters: Mapping[str, Any]) -> Rendered:
    """Return a command per shard. Raises UserError if a shard needs several machines."""
    if job.slice and job.slice.hosts > 1:
        raise UserError(
            f"--accelerator {job.accelerator}: has {job.slice.hosts} machines, but a task of Ray "
            "runs on one; give a slice of one machine, such as v5litepod-4, and more shards"
        )
    return Rendered({}, [worker_command(job, shard) for shard in range(job.shards)])


def submit(job: Job, rendered: Rendered, parameters: Mapping[str, Any]) -> int:
    """Run all shards and wait for them; return the first exit code that is not 0.

    They run on the cluster of $RAY_ADDRESS, or on one that is started on this machine.
    """
    ray = extras.import_extra("ray", "ray")
    if not ray.is_initialized():
        checkout = {"working_dir": ".", "excludes": EXCLUDED}
        ray.init(include_dashboard=False, log_to_driver=False, runtime_env=checkout, **parameters)
    record_launch(job)
    task = ray.remote(**task_resources(job), max_retries=job.restarts, retry_exceptions=[Restart])(
        run_worker
    )
    first_error = DONE
    for shard, result in enumerate([task.remote(command) for command in rendered.commands]):
        try:
            code = ray.get(result)
        except ray.exceptions.RayError as error:
            code = ERROR
            print(f"shard {shard}: {str(error).strip().splitlines()[-1]}", file=sys.stderr)
        if code != DONE:
            print(f"shard {shard} ended with exit code {code}", file=sys.stderr)
        first_error = first_error or code
    return first_error


def task_resources(job: Job) -> dict[str, Any]:
    """Return the resources of a task, as arguments of `ray.remote`."""
    if job.slice:
        return {"num_cpus": 1, "resources": {"TPU": job.slice.chips}}
    return {"num_cpus": 1, "num_gpus": int(job.accelerator == "gpu")}


def run_worker(command: list[str]) -> int:
    """Run a worker on a node and return its exit code. Raises `Restart` to have it restarted."""
    process = subprocess.run([sys.executable, *command[1:]], preexec_fn=die_with_parent)
    if (code := shell_exit_code(process.returncode)) in RESTART:
        raise Restart(code)
    return code
