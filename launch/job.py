"""A sweep in shards, and the command that trains one shard on any machine."""

import ctypes
import hashlib
import json
import re
import shlex
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinyjax.config.paths import parse_path
from tinyjax.errors import EX_UNAVAILABLE, STOPPED, UserError, suggest
from tinyjax.run import accelerators
from tinyjax.run.accelerators import CHIPS_PER_HOST, Slice
from tinyjax.run.files import atomic

# Exit codes of a worker; docs/scaling.md has the table.
DONE, USER_ERROR = 0, 2
# Unsuitable machine, or a locked shard; stopped after saving; or ended by a signal (abort, kill,
# segfault, terminate).
RESTART = (EX_UNAVAILABLE, STOPPED, 134, 137, 139, 143)
LOCAL_ACCELERATORS = ("cpu", "gpu")
# Options that are passed to the workers.
WORKER_OPTIONS = ("--config.", "--sweep.", "--member-batching", "--join-timeout")
PR_SET_PDEATHSIG = 1  # Linux's prctl.h


class Job(NamedTuple):
    """A sweep to launch."""

    name: str  # lower-case letters, digits and dashes
    config: str
    overrides: tuple[str, ...]  # further arguments of the worker
    workdir: str  # shared by all machines
    shards: int
    accelerator: str  # of each shard: "cpu", "gpu", or a TPU slice such as "v5litepod-8"
    at_once: int  # maximum number of concurrent shards; 0: the engine's default
    restarts: int  # maximum per shard

    @property
    def slice(self) -> Slice | None:
        """The TPU slice of a shard, if its accelerator is one."""
        if self.accelerator in LOCAL_ACCELERATORS:
            return None
        return accelerators.SLICES[self.accelerator]


class Rendered(NamedTuple):
    """The input of an engine: files by name, and the commands that submit them."""

    files: Mapping[str, str]
    commands: Sequence[Sequence[str]]


def make_job(
    config: str,
    overrides: Sequence[str],
    workdir: str,
    shards: int,
    accelerator: str = "cpu",
    at_once: int = 0,
    restarts: int = 20,
) -> Job:
    """Return a job with a name for its run folder. Raises UserError for an invalid argument."""
    mistakes = [f"--shards {shards}: give 1 or more"] if shards < 1 else []
    known = (*LOCAL_ACCELERATORS, *accelerators.SLICES)
    if accelerator not in known:
        mistakes.append(f"--accelerator {accelerator}: {suggest(accelerator, known)}")
    mistakes += [
        f"{option}: neither launch nor its workers have this option; see --help"
        for option in overrides
        if option.startswith("-") and not option.startswith(WORKER_OPTIONS)
    ]
    if mistakes:
        raise UserError(*mistakes)
    workdir = workdir if "://" in workdir else str(parse_path(workdir).absolute())
    folder_name = re.sub(r"[^a-z0-9]+", "-", Path(workdir).name.lower()).strip("-")[:30]
    path_hash = hashlib.sha256(workdir.encode()).hexdigest()[:6]  # folders may share a name
    name = f"tj-{folder_name}-{path_hash}"
    return Job(name, config, tuple(overrides), workdir, shards, accelerator, at_once, restarts)


def worker_command(job: Job, shard: int | str, python: str = "python") -> list[str]:
    """Return the command that trains a shard, or resumes it, where tinyjax is installed.

    shard: its number, or a variable of the engine's shell.
    """
    chips = job.slice.chips if job.slice else 1
    devices = f"tpu:{chips}" if job.slice else f"{job.accelerator}:1"
    processes = ["--processes", "auto"] if chips > CHIPS_PER_HOST else []
    return [
        *(python, "-m", "tinyjax.train", "--config", job.config, "--workdir", job.workdir),
        *("--shard", f"{shard}/{job.shards}", "--expect", devices, *processes, *job.overrides),
    ]


def job_folder(job: Job) -> Path:
    """Return the local folder of the engine's files."""
    if "://" in job.workdir:
        return Path("launched") / job.name
    return Path(job.workdir) / "launched"


def record_launch(job: Job) -> None:
    """Write the job to the run folder, where `status` reads the number of shards."""
    with atomic(parse_path(job.workdir) / "launch.json") as path:
        path.write_text(json.dumps(job._asdict(), indent=1), encoding="utf-8")


def shell_line(command: Sequence[Any]) -> str:
    """Return a command as a line of bash, in which "$NAME" is expanded."""
    return " ".join(
        str(word) if re.fullmatch(r"\$\w+(/\d+)?", str(word)) else shlex.quote(str(word))
        for word in command
    )


def shell_exit_code(code: int) -> int:
    """Return a process's exit code as shells do: -9, ended by signal 9, becomes 137."""
    return 128 - code if code < 0 else code


def die_with_parent() -> None:
    """End this process when its parent ends; a child calls this before it runs its program.

    Otherwise a worker whose parent was killed would keep running next to its replacement.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
