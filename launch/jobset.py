"""Google Kubernetes Engine: a JobSet, queued by Kueue, a job per shard and a pod per machine."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import yaml

from tinyjax.errors import STOPPED, run_all
from tinyjax.run.accelerators import CHIPS_PER_HOST

from .cloud import fill_parameters, require_slice, run_commands
from .job import RESTART, Job, Rendered, job_folder, shell_line, worker_command

DEFAULTS = {
    "image": None,  # has tinyjax[tpu,bucket], and in its working directory your config file
    "queue": "",  # local queue of Kueue; empty: no queue
    "namespace": "default",
    "grace": 60,  # seconds from SIGTERM to SIGKILL, for saving
}
JOB_INDEX = "jobset.sigs.k8s.io/job-index"
# A slice of several machines is one node pool; no other job may be scheduled on it.
EXCLUSIVE = "alpha.jobset.sigs.k8s.io/exclusive-topology"
POOL = "cloud.google.com/gke-nodepool"


def render(job: Job, parameters: Mapping[str, Any]) -> Rendered:
    """Return the manifest, and the commands that replace an earlier JobSet of the same name.

    Raises UserError for an invalid parameter, and as `require_slice` does.
    """
    args, _ = run_all(
        partial(fill_parameters, parameters, DEFAULTS), partial(require_slice, job, "jobset")
    )
    template = {"spec": _shard_spec(job, args)}
    shard_job = {"name": "shard", "replicas": job.shards, "template": template}
    manifest = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": job.name,
            "namespace": args["namespace"],
            **({"labels": {"kueue.x-k8s.io/queue-name": args["queue"]}} if args["queue"] else {}),
            **({"annotations": {EXCLUSIVE: POOL}} if _num_pods(job) > 1 else {}),
        },
        "spec": {
            "failurePolicy": {"maxRestarts": job.restarts, "rules": failure_rules()},
            "replicatedJobs": [shard_job],
        },
    }
    text = yaml.safe_dump(manifest, sort_keys=False, width=1000)
    # Applying a manifest does not restart a JobSet that has failed.
    delete = ["delete", "jobset", job.name, "--namespace", args["namespace"], "--ignore-not-found"]
    apply = ["apply", "--filename", str(job_folder(job) / "jobset.yaml")]
    return Rendered({"jobset.yaml": text}, [["kubectl", *delete], ["kubectl", *apply]])


def submit(job: Job, rendered: Rendered, parameters: Mapping[str, Any]) -> int:
    """Submit the JobSet and return the exit code of kubectl."""
    return run_commands(
        job, rendered, "kubectl", "https://kubernetes.io/docs/tasks/tools, then get the "
        "cluster's credentials"
    )  # fmt: skip


def failure_rules() -> list[dict[str, Any]]:
    """Return the rules that decide, by its exit code, what happens to a shard whose pod failed.

    Kubernetes puts the code into the failure message. Codes without a rule (a user error, an
    internal error) fail the JobSet.
    """
    stopped = (STOPPED, 143)
    died = [code for code in RESTART if code not in stopped]

    def pattern(codes):
        return f"exit code ({'|'.join(map(str, codes))}) "

    return [
        {
            "name": "evicted",
            "action": "RestartJobAndIgnoreMaxRestarts",
            "onJobFailureMessagePatterns": ["DisruptionTarget", pattern(stopped)],
        },
        {
            "name": "died",
            "action": "RestartJob",
            "onJobFailureMessagePatterns": [pattern(died), "backoff limit"],
        },
        {"name": "mistake", "action": "FailJobSet"},
    ]


def _num_pods(job: Job) -> int:
    return -(-require_slice(job, "jobset").chips // CHIPS_PER_HOST)


def _shard_spec(job: Job, args: Mapping[str, Any]) -> dict[str, Any]:
    slice_, pods = require_slice(job, "jobset"), _num_pods(job)
    chips = slice_.chips // pods
    field = {"fieldPath": f"metadata.annotations['{JOB_INDEX}']"}
    container = {
        "name": "worker",
        "image": args["image"],
        "command": ["bash", "-c", f"exec {shell_line(worker_command(job, '$SHARD'))}"],
        "env": [{"name": "SHARD", "valueFrom": {"fieldRef": field}}],
        "resources": {"requests": {"google.com/tpu": chips}, "limits": {"google.com/tpu": chips}},
    }
    failed = {"containerName": "worker", "operator": "NotIn", "values": [0]}
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    return {
        "parallelism": pods,
        "completions": pods,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onPodConditions": disrupted},
                {"action": "FailJob", "onExitCodes": failed},
            ]
        },
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": args["grace"],
                "nodeSelector": {
                    "cloud.google.com/gke-tpu-accelerator": slice_.chip.node,
                    "cloud.google.com/gke-tpu-topology": slice_.topology,
                },
                "containers": [container],
            }
        },
    }
