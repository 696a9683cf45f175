"""A sweep that is cut into shards, and the command that trains one of them wherever it is."""

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

from tinyjax.config.paths import path_of
from tinyjax.errors import UserError, suggest
from tinyjax.run import accelerators
from tinyjax.run.accelerators import PER_HOST, Slice
from tinyjax.run.files import atomic

# What a worker's exit code means; docs/scaling.md has the table.
DONE, MISTAKE, ELSEWHERE, STOPPED = 0, 2, 69, 75
# Told to stop, and saved; no fit machine; or ended by a signal, its own abort or another's kill.
RESTART = (ELSEWHERE, STOPPED, 134, 137, 139, 143)
AT_HAND = ("cpu", "gpu")
WORKERS = ("--config.", "--sweep.", "--member-batching", "--wait")  # options that are handed on
PR_SET_PDEATHSIG = 1  # of Linux's prctl.h


class Job(NamedTuple):
    name: str  # lower-case letters, digits and dashes
    config: str
    overrides: tuple[str, ...]  # further arguments of the worker
    workdir: str  # that all machines share
    shards: int
    accelerator: str  # of each shard: "cpu", "gpu", or a TPU slice such as "v5litepod-8"
    at_once: int  # shards at the same time, where the engine asks; 0: as it likes
    restarts: int  # of a shard, before giving up

    @property
    def slice(self) -> Slice | None:
        return None if self.accelerator in AT_HAND else accelerators.SLICES[self.accelerator]


class Rendered(NamedTuple):
    """What an engine is given: files by name, and the commands that hand them over."""

    files: Mapping[str, str]
    commands: Sequence[Sequence[str]]


def job(
    config: str,
    overrides: Sequence[str],
    workdir: str,
    shards: int,
    accelerator: str = "cpu",
    at_once: int = 0,
    restarts: int = 20,
) -> Job:
    """Raises UserError for what no worker could do."""
    if shards < 1:
        raise UserError(f"--shards {shards}: give 1 or more")
    known = (*AT_HAND, *accelerators.SLICES)
    if accelerator not in known:
        raise UserError(f"--accelerator {accelerator}: {suggest(accelerator, known)}")
    for word in overrides:
        if word.startswith("-") and not word.startswith(WORKERS):
            raise UserError(f"{word}: is no option of launch or of its workers; see --help")
    workdir = workdir if "://" in workdir else str(Path(workdir).absolute())
    last = re.sub(r"[^a-z0-9]+", "-", Path(workdir).name.lower()).strip("-")[:30]
    own = hashlib.sha256(workdir.encode()).hexdigest()[:6]  # of two folders with the same name
    name = f"tj-{last}-{own}"
    return Job(name, config, tuple(overrides), workdir, shards, accelerator, at_once, restarts)


def worker(job: Job, shard: int | str, python: str = "python") -> list[str]:
    """The command of a shard, to be run from a checkout. Run again it goes on where it was.

    shard: its number, or what the engine's shell puts in its place.
    """
    found = job.slice
    many = f"tpu:{found.chips}" if found else f"{job.accelerator}:1"
    together = ["--processes", "auto"] if found and found.chips > PER_HOST else []
    return [
        *(python, "-m", "tinyjax.train", "--config", job.config, "--workdir", job.workdir),
        *("--shard", f"{shard}/{job.shards}", "--expect", many, *together, *job.overrides),
    ]


def place(job: Job) -> Path:
    """Of an engine's own files, on this machine."""
    if "://" in job.workdir:
        return Path("launched") / job.name
    return Path(job.workdir) / "launched"


def write_down(job: Job) -> None:
    """For `status`: how many shards there should be."""
    with atomic(path_of(job.workdir) / "launch.json") as path:
        path.write_text(json.dumps(job._asdict(), indent=1))


def shell(command: Sequence[Any]) -> str:
    """As a line for bash; a "$NAME" in it is the shell's."""
    return " ".join(
        str(word) if re.fullmatch(r"\$\w+(/\d+)?", str(word)) else shlex.quote(str(word))
        for word in command
    )


def of(code: int) -> int:
    """A process's exit code as shells give it: -9, ended by signal 9, is 137."""
    return 128 - code if code < 0 else code


def dies_with_us() -> None:
    """To be called in a child before it runs: a worker whose parent is killed would go on, beside
    the one that takes its place.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
