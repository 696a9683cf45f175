"""SkyPilot: managed jobs on Cloud TPU virtual machines, recovered after preemption. One job per
shard, on its own machines or, with `--set pool=NAME`, on machines of a pool, which are reused.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import yaml

from tinyjax.errors import STOPPED, run_all

from .cloud import (
    INSTALL,
    PYTHON,
    fill_parameters,
    require_checkout,
    require_slice,
    run_commands,
)
from .job import Job, Rendered, job_folder, shell_line, worker_command

DEFAULTS = {
    "region": "",
    "spot": True,
    "max_hourly_cost": 0.0,  # dollars, for the machines of one shard; 0: no limit
    "pool": "",
    "workers": 0,  # in the pool; 0: one per shard
}


def render(job: Job, parameters: Mapping[str, Any]) -> Rendered:
    """Return the task, the pool if there is one, and the commands that launch the jobs.

    Raises UserError for an invalid parameter, outside of a checkout, and as `require_slice` does.
    """
    args, *_ = run_all(
        partial(fill_parameters, parameters, DEFAULTS),
        partial(require_slice, job, "skypilot"),
        partial(require_checkout, "skypilot"),
    )
    shard = "$SKYPILOT_JOB_RANK" if args["pool"] else "$SHARD"
    machine = {
        "name": job.name,
        "resources": shard_resources(job, args),
        "workdir": ".",
        "setup": INSTALL,
    }
    run = {"run": shell_line(worker_command(job, shard, PYTHON))}
    task_file, pool_file = (str(job_folder(job) / f"{name}.yaml") for name in ("task", "pool"))
    launch = ["sky", "jobs", "launch", "--yes", "--detach-run"]
    if not args["pool"]:
        commands = [
            [*launch, "--name", f"{job.name}-{i}", "--env", f"SHARD={i}", task_file]
            for i in range(job.shards)
        ]
        return Rendered({"task.yaml": _yaml(machine | {"envs": {"SHARD": "0"}} | run)}, commands)
    pool = {"pool": {"workers": args["workers"] or job.shards}} | machine
    task = {"name": job.name, "resources": shard_resources(job, args)} | run
    commands = [
        ["sky", "jobs", "pool", "apply", "--yes", "--pool", args["pool"], pool_file],
        [*launch, "--pool", args["pool"], "--num-jobs", str(job.shards), task_file],
    ]
    return Rendered({"pool.yaml": _yaml(pool), "task.yaml": _yaml(task)}, commands)


def submit(job: Job, rendered: Rendered, parameters: Mapping[str, Any]) -> int:
    """Launch the jobs and return the first exit code that is not 0."""
    return run_commands(job, rendered, "sky", "pip install 'skypilot[gcp]>=0.14'")


def shard_resources(job: Job, args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the resources of one shard.

    The runtime version is pinned because SkyPilot's default has changed before. SkyPilot detects
    preempted slices itself. Recovery of a worker that was told to stop and saved does not count as
    a restart. All other exit codes cause a restart, because on a slice of several machines an error
    of one process ends the others with other codes.
    """
    slice_ = require_slice(job, "skypilot")
    infra = "gcp" + (f"/{args['region']}" if args["region"] else "")
    recovery = {"max_restarts_on_errors": job.restarts, "recover_on_exit_codes": [STOPPED]}
    return {
        "infra": infra,
        "accelerators": f"tpu-{slice_.name}",
        "accelerator_args": {"runtime_version": slice_.chip.runtime},
        "use_spot": bool(args["spot"]),
        "job_recovery": recovery,
        **({"max_hourly_cost": args["max_hourly_cost"]} if args["max_hourly_cost"] else {}),
    }


def _yaml(tree: Any) -> str:
    return yaml.safe_dump(tree, sort_keys=False, width=1000)
