"""SkyPilot: managed jobs on Cloud TPU virtual machines, spot or not, that are recovered. One a
shard, or with `--set pool=NAME` as many as there are shards in a pool of machines that are kept.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from launch.cloud import INSTALL, PYTHON, chosen, hand_over, slice_of
from launch.job import STOPPED, Job, Rendered, place, shell, worker

KNOWN = {
    "region": "",
    "spot": True,
    "max_hourly_cost": 0.0,  # dollars, of one shard's machines; 0: no cap
    "pool": "",
    "workers": 0,  # of the pool; 0: as many as shards
}


def render(job: Job, given: Mapping[str, Any]) -> Rendered:
    own = chosen(given, KNOWN)
    rank = "$SKYPILOT_JOB_RANK" if own["pool"] else "$SHARD"
    task = {"name": job.name, "resources": resources(job, own), "workdir": ".", "setup": INSTALL}
    run = {"run": shell(worker(job, rank, PYTHON))}
    task_file, pool_file = (str(place(job) / f"{name}.yaml") for name in ("task", "pool"))
    if not own["pool"]:
        command = ("sky", "jobs", "launch", "--yes", "--detach-run")
        commands = [
            [*command, "--name", f"{job.name}-{i}", "--env", f"SHARD={i}", task_file]
            for i in range(job.shards)
        ]
        return Rendered({"task.yaml": _yaml(task | {"envs": {"SHARD": "0"}} | run)}, commands)
    pool = {"pool": {"workers": own["workers"] or job.shards}} | task
    submitted = {"name": job.name, "resources": resources(job, own)} | run
    commands = [
        ["sky", "jobs", "pool", "apply", "--yes", "--pool", own["pool"], pool_file],
        ["sky", "jobs", "launch", "--yes", "--detach-run", "--pool", own["pool"], "--num-jobs",
         str(job.shards), task_file],
    ]  # fmt: skip
    return Rendered({"pool.yaml": _yaml(pool), "task.yaml": _yaml(submitted)}, commands)


def submit(job: Job, rendered: Rendered, given: Mapping[str, Any]) -> int:
    return hand_over(job, rendered, "sky", "pip install 'skypilot[gcp]>=0.14'")


def resources(job: Job, own: Mapping[str, Any]) -> dict[str, Any]:
    """Of one shard. The runtime is pinned: what is taken without one has changed before.

    SkyPilot knows by itself of slices that were taken away. A worker that was told to stop and
    saved is recovered without counting; all else counts, for on a slice of several machines one
    process's mistake is the others' death.
    """
    found = slice_of(job, "skypilot")
    infra = "gcp" + (f"/{own['region']}" if own["region"] else "")
    recovery = {"max_restarts_on_errors": job.restarts, "recover_on_exit_codes": [STOPPED]}
    return {
        "infra": infra,
        "accelerators": f"tpu-{found.name}",
        "accelerator_args": {"runtime_version": found.chip.runtime},
        "use_spot": bool(own["spot"]),
        "job_recovery": recovery,
        **({"max_hourly_cost": own["max_hourly_cost"]} if own["max_hourly_cost"] else {}),
    }


def _yaml(tree: Any) -> str:
    return yaml.safe_dump(tree, sort_keys=False, width=1000)
