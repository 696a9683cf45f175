"""Google Kubernetes Engine: a JobSet, queued by Kueue, one job a shard and one pod a machine."""

from collections.abc import Mapping
from typing import Any

import yaml

from launch.cloud import chosen, hand_over, slice_of
from launch.job import RESTART, STOPPED, Job, Rendered, place, shell, worker
from tinyjax.run.accelerators import PER_HOST

KNOWN = {
    "image": None,  # with a checkout and its packages in its working directory
    "queue": "",  # Kueue's local queue; none: not queued
    "namespace": "default",
    "grace": 60,  # seconds from SIGTERM to SIGKILL, to save in
}
JOB_INDEX = "jobset.sigs.k8s.io/job-index"
# A slice of several machines is a node pool of its own, which no other job may be put on.
EXCLUSIVE = "alpha.jobset.sigs.k8s.io/exclusive-topology"
POOL = "cloud.google.com/gke-nodepool"


def render(job: Job, given: Mapping[str, Any]) -> Rendered:
    own = chosen(given, KNOWN)
    manifest = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": job.name,
            "namespace": own["namespace"],
            **({"labels": {"kueue.x-k8s.io/queue-name": own["queue"]}} if own["queue"] else {}),
            **({"annotations": {EXCLUSIVE: POOL}} if _pods(job) > 1 else {}),
        },
        "spec": {
            "failurePolicy": {"maxRestarts": job.restarts, "rules": rules()},
            "replicatedJobs": [
                {"name": "shard", "replicas": job.shards, "template": {"spec": _shard(job, own)}}
            ],
        },
    }
    text = yaml.safe_dump(manifest, sort_keys=False, width=1000)
    # One that has failed is not begun again by applying it.
    old = ["delete", "jobset", job.name, "--namespace", own["namespace"], "--ignore-not-found"]
    new = ["apply", "--filename", str(place(job) / "jobset.yaml")]
    return Rendered({"jobset.yaml": text}, [["kubectl", *old], ["kubectl", *new]])


def submit(job: Job, rendered: Rendered, given: Mapping[str, Any]) -> int:
    return hand_over(
        job, rendered, "kubectl", "https://kubernetes.io/docs/tasks/tools, then get the "
        "cluster's credentials"
    )  # fmt: skip


def rules() -> list[dict[str, Any]]:
    """What becomes of a shard whose pod failed, by the code that Kubernetes puts into the reason; a
    code that no rule names, a mistake or a defect, fails all.
    """
    told, others = (STOPPED, 143), [code for code in RESTART if code not in (STOPPED, 143)]

    def codes(these):
        return f"exit code ({'|'.join(map(str, these))}) "

    return [
        {
            "name": "evicted",
            "action": "RestartJobAndIgnoreMaxRestarts",
            "onJobFailureMessagePatterns": ["DisruptionTarget", codes(told)],
        },
        {
            "name": "died",
            "action": "RestartJob",
            "onJobFailureMessagePatterns": [codes(others), "backoff limit"],
        },
        {"name": "mistake", "action": "FailJobSet"},
    ]


def _pods(job: Job) -> int:
    return -(-slice_of(job, "jobset").chips // PER_HOST)


def _shard(job: Job, own: Mapping[str, Any]) -> dict[str, Any]:
    found, pods = slice_of(job, "jobset"), _pods(job)
    chips = found.chips // pods
    field = {"fieldPath": f"metadata.annotations['{JOB_INDEX}']"}
    container = {
        "name": "worker",
        "image": own["image"],
        "command": ["bash", "-c", f"exec {shell(worker(job, '$SHARD'))}"],
        "env": [{"name": "SHARD", "valueFrom": {"fieldRef": field}}],
        "resources": {"requests": {"google.com/tpu": chips}, "limits": {"google.com/tpu": chips}},
    }
    failed = {"containerName": "worker", "operator": "NotIn", "values": [0]}
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    return {
        "parallelizm": pods,
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
                "terminationGracePeriodSeconds": own["grace"],
                "nodeSelector": {
                    "cloud.google.com/gke-tpu-accelerator": found.chip.node,
                    "cloud.google.com/gke-tpu-topology": found.topology,
                },
                "containers": [container],
            }
        },
    }
