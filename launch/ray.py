"""A Ray cluster: every shard is a task, which Ray starts again where its node is lost."""

import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from launch import installed
from launch.job import DONE, RESTART, Job, Rendered, dies_with_us, of, worker, write_down
from tinyjax.errors import UserError

DEFECT = 1
LEFT_OUT = ["/.git", "/.venv", "/runs", "/launched"]  # of the checkout, on other nodes


class Restart(Exception):
    """A worker that is to be started again."""


def render(job: Job, given: Mapping[str, Any]) -> Rendered:
    """Raises UserError for shards that are larger than a machine."""
    if job.slice and job.slice.hosts > 1:
        raise UserError(
            f"--accelerator {job.accelerator}: {job.slice.hosts} machines, and a task of Ray is on "
            "one; give a slice of one machine, such as v5litepod-4, and more shards"
        )
    return Rendered({}, [worker(job, shard) for shard in range(job.shards)])


def submit(job: Job, rendered: Rendered, given: Mapping[str, Any]) -> int:
    """Run all shards on the cluster of $RAY_ADDRESS, or one that is begun here, and wait for them.
    Returns 0, or the code of a worker that will not do.
    """
    ray = installed.module("ray", "ray")
    if not ray.is_initialized():
        checkout = {"working_dir": ".", "excludes": LEFT_OUT}
        ray.init(include_dashboard=False, log_to_driver=False, runtime_env=checkout, **given)
    write_down(job)
    task = ray.remote(**needs(job), max_retries=job.restarts, retry_exceptions=[Restart])(run)
    running, code = [task.remote(command) for command in rendered.commands], DONE
    for shard, one in enumerate(running):
        try:
            own = ray.get(one)
        except ray.exceptions.RayError as error:
            own = DEFECT
            print(f"shard {shard}: {str(error).strip().splitlines()[-1]}", file=sys.stderr)
        if own != DONE:
            print(f"shard {shard} ended with {own}", file=sys.stderr)
        code = code or own
    return code


def needs(job: Job) -> dict[str, Any]:
    """Resources of a task."""
    if job.slice:
        return {"num_cpus": 1, "resources": {"TPU": job.slice.chips}}
    return {"num_cpus": 1, "num_gpus": int(job.accelerator == "gpu")}


def run(command: list[str]) -> int:
    """On a node: a worker, to its end. Raises `Restart`."""
    done = subprocess.run([sys.executable, *command[1:]], preexec_fn=dies_with_us)
    if (code := of(done.returncode)) in RESTART:
        raise Restart(code)
    return code
