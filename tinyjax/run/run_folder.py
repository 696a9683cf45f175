"""The folder of a run: what stands where, and how it is written so that a kill leaves it whole."""

import csv
import hashlib
import io
import json
import logging
import math
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tinyjax.config.paths import remote
from tinyjax.errors import UserError

log = logging.getLogger("tinyjax")

OFTEN = 10  # seconds between what is written again and again
METRICS = ("member", "step", "split", "metric", "value")
FORMAT = 1  # of the weights' two files; a later one may hold what this version cannot read
TOLD = ("frame", "classes", "config", "parameters")  # what a description must say


def member_id(overrides: dict[str, Any]) -> str:
    """Name of a member: a hash of what sets it apart from the config; a plain run overrides
    nothing.
    """
    text = json.dumps(overrides, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]  # of 10,000 no two alike, all but surely


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends without an error."""
    if remote(path):
        with tempfile.TemporaryDirectory() as folder:
            yield (own := Path(folder) / path.name)
            path.write_bytes(own.read_bytes())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Shards on several machines write the same tables.
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    yield temporary
    os.replace(temporary, path)


def open_folder(folder: Path, config_json: str, write: bool = True) -> None:
    """Make the folder, unless it is another run's. write: this process is the one that writes.

    Raises UserError if it, or that of a phase in it, holds a checkpoint or the results of another
    config. A start that failed before its first checkpoint leaves nothing to protect.
    """
    stored = folder / "config.json"
    phases = folder.glob("phase[0-9]*") if stored.exists() else ()
    begun = any(
        finished(one) or any(one.glob("populations/*/checkpoints/[0-9]*"))
        for one in (folder, *phases)
    )
    if begun and (theirs := stored.read_text()) != config_json:
        raise UserError(
            f"{folder}: holds a run of another config ({_first_difference(theirs, config_json)}); "
            "give another --workdir, or the config this one was begun with"
        )
    if write and not finished(folder):
        begin(folder, config_json)


def begin(folder: Path, config_json: str) -> None:
    """Make the folder, with what its run is made of: the config, the machine and its packages."""
    with atomic(folder / "config.json") as path:
        path.write_text(config_json)
    with atomic(folder / "environment.txt") as path:
        path.write_text(_environment())


def finished(folder: Path) -> bool:
    """Whether the run has ended: its results are what it writes last."""
    return (folder / "results.csv").exists()


def said_finished(folder: Path) -> bool:
    """Whether the run has ended; if so the log says it."""
    if done := finished(folder):
        log.info(f"{folder}: this run is finished; its scores are in {folder / 'results.csv'}")
    return done


class _Console(logging.StreamHandler):
    """Standard output, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)


def start_log(write: bool = True) -> None:
    """Messages go to stdout; without `write` warnings alone."""
    log.setLevel(logging.INFO if write else logging.WARNING)
    log.propagate = False
    log.handlers = [_Console()]


@contextmanager
def log_to(file: Path, write: bool = True) -> Iterator[None]:
    """Messages of this block also go to the end of `file`, unless this process does not write."""
    if not write:
        yield
        return
    handler = _Bucket(file) if remote(file) else logging.FileHandler(file)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


class _Bucket(logging.Handler):
    """A log in a bucket: written whole, at most every `OFTEN` seconds and when it is closed."""

    def __init__(self, file: Path):
        super().__init__()
        self._file, self._written = file, time.monotonic()
        self._text = file.read_text() if file.exists() else ""

    def emit(self, record: logging.LogRecord) -> None:
        self._text += f"{self.format(record)}\n"
        if time.monotonic() - self._written > OFTEN:
            self._write()

    def close(self) -> None:
        self._write()
        super().close()

    def _write(self) -> None:
        with not_needed(self._file):
            self._file.write_text(self._text)
        self._written = time.monotonic()


@contextmanager
def stop_requests() -> Iterator[list[int]]:
    """A list that SIGTERM and SIGINT (Ctrl-C) add themselves to, instead of ending the process."""
    received: list[int] = []
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(n, lambda number, _: received.append(number)) for n in numbers]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def heart(file: Path) -> Callable[..., None]:
    """`beat(state, **values)` writes to `file` that this process lives, when and where, what it is
    doing, and `values`; of `step` also how long one took since the last beat.
    """
    before: tuple[float, int] | None = None
    said = ("", 0.0)  # and when

    def beat(state: str, **values: Any) -> None:
        nonlocal before, said
        now, step = time.time(), values.get("step")
        if state == said[0] and now - said[1] < OFTEN:
            return
        said = state, now
        own = {
            "state": state,
            "time": now,
            "host": platform.node(),
            "process": os.getpid(),
            **values,
        }
        if step is not None:
            if before and step > before[1]:
                own["seconds_a_step"] = (now - before[0]) / (step - before[1])
            before = now, step
        with not_needed(file), atomic(file) as path:
            path.write_text(json.dumps(own))

    return beat


@contextmanager
def not_needed(file: Path) -> Iterator[None]:
    """What fails in this block is said, and ends nothing: a bucket may be out of reach for once."""
    try:
        yield
    except Exception as error:  # of any of the libraries below
        log.debug(f"{file}: could not be written ({error})")


class Metrics:
    """metrics.csv of a run that goes on at `step`: what it will write again is dropped, later
    training rows and evaluations from `step` on.
    """

    def __init__(self, file: Path, step: int):
        self._file, self._rows = file, []
        if file.exists():
            whole = [row for row in read_rows(file) if None not in row.values()]
            kept = [row for row in whole if int(row["step"]) < step + (row["split"] == "train")]
            write_rows(file, kept, METRICS)
            self._rows = kept if remote(file) else []

    def add(self, member: str, step: int, split: str, values: dict[str, float]) -> None:
        """Rows member, step, split, metric, value, at the end."""
        rows = [(member, str(step), split, name, repr(float(v))) for name, v in values.items()]
        if remote(self._file):
            self._rows += [dict(zip(METRICS, row, strict=True)) for row in rows]
            return
        new = not self._file.exists()
        with self._file.open("a", newline="") as stream:
            csv.writer(stream).writerows([METRICS] * new + rows)

    def written(self) -> None:
        """To be called before a checkpoint: what is lost by a kill is then written again."""
        if remote(self._file):
            write_rows(self._file, self._rows, METRICS)


def write_rows(file: Path, rows: Iterable[dict[str, Any]], columns: Iterable[str]) -> None:
    """Write a CSV file whole."""
    with atomic(file) as path, path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(columns))
        writer.writeheader()
        writer.writerows(rows)


def read_rows(file: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    return list(csv.DictReader(io.StringIO(file.read_text())))


def copy_weights(of: Path, to: Path) -> None:
    """The weights of run folder `of` in run folder `to` as well."""
    for file in (of / "weights").iterdir():
        with atomic(to / "weights" / file.name) as path:
            path.write_bytes(file.read_bytes())


def write_weights(file: Path, variables: Any, about: dict[str, Any]) -> None:
    """`variables` as <file>.safetensors, names "params/<path>" and "stats/<path>", and `about` as
    <file>.json.
    """
    from safetensors.numpy import save_file

    flat = {
        f"{kind}/{path}": np.asarray(leaf, order="C")  # safetensors misreads a cut-out view
        for kind, tree in variables._asdict().items()
        for path, leaf in tree.items()
    }
    # Not with_suffix: a name may have a dot in it.
    with atomic(file.with_name(f"{file.name}.safetensors")) as path:
        save_file(flat, path)
    with atomic(file.with_name(f"{file.name}.json")) as path:
        about = _without_nan({"format": FORMAT, **about})
        path.write_text(json.dumps(about, indent=2, allow_nan=False))


def ours(file: Path) -> bool:
    """Whether a .safetensors names its tensors as `write_weights` does. Raises UserError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as tensors:
            return all(name.startswith(("params/", "stats/")) for name in tensors.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: broken ({error})") from error


def read_weights(file: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """What `write_weights` wrote: {"params": {path: array}, "stats": {path: array}} and `about`.

    Raises UserError if the files are not there, broken, of another version, or not ours.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    # Not with_suffix: a file that was renamed may have a dot in its name.
    tensors, about = (file.with_name(file.name + end) for end in (".safetensors", ".json"))
    for path in (tensors, about):
        if not path.is_file():
            others = ", ".join(sorted(p.stem for p in file.parent.glob("*.safetensors")))
            there = f"there are: {others}" if others else "has the run finished?"
            raise UserError(f"{path}: no such weights; {there}")
    trees: dict[str, dict[str, Any]] = {"params": {}, "stats": {}}
    try:
        for name, leaf in load(tensors.read_bytes()).items():
            kind, key = name.split("/", 1)
            trees[kind][key] = leaf
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{tensors}: broken, or not written by tinyjax ({error})") from error
    try:
        described = json.loads(about.read_text())
    except ValueError as error:
        raise UserError(f"{about}: not json ({error})") from error
    foreign = "give the one written with the weights"
    if not isinstance(described, dict) or type(described.get("format")) is not int:
        raise UserError(f"{about}: not written by tinyjax; {foreign}")
    if (theirs := described["format"]) != FORMAT:
        age, advice = ("a newer", "upgrade") if theirs > FORMAT else ("an older", "train anew")
        raise UserError(
            f"{about}: format {theirs}, of {age} tinyjax; this one reads {FORMAT}: {advice}"
        )
    for name in TOLD:
        if name not in described:
            raise UserError(f"{about}: no {name!r} in it; {foreign}")
    return trees, described


def _without_nan(tree: Any) -> Any:
    """JSON knows no NaN and no infinity: they become null."""
    if isinstance(tree, dict):
        return {key: _without_nan(value) for key, value in tree.items()}
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _first_difference(theirs: str, ours: str) -> str:
    a, b = (dict(leaves(json.loads(text))) for text in (theirs, ours))
    for key in sorted(a.keys() | b.keys()):
        if a.get(key) != b.get(key):
            return f"{key}: {a.get(key, 'absent')} there, {b.get(key, 'absent')} here"
    return "the order of its keys"


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path "a.b.c", value) of nested dicts."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def command() -> str:
    """What this process was called by."""
    return f"python {shlex.join(sys.orig_argv[1:])}"


def _environment() -> str:
    packages = sorted({f"{d.name}=={d.version}" for d in distributions()}, key=str.lower)
    machine = f"{platform.platform()}, {os.cpu_count()} processors"
    lines = [f"command: {command()}", f"python {platform.python_version()}", machine]
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
