"""Cloud TPU virtual machines by queued resources: a script for each shard that asks for a slice,
runs the worker on all of its machines, asks anew where the slice was lost, and leaves nothing
behind.
"""

from collections.abc import Mapping
from typing import Any

from launch.cloud import INSTALL, PYTHON, chosen, hand_over, slice_of
from launch.job import RESTART, Job, Rendered, place, shell, worker

KNOWN = {
    "zone": None,
    "project": None,
    "spot": True,
    "source": None,  # a place to clone the checkout from
}
SCRIPT = """#!/usr/bin/env bash
# Shard {shard} of {name}. Run again it begins with what an earlier run may have left behind.
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
# Beside this script, which could not hear a signal while it waits for a program.
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
  # 255: ssh itself, most likely because the slice was taken away
  case "$code" in
    {codes} | 255) echo "$NAME ended with $code; it goes on" ;;
    *) echo "$NAME ended with $code" >&2; exit "$code" ;;
  esac
done
exit "${{code:-69}}"
"""

ALL = """#!/usr/bin/env bash
# All shards at once; ends with the code of one that failed.
cd "$(dirname "$0")" || exit 1
code=0
for script in shard-*.sh; do
  bash "$script" &
  running+=($!)
done
trap 'kill "${running[@]}" 2>/dev/null' INT TERM
for each in "${running[@]}"; do
  wait "$each"
  own=$?
  while kill -0 "$each" 2>/dev/null; do # a signal came in between
    wait "$each"
    own=$?
  done
  [ "$own" -eq 0 ] || code=$own
done
exit "$code"
"""

CLEAN = """#!/usr/bin/env bash
# Gives back what scripts that were killed have left of {name}; slices that are held are paid for.
for shard in {{0..{last}}}; do
  gcloud compute tpus queued-resources delete "{name}-$shard" --project {project} --zone {zone} \\
    --force --quiet
done
"""


def render(job: Job, given: Mapping[str, Any]) -> Rendered:
    own, found = chosen(given, KNOWN), slice_of(job, "gcloud")
    files = {
        f"shard-{shard}.sh": SCRIPT.format(
            shard=shard,
            name=job.name,
            project=own["project"],
            zone=own["zone"],
            restarts=job.restarts,
            accelerator=found.name,
            runtime=found.chip.runtime,
            spot=" --spot" if own["spot"] else "",
            setup=shell(
                [f"[ -d tinyjax ] || git clone {own['source']} tinyjax; cd tinyjax && {INSTALL}"]
            ),
            run=shell([f"cd tinyjax && {shell(worker(job, shard, PYTHON))}"]),
            codes=" | ".join(map(str, RESTART)),
        )
        for shard in range(job.shards)
    }
    clean = CLEAN.format(
        name=job.name, last=job.shards - 1, project=own["project"], zone=own["zone"]
    )
    files |= {"all.sh": ALL, "clean.sh": clean}
    return Rendered(files, [["bash", str(place(job) / "all.sh")]])


def submit(job: Job, rendered: Rendered, given: Mapping[str, Any]) -> int:
    return hand_over(job, rendered, "gcloud", "https://cloud.google.com/sdk/docs/install")
