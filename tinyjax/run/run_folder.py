"""Run folders: the config, records of the machine, and whether the run is finished."""

import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from tinyjax.config.parsing import leaves_with_path
from tinyjax.errors import UserError
from tinyjax.run.files import atomic
from tinyjax.run.logs import log


def member_id(overrides: dict[str, Any]) -> str:
    """Return the name of a member, a hash of its overrides; those of a single run are empty."""
    text = json.dumps(overrides, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]  # 10,000 members collide with p < 1e-4


def open_folder(folder: Path, config_json: str, write: bool = True) -> None:
    """Create the run folder of a config, or check that it belongs to the same config.

    write: whether this process writes to the folder.

    Raises UserError if the folder, or a phase in it, has a checkpoint or results of another config.
    A run that failed before its first checkpoint leaves nothing to protect.
    """
    config_file = folder / "config.json"
    phases = folder.glob("phase[0-9]*") if config_file.exists() else ()
    has_progress = any(
        is_finished(path) or any(path.glob("populations/*/checkpoints/[0-9]*"))
        for path in (folder, *phases)
    )
    if has_progress and (stored_json := config_file.read_text(encoding="utf-8")) != config_json:
        raise UserError(
            f"{folder}: belongs to a run of another config "
            f"({_first_difference(stored_json, config_json)}); give another --workdir, or the "
            "config that this run was started with"
        )
    if write and not is_finished(folder):
        create(folder, config_json)


def create(folder: Path, config_json: str) -> None:
    """Create the folder and record the config, the machine and its packages in it."""
    with atomic(folder / "config.json") as path:
        path.write_text(config_json, encoding="utf-8")
    with atomic(folder / "environment.txt") as path:
        path.write_text(_environment(), encoding="utf-8")


def is_finished(folder: Path) -> bool:
    """Return whether the run is finished: it writes its results last."""
    return (folder / "results.csv").exists()


def log_if_finished(folder: Path) -> bool:
    """Return whether the run is finished, and log it if so."""
    if finished := is_finished(folder):
        log.info(f"{folder}: this run is finished; its scores are in {folder / 'results.csv'}")
    return finished


def _first_difference(stored_json: str, current_json: str) -> str:
    stored, current = (
        dict(leaves_with_path(json.loads(text))) for text in (stored_json, current_json)
    )
    for key in sorted(stored.keys() | current.keys()):
        if stored.get(key) != current.get(key):
            before, now = stored.get(key, "absent"), current.get(key, "absent")
            return f"{key}: {before} in the folder, {now} in this config"
    return "the order of the keys"


def command_line() -> str:
    """Return the command line of this process."""
    return f"python {shlex.join(sys.orig_argv[1:])}"


def _environment() -> str:
    machine = f"{platform.platform()}, {os.cpu_count()} processors"
    lines = [f"command: {command_line()}", f"python {platform.python_version()}", machine]
    if commit := _commit(Path(__file__).parents[2]):
        lines.append(f"commit: {commit}")
    return "\n".join([*lines, *_packages(), ""])


@cache  # it takes a tenth of a second, and studies create many folders
def _packages() -> list[str]:
    """Return the installed packages, as "name==version"."""
    metadata = [distribution.metadata for distribution in distributions()]
    return sorted({f"{m['Name']}=={m['Version']}" for m in metadata}, key=str.lower)


def _commit(checkout: Path) -> str:
    """Return the commit of a checkout, with "-dirty" after changes; "" if it is not a checkout."""
    if not (checkout / ".git").exists():
        return ""
    describe = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # git is missing, or another user's checkout
        return ""
