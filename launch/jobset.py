"""Google Kubernetes Engine: a JobSet, queued by Kueue, one job a shard and one pod a machine."""

from collections.abc import Mapping
from typing import Any

import yaml

from launch.cloud import chosen, hand_over, place, slice_of
from launch.job import RESTART, STOPPED, Job, Rendered, shell, worker

KNOWN = {
    "image": None,  # with a checkout and its packages in its working directory
    "queue": "",  # Kueue's local queue; none: not queued
    "namespace": "default",
    "restarts": 20,  # of shards, when workers died; not counted when they were told to stop
    "grace": 60,  # seconds from SIGTERM to SIGKILL, to save in
}
JOB_INDEX = "jobset.sigs.k8s.io/job-index"
EXCLUSIVE = "alpha.jobset.sigs.k8s.io/exclusive-topology"


def render(job: Job, given: Mapping[str, Any]) -> Rendered:
    own = chosen(given, KNOWN)
    manifest = {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": job.name,
            "namespace": own["namespace"],
            **({"labels": {"kueue.x-k8s.io/queue-name": own["queue"]}} if own["queue"] else {}),
            "annotations": {EXCLUSIVE: "cloud.google.com/gke-nodepool"},
        },
        "spec": {
            "failurePolicy": {"maxRestarts": own["restarts"], "rules": rules()},
            "replicatedJobs": [
                {"name": "shard", "replicas": job.shards, "template": {"spec": _shard(job, own)}}
            ],
        },
    }
    text = yaml.safe_dump(manifest, sort_keys=False, width=1000)
    command = ["kubectl", "apply", "-f", str(place(job) / "jobset.yaml")]
    return Rendered({"jobset.yaml": text}, [command])


def submit(
    job: Job, rendered: Rendered, given: Mapping[str, Any], at_once: int, restarts: int
) -> int:
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
            "onJobFailureMessagePatterns": [codes(others)],
        },
        {"name": "mistake", "action": "FailJobSet"},
    ]


def _shard(job: Job, own: Mapping[str, Any]) -> dict[str, Any]:
    found = slice_of(job, "jobset")
    chips = min(found.chips, 4)
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
        "parallelism": found.hosts,
        "completions": found.hosts,
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
