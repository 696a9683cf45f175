"""The folder of a run: which run it belongs to, what it records, and whether it is finished."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from tinyjax.config import leaves
from tinyjax.errors import UserError
from tinyjax.run.files import atomic
from tinyjax.run.logs import log


def member_id(overrides: dict[str, Any]) -> str:
    """Name of a member: a hash of what sets it apart from the config; a plain run overrides
    nothing.
    """
    text = json.dumps(overrides, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]  # of 10,000 no two alike, all but surely


def open_folder(folder: Path, config_json: str, write: bool = True) -> None:
    """Make the folder, unless it is another run's. write: this process is the one that writes.

    Raises UserError if it, or that of a phase in it, holds a checkpoint or the results of another
    config. A start that failed before its first checkpoint leaves nothing to protect.
    """
    stored = folder / "config.json"
    phases = folder.glob("phase[0-9]*") if stored.exists() else ()
    begun = any(
        is_finished(one) or any(one.glob("populations/*/checkpoints/[0-9]*"))
        for one in (folder, *phases)
    )
    if begun and (theirs := stored.read_text()) != config_json:
        raise UserError(
            f"{folder}: holds a run of another config ({_first_difference(theirs, config_json)}); "
            "give another --workdir, or the config this one was begun with"
        )
    if write and not is_finished(folder):
        create(folder, config_json)


def create(folder: Path, config_json: str) -> None:
    """Make the folder, with what its run is made of: the config, the machine and its packages."""
    with atomic(folder / "config.json") as path:
        path.write_text(config_json)
    with atomic(folder / "environment.txt") as path:
        path.write_text(_environment())


def is_finished(folder: Path) -> bool:
    """Whether the run has ended: its results are what it writes last."""
    return (folder / "results.csv").exists()


def log_if_finished(folder: Path) -> bool:
    """Whether the run has ended; if so the log says it."""
    if done := is_finished(folder):
        log.info(f"{folder}: this run is finished; its scores are in {folder / 'results.csv'}")
    return done


def _first_difference(theirs: str, ours: str) -> str:
    a, b = (dict(leaves(json.loads(text))) for text in (theirs, ours))
    for key in sorted(a.keys() | b.keys()):
        if a.get(key) != b.get(key):
            return f"{key}: {a.get(key, 'absent')} there, {b.get(key, 'absent')} here"
    return "the order of its keys"


def command_line() -> str:
    """What this process was called by."""
    return f"python {shlex.join(sys.orig_argv[1:])}"


def _environment() -> str:
    packages = sorted({f"{d.name}=={d.version}" for d in distributions()}, key=str.lower)
    machine = f"{platform.platform()}, {os.cpu_count()} processors"
    lines = [f"command: {command_line()}", f"python {platform.python_version()}", machine]
    commit = [f"commit: {own}"] if (own := _commit(Path(__file__).parents[2])) else []
    return "\n".join([*lines, *commit, *packages, ""])


def _commit(checkout: Path) -> str:
    """That of the sources, "-dirty" if they were changed since; empty if they are no checkout."""
    if not (checkout / ".git").exists():
        return ""
    describe = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # without git, or another user's
        return ""
