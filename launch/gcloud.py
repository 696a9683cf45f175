"""Cloud TPU virtual machines by queued resources. A script per shard requests a slice, runs the
worker on all of its machines, requests another slice if the first was lost, and deletes the slice
at the end.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from tinyjax.errors import run_all

from .cloud import INSTALL, PYTHON, fill_parameters, require_slice, run_commands
from .job import RESTART, Job, Rendered, job_folder, shell_line, worker_command

DEFAULTS = {
    "zone": None,
    "project": None,
    "spot": True,
    "source": None,  # URL to clone the checkout from
}
SCRIPT = """#!/usr/bin/env bash
# Shard {shard} of {name}. First deletes a slice that an earlier run may have left behind.
set -uo pipefail
NAME={name}-{shard}
AT=(--project {project} --zone {zone})
TPU=(gcloud compute tpus)
TRIES={restarts}

clean() {{
  "${{TPU[@]}}" queued-resources delete "$NAME" "${{AT[@]}}" --force --quiet >/dev/null 2>&1 || true
}}
state() {{
  "${{TPU[@]}}" queued-resources describe "$NAME" "${{AT[@]}}" --format='value(state.state)'
}}
# In the background: bash handles signals while it waits for a job, but not while a program runs.
on_all() {{
  "${{TPU[@]}}" tpu-vm ssh "$NAME" "${{AT[@]}}" --worker=all --command="$1" &
  child=$!
  wait "$child"
}}
stop() {{
  [ -n "${{child:-}}" ] && kill "$child" 2>/dev/null
  exit 75
}}
trap clean EXIT
trap stop INT TERM

for ((try = 0; try <= TRIES; try++)); do
  clean
  "${{TPU[@]}}" queued-resources create "$NAME" --node-id "$NAME" "${{AT[@]}}" \\
    --accelerator-type {accelerator} --runtime-version {runtime}{spot} || exit 1
  while :; do
    case "$(state)" in
      ACTIVE) break ;;
      FAILED | SUSPENDED | SUSPENDING) continue 2 ;;
    esac
    sleep "${{PAUSE:-30}}" &
    wait $!
  done
  on_all {setup} && on_all {run}
  code=$?
  [ "$code" -eq 0 ] && exit 0
  # 255: ssh failed, most likely because the slice was preempted
  case "$code" in
    {codes} | 255) echo "$NAME ended with exit code $code; restarting it" ;;
    *) echo "$NAME ended with exit code $code" >&2; exit "$code" ;;
  esac
done
exit "${{code:-69}}"
"""

ALL = """#!/usr/bin/env bash
# Runs all shards concurrently; exits with the code of a shard that failed.
cd "$(dirname "$0")" || exit 1
code=0
for script in shard-*.sh; do
  bash "$script" &
  running+=($!)
done
trap 'kill "${running[@]}" 2>/dev/null' INT TERM
for pid in "${running[@]}"; do
  wait "$pid"
  status=$?
  while kill -0 "$pid" 2>/dev/null; do # a signal interrupted `wait`
    wait "$pid"
    status=$?
  done
  [ "$status" -eq 0 ] || code=$status
done
exit "$code"
"""

CLEAN = """#!/usr/bin/env bash
# Deletes the slices of {name} that killed scripts have left behind, which are still charged.
for shard in {{0..{last}}}; do
  gcloud compute tpus queued-resources delete "{name}-$shard" --project {project} --zone {zone} \\
    --force --quiet
done
"""


def render(job: Job, parameters: Mapping[str, Any]) -> Rendered:
    """Return a script per shard, one that runs all of them, and one that cleans up.

    Raises UserError for an invalid parameter, and as `require_slice` does.
    """
    args, slice_ = run_all(
        partial(fill_parameters, parameters, DEFAULTS), partial(require_slice, job, "gcloud")
    )
    clone = f"[ -d tinyjax ] || git clone {args['source']} tinyjax; cd tinyjax && {INSTALL}"
    files = {
        f"shard-{shard}.sh": SCRIPT.format(
            shard=shard,
            name=job.name,
            project=args["project"],
            zone=args["zone"],
            restarts=job.restarts,
            accelerator=slice_.name,
            runtime=slice_.chip.runtime,
            spot=" --spot" if args["spot"] else "",
            setup=shell_line([clone]),
            run=shell_line([f"cd tinyjax && {shell_line(worker_command(job, shard, PYTHON))}"]),
            codes=" | ".join(map(str, RESTART)),
        )
        for shard in range(job.shards)
    }
    clean = CLEAN.format(
        name=job.name, last=job.shards - 1, project=args["project"], zone=args["zone"]
    )
    files |= {"all.sh": ALL, "clean.sh": clean}
    return Rendered(files, [["bash", str(job_folder(job) / "all.sh")]])


def submit(job: Job, rendered: Rendered, parameters: Mapping[str, Any]) -> int:
    """Run all scripts and wait for them; return the first exit code that is not 0."""
    return run_commands(job, rendered, "gcloud", "https://cloud.google.com/sdk/docs/install")
