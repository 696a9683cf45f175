"""Reading run folders: which runs a folder contains, and what they were trained on.

A study is a folder whose subfolders are runs or sweeps.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyjax.errors import UserError, suggest
from tinyjax.run import run_folder
from tinyjax.run.csv_files import read_rows
from tinyjax.run.files import read_json

WEIGHTS = "last"  # the weights that are reported


def list_runs(folder: Path, exclude: Iterable[str] = ()) -> dict[str, Path]:
    """Return the runs and sweeps of a folder, name -> path; "" is `folder` itself if it is a run.

    Runs named in `exclude` are left out. Runs that others in the folder start from are left out,
    too, because they are intermediate results.

    Raises UserError if there is no run, a run that is not excluded is not finished, or a name is
    unknown.
    """
    runs = _find_runs(folder)
    for name in exclude:
        if name not in runs:
            raise UserError(f"--exclude {name}: {suggest(name, runs)}")
    if not runs:
        raise UserError(
            f"{folder}: contains no run, sweep or folder of them (no config.json); give a folder "
            "written by tinyjax.train"
        )
    finished = {name: path for name, path in runs.items() if run_folder.is_finished(path)}
    for name in runs.keys() - finished.keys() - {*exclude}:
        raise UserError(
            f"{runs[name]}: this run is not finished; finish its training first, or --exclude it"
        )
    inits = {init for path in finished.values() for init in starting_weights(path)}
    started_from = {path_key(run_folder.started_from(init)) for init in inits}
    runs = {name: path for name, path in runs.items() if name not in exclude}
    if not runs:
        raise UserError(f"{folder}: --exclude leaves no run to report; exclude fewer")
    results = {n: path for n, path in runs.items() if path_key(path.resolve()) not in started_from}
    return results or runs


def _find_runs(folder: Path) -> dict[str, Path]:
    if (folder / "config.json").exists():
        return {"": folder}
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/config.json"))}


def starting_weights(folder: Path) -> set[str]:
    """The paths of the starting weights of a run's members."""
    inits = {read_json(folder / "config.json").get("init", "")}
    inits |= {row.get("init") or "" for row in read_rows(folder / "members.csv")}
    return inits - {""}


def short_names(inits: set[str]) -> dict[str, str]:
    """Path of starting weights -> its last components, as few as distinguish all paths."""
    depth = 1
    max_depth = max((len(Path(init).parts) for init in inits), default=1)

    def suffixes() -> dict[str, str]:
        return {init: "/".join(Path(init).parts[-depth:]) for init in inits}

    while len({*suffixes().values()}) < len(inits) and depth < max_depth:
        depth += 1
    return suffixes()


def path_key(path: str | Path) -> tuple[str, ...]:
    """The last two parts of a path, which identify a run: a study may be moved, but not renamed."""
    return Path(os.path.expanduser(path)).parts[-2:]


def is_evaluated(folder: Path) -> bool:
    """Return whether a run's last weights were evaluated on all suites of its config."""
    file = folder / "evaluations" / f"{WEIGHTS}.csv"
    if not all(file.with_suffix(suffix).exists() for suffix in (".csv", ".npz", ".json")):
        return False
    suites = {row["suite"] for row in read_rows(file)}
    return suites >= {*read_config(folder)["data"]["suites"]}


def read_config(folder: Path) -> dict[str, Any]:
    """A run's config, with data, in-domain suite (monitor) and protocol of its evaluation."""
    config = read_json(folder / "config.json")
    evaluation = folder / "evaluations" / f"{WEIGHTS}.json"
    if evaluation.exists():
        evaluated = read_json(evaluation)["config"]
        fields = ("data", "monitor", "score")
        config |= {name: evaluated[name] for name in fields if name in evaluated}
    return config


def describe_training_set(config: Mapping[str, Any]) -> str:
    """The training set in a few words: stem of its source, split, and conditions of `where`."""
    train = {**config["data"].get("common", {}), **config["data"]["train"]}
    source = Path(str(train["source"])).stem if "source" in train else config["data"]["format"]
    words = [source, *([str(train["split"])] if "split" in train else [])]
    for field, value in train.get("where", {}).items():
        is_range = isinstance(value, list | tuple)  # low and high, see `data.layouts.listing`
        words.append(f"{field}={f'{value[0]:g}-{value[1]:g}' if is_range else value}")
    return " ".join(words)


def read_gradient_norms(folder: Path) -> dict[tuple, float]:
    """Relative gradient norms measured in the runs of a folder.

    They are measured after decoder probing, usually not in the runs that fine-tune. Each norm
    therefore has two keys: (backbone, seed, `path_key` of the measured run), for members that start
    from that run, and (backbone, seed, `path_key` of its starting weights, training set), for
    members with the same start and training set. NaN if a key has several different values.
    """
    norms: dict[tuple, float] = {}

    def add(key: tuple, rgn: float) -> None:
        norms[key] = rgn if norms.get(key, rgn) == rgn else math.nan

    for path in _find_runs(folder).values():
        config = read_config(path)
        results = {r["member"]: r for r in last_phase(read_rows(path / "results.csv"))}
        for row in last_phase(read_rows(path / "members.csv")):
            rgn = parse_number(results.get(row["member"], {}).get("rgn"))
            if not math.isnan(rgn):
                network = row["backbone"], int(row["seed"])
                start = path_key(row.get("init", config["init"]))
                add((*network, path_key(path.resolve())), rgn)
                add((*network, start, describe_training_set(config)), rgn)
    return norms


def read_class_counts(folder: Path, member: str) -> dict[str, tuple[int, int]]:
    """A member's class -> numbers of training images and objects; {} if they are unknown."""
    file = folder / "weights" / f"{member}.json"
    counts = read_json(file).get("training", {}) if file.exists() else {}
    return {name: (images, objects) for name, (images, objects) in counts.items()}


def last_phase(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The rows of a run's last phase."""
    phase = rows[-1].get("phase") if rows else None
    return [row for row in rows if row.get("phase") == phase]


def parse_number(text: str | None) -> float:
    """A cell of a CSV file as a number; NaN if it is empty or not a number."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
