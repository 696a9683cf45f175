"""Run folders: the config, records of the machine, and whether the run is finished."""

import hashlib
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from tinyjax.config.parsing import leaves_with_path
from tinyjax.errors import UserError
from tinyjax.run.files import atomic, read_json
from tinyjax.run.logs import log

DATA_FILE = "data.json"
AVERAGES = "averages"  # folder within a run, of the weights that tinyjax.average writes
# Fields that may change in a run whose data are recorded: they say where the data are.
MOVABLE = re.compile(r"data\.(common|train|suites\..+)\.(source|classes)")


def member_id(overrides: dict[str, Any]) -> str:
    """Return the name of a member, a hash of its overrides; those of a single run are empty."""
    text = json.dumps(overrides, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]  # 10,000 members collide with p < 1e-4


def is_average(path: Path) -> bool:
    """Whether a path names an average of weights within a run or sweep, not a file."""
    return path.parent.name == AVERAGES and path.suffix != ".safetensors"


def started_from(init: str) -> Path:
    """The run folder or file that starting weights belong to."""
    path = Path(init)
    return path.parent.parent if path.parent.name == AVERAGES else path


def open_folder(folder: Path, config_json: str, write: bool = True, shared: bool = False) -> None:
    """Create the run folder of a config, or check that it belongs to the same config.

    Args:
        write: whether this process writes to the folder.
        shared: whether other processes train in it.

    Raises UserError if other processes use the folder with another config, or if the folder, or a
    phase in it, has a checkpoint or results of another config. A run that failed before its first
    checkpoint leaves nothing to protect. If the data of the run are recorded, they may be in other
    places: `training.run_data` compares them.
    """
    config_file = folder / "config.json"
    paths = (folder, *folder.glob("phase[0-9]*")) if config_file.exists() else ()
    records = [file for path in paths for file in data_records(path)]
    if (shared and paths) or any(map(_has_progress, paths)):
        changes = _config_changes(config_file, config_json)
        changed = [key for key in changes if not (records and MOVABLE.fullmatch(key))]
        if changed:
            raise UserError(
                f"{folder}: belongs to a run of another config ({changes[changed[0]]}); give "
                "another --workdir, or the config that this run was started with"
            )
        if changes:  # `record_config` stores the new places when the data are known to be the same
            if is_finished(folder):
                differences = "; ".join(changes.values())
                log.warning(f"{folder}: {differences}; not compared, because the run is finished")
            return
    elif write:
        for file in records:
            file.unlink()
    if write and not is_finished(folder):
        create(folder, config_json)


def record_config(folder: Path, config_json: str) -> None:
    """Replace the config of a run whose data have been moved, and log the changes."""
    config_file = folder / "config.json"
    if changes := _config_changes(config_file, config_json):
        log.info(f"{folder}: the data have been moved ({'; '.join(changes.values())})")
        with atomic(config_file) as path:
            path.write_text(config_json, encoding="utf-8")


def data_records(folder: Path) -> list[Path]:
    """The files of a run or a sweep that record its data."""
    files = (folder / DATA_FILE, *folder.glob(f"populations/*/{DATA_FILE}"))
    return [file for file in files if file.exists()]


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


def _has_progress(folder: Path) -> bool:
    return is_finished(folder) or any(folder.glob("populations/*/checkpoints/[0-9]*"))


def _config_changes(config_file: Path, config_json: str) -> dict[str, str]:
    """Field "a.b" -> how it differs from that of the stored config."""
    configs = [read_json(config_file), json.loads(config_json)]
    stored, current = (dict(leaves_with_path(config)) for config in configs)
    changes = {
        key: f"{key}: {stored.get(key, 'absent')} in the folder, {current.get(key, 'absent')} in "
        "this config"
        for key in sorted(stored.keys() | current.keys())
        if stored.get(key) != current.get(key)
    }
    differs = configs[0] != configs[1]  # an empty group of fields has no leaves
    return changes or ({"": "a group without fields"} if differs else {})


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
