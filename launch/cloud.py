"""Code shared by the cloud engines: checks, files in the job's folder, and running commands."""

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinyjax.errors import UserError, suggest
from tinyjax.run.accelerators import Slice
from tinyjax.run.files import atomic

from .job import Job, Rendered, job_folder, record_launch

# Run on each machine in the checkout; uv because the machine's Python may be too old.
INSTALL = (
    "python3 -m pip install --quiet --user uv && ~/.local/bin/uv venv --quiet --python 3.12 .venv "
    "&& ~/.local/bin/uv pip install --quiet --python .venv/bin/python -e '.[tpu,bucket]'"
)
PYTHON = ".venv/bin/python"


def require_slice(job: Job, engine: str) -> Slice:
    """Return the job's TPU slice.

    Raises UserError if the accelerator is not a TPU slice, or the run folder is not in a bucket.
    """
    mistakes = []
    if "://" not in job.workdir:
        mistakes.append(
            f"--workdir {job.workdir}: is on this machine's disk; {engine}'s machines share a "
            "bucket, such as gs://bucket/name"
        )
    if not job.slice:
        mistakes.append(
            f"--accelerator {job.accelerator}: {engine} is for TPU slices; give one such as v6e-8"
        )
    if mistakes or not job.slice:
        raise UserError(*mistakes)
    return job.slice


def require_checkout(engine: str) -> None:
    """Raise UserError if the working directory, which the machines get, is not a checkout."""
    if not Path("tinyjax", "train.py").is_file():
        raise UserError(
            f"{engine} copies the working directory to its machines and installs tinyjax from it: "
            "run this in a checkout of tinyjax"
        )


def fill_parameters(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the engine's parameters, with defaults for those not given.

    Raises UserError for all unknown parameters, and all missing ones whose default is None.
    """
    mistakes = [f"--set {key}: {suggest(key, defaults)}" for key in given if key not in defaults]
    parameters = {**defaults, **given}
    mistakes += [f"--set {key}=..: must be given" for key, v in parameters.items() if v is None]
    if mistakes:
        raise UserError(*mistakes)
    return parameters


def run_commands(job: Job, rendered: Rendered, program: str, install: str) -> int:
    """Write the files and run the commands in order; return the first exit code that is not 0.

    Raises UserError if the program is not installed; `install` tells how to install it.
    """
    if not shutil.which(program):
        raise UserError(f"{program} is not installed: {install}")
    record_launch(job)
    for name, text in rendered.files.items():
        with atomic(job_folder(job) / name) as path:
            path.write_text(text, encoding="utf-8")
    for command in rendered.commands:
        if code := subprocess.run([str(word) for word in command]).returncode:
            return code
    return 0
