"""What engines in a cloud share: their files beside the run's others, and their programs."""

import shutil
import subprocess
from collections.abc import Mapping
from typing import Any

from launch.job import Job, Rendered, place, write_down
from tinyjax.errors import UserError, suggest
from tinyjax.run.accelerators import Slice
from tinyjax.run.files import atomic

# On each machine, in the checkout: its own Python may be older than we need.
INSTALL = (
    "python3 -m pip install --quiet --user uv && ~/.local/bin/uv venv --quiet --python 3.12 .venv "
    "&& ~/.local/bin/uv pip install --quiet --python .venv/bin/python -e '.[tpu,bucket]'"
)
PYTHON = ".venv/bin/python"


def slice_of(job: Job, engine: str) -> Slice:
    """Raises UserError for what is no TPU slice, or a folder that its machines do not share."""
    if "://" not in job.workdir:
        raise UserError(
            f"--workdir {job.workdir}: is on this machine's disk; {engine}'s machines share a "
            "bucket, such as gs://bucket/name"
        )
    if not job.slice:
        raise UserError(
            f"--accelerator {job.accelerator}: {engine} is for TPU slices; give one such as v6e-8"
        )
    return job.slice


def chosen(given: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters, of which `known` has the defaults; None: it must be given. Raises UserError."""
    for key in given:
        if key not in known:
            raise UserError(f"--set {key}: {suggest(key, known)}")
    found = {**known, **given}
    for key, value in found.items():
        if value is None:
            raise UserError(f"--set {key}=..: must be given")
    return found


def hand_over(job: Job, rendered: Rendered, program: str, install: str) -> int:
    """Write the files, run the commands one after the other; returns the first code that is not 0.
    Raises UserError without the program.
    """
    if not shutil.which(program):
        raise UserError(f"{program} is not installed: {install}")
    write_down(job)
    for name, text in rendered.files.items():
        with atomic(place(job) / name) as path:
            path.write_text(text)
    for command in rendered.commands:
        if code := subprocess.run([str(word) for word in command]).returncode:
            return code
    return 0
