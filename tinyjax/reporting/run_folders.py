"""Which runs a folder has, which of them are asked about, and what they were trained on.

A study is a folder whose subfolders are runs or sweeps.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyjax.errors import UserError, suggest
from tinyjax.run import run_folder
from tinyjax.run.csv_files import read_rows

WEIGHTS = "last"  # that are reported


def runs_of(folder: Path, without: Iterable[str] = ()) -> dict[str, Path]:
    """The runs and sweeps of a folder, name -> folder; a folder that is one is called "". Those
    that others in it start from are left out: they are means, not what is asked about. So are
    those named in `without`.

    Raises UserError if there is none, one of them is not finished, or a name is unknown.
    """
    found = _all_runs(folder)
    for name in without:
        if name not in found:
            raise UserError(f"--without {name}: {suggest(name, found)}")
    if not found:
        raise UserError(
            f"{folder}: no run, no sweep, and no folder of them (no config.json); give the folder "
            "that a training wrote"
        )
    for path in found.values():
        if not run_folder.is_finished(path):
            raise UserError(f"{path}: this run is not finished; train it to its end first")
    begun = {place(init) for path in found.values() for init in starts(path)}
    found = {name: at for name, at in found.items() if name not in without}
    if not found:
        raise UserError(f"{folder}: --without leaves nothing to report; give one name less")
    kept = {name: at for name, at in found.items() if place(at.resolve()) not in begun}
    return kept or found


def _all_runs(folder: Path) -> dict[str, Path]:
    if (folder / "config.json").exists():
        return {"": folder}
    return {path.parent.name: path.parent for path in sorted(folder.glob("*/config.json"))}


def starts(folder: Path) -> set[str]:
    """The paths that a run's members took their starting weights from."""
    inits = {json.loads((folder / "config.json").read_text()).get("init", "")}
    inits |= {row.get("init") or "" for row in read_rows(folder / "members.csv")}
    return inits - {""}


def names(inits: set[str]) -> dict[str, str]:
    """Of each start the end of its path that tells it from the others."""
    depth = 1
    most = max((len(Path(init).parts) for init in inits), default=1)

    def ends() -> dict[str, str]:
        return {init: "/".join(Path(init).parts[-depth:]) for init in inits}

    while len({*ends().values()}) < len(inits) and depth < most:
        depth += 1
    return ends()


def place(path: str | Path) -> tuple[str, ...]:
    """What a path is known by: a study may have been moved, but not renamed."""
    return Path(path).parts[-2:]


def evaluated(folder: Path) -> bool:
    """Whether a run's last weights were evaluated, on all suites that were asked for."""
    file = folder / "evaluations" / f"{WEIGHTS}.csv"
    if not all(file.with_suffix(end).exists() for end in (".csv", ".npz", ".json")):
        return False
    suites = {row["suite"] for row in read_rows(file)}
    return suites >= {*config_of(folder)["data"]["suites"]}


def config_of(folder: Path) -> dict[str, Any]:
    """A run's config, with the suites that it was evaluated on."""
    config = json.loads((folder / "config.json").read_text())
    evaluated = folder / "evaluations" / f"{WEIGHTS}.json"
    if evaluated.exists():
        asked = json.loads(evaluated.read_text())["config"]
        config = {**config, "data": asked["data"], "monitor": asked["monitor"]}
    return config


def trained_on(config: Mapping[str, Any]) -> str:
    """The training set in few words: the stem of its source, its split, and which images of it."""
    own = {**config["data"].get("common", {}), **config["data"]["train"]}
    words = [Path(str(own["source"])).stem if "source" in own else config["data"]["format"]]
    words += [str(own["split"])] if "split" in own else []
    for field, wanted in own.get("where", {}).items():
        pair = isinstance(wanted, list | tuple)  # low and high, see `data.listing.chosen`
        words.append(f"{field}={f'{wanted[0]:g}-{wanted[1]:g}' if pair else wanted}")
    return " ".join(words)


def gradients(folder: Path) -> dict[tuple, float]:
    """Relative gradient norms that were measured in a folder, by whom they also are of: backbone,
    seed, and what member of these starts from that one, or starts where that one did and is trained
    on the same. NaN where several were measured.

    They are measured after decoder probing, mostly of another run than those that move.
    """
    found: dict[tuple, float] = {}

    def put(key: tuple, rgn: float) -> None:
        found[key] = rgn if found.get(key, rgn) == rgn else math.nan

    for path in _all_runs(folder).values():
        config = config_of(path)
        ends = {r["member"]: r for r in last_phase(read_rows(path / "results.csv"))}
        for row in last_phase(read_rows(path / "members.csv")):
            rgn = number(ends.get(row["member"], {}).get("rgn"))
            if not math.isnan(rgn):
                own = row["backbone"], int(row["seed"])
                put((*own, place(path.resolve())), rgn)
                put((*own, place(row.get("init", config["init"])), trained_on(config)), rgn)
    return found


def last_phase(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    last = rows[-1].get("phase") if rows else None
    return [row for row in rows if row.get("phase") == last]


def number(text: str | None) -> float:
    """A cell of a table; NaN if it is empty or no number."""
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan
