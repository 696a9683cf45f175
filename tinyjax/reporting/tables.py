"""What the folder of an evaluated run, sweep or study says, read into one tuple.

A study is a folder whose subfolders are runs or sweeps; its members are those of all of them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from tinyjax.errors import UserError
from tinyjax.reporting import run_folders
from tinyjax.run.csv_files import read_rows

PLAIN = (
    "member", "phase", "seed", "backbone", "parameters", "backbone_parameters",
    "trained_parameters", "multiply_adds",
)  # fmt: skip
NAMED = ("suite", "slice", "corruption", "severity", "member")  # columns that are no scores
SCRATCH = "scratch"
EVALUATED = "evaluated: "  # begins a line, as "command: " does
CLASSES = "classes"  # slices by this are of all images, scored by some classes alone


class Member(NamedTuple):
    """One network."""

    key: str  # its name here: its id, in a study "run/id"
    id: str
    run: str  # subfolder of a study, else ""
    home: str  # the in-domain suite, on which its best weights were picked
    trained_on: str
    backbone: str
    parameters: int
    multiply_adds: int
    seed: int
    start: str  # last part of the path of its starting weights, or "scratch"
    varied: dict[str, str]  # what else the sweep varies: field -> value
    tied: dict[str, str]  # what it varies with the start: each start has one value
    diverged_at: int  # step, -1 if it was trained to the end
    rgn: float  # relative gradient norm, its own or, see `folders.gradients`; NaN: not measured


class Part(NamedTuple):
    """What a score is of: a suite, a slice of it, or a corruption of it at a severity 1 to 5."""

    suite: str
    slice: str = ""
    corruption: str = ""
    severity: int = 0


class Tables(NamedTuple):
    """A run, a sweep or a study."""

    folder: Path
    task: str
    score: str  # the column that is the task's own score,
    title: str  # and what figures call it
    configs: dict[str, dict[str, Any]]  # run -> config; that of a run or a sweep is called ""
    said: dict[str, list[str]]  # run -> lines of environment.txt
    members: tuple[Member, ...]
    suites: tuple[str, ...]  # uncorrupted ones
    corrupted: tuple[str, ...]
    scores: dict[str, dict[Part, dict[str, float]]]  # of each member, by its key
    resampled: dict[str, dict[str, np.ndarray]]  # member -> "suite" or "suite/slice" -> f32 [B]
    curves: dict[str, dict[str, np.ndarray]]  # member -> "loss", "score" -> f64 [points, 2]

    def of(self, member: Member, part: Part, column: str = "") -> float:
        """A score, by default the task's own one; NaN where there is none."""
        return self.scores[member.key].get(part, {}).get(column or self.score, math.nan)

    def shifted(self, member: Member) -> tuple[str, ...]:
        """The uncorrupted suites that are not the member's own domain."""
        return tuple(name for name in self.suites if name != member.home)

    def inside(self, member: Member, suite: str) -> Part:
        """What a member's score in a suite is to be compared with: its own domain, or the slice of
        it that has only the suite's classes, where the suite has fewer.
        """
        theirs = self._classes(member, Part(suite))
        for part in self.scores[member.key]:
            name, _, own = part.slice.partition("=")
            if part.suite == member.home and name == CLASSES and {*own.split("+")} == theirs:
                return part
        return Part(member.home)

    def _classes(self, member: Member, part: Part) -> set[str]:
        """The classes that have objects there, of a detector."""
        row = self.scores[member.key].get(part, {})
        bins = self.configs[member.run].get("score", {}).get("bins", ())
        names = {name.removeprefix(f"{self.score}/") for name in row if not math.isnan(row[name])}
        return {name for name in names if f"{self.score}/{name}" in row and name not in bins}

    def parts(self, suite: str) -> tuple[Part, ...]:
        """All that is scored of a suite, in the order of the file."""
        return tuple(
            dict.fromkeys(part for own in self.scores.values() for part in own if part[0] == suite)
        )

    def columns(self, suite: str) -> tuple[str, ...]:
        """The scores that a suite has."""
        whole = (own.get(Part(suite), {}) for own in self.scores.values())
        return tuple(dict.fromkeys(name for row in whole for name in row))


def read(folder: Path, without: Sequence[str] = ()) -> Tables:
    """All of a folder whose runs were evaluated, without those that are named.

    Raises UserError as `folders.runs_of` does, and for a study of runs of different tasks.
    """
    from tinyjax import tasks

    runs = run_folders.runs_of(folder, without)
    configs = {name: run_folders.config_of(path) for name, path in runs.items()}
    starts = run_folders.names({i for path in runs.values() for i in run_folders.starts(path)})
    kinds = {config["task"] for config in configs.values()}
    if len(kinds) > 1:
        raise UserError(f"{folder}: runs of several tasks ({', '.join(sorted(kinds))}); give one")
    (task,) = kinds
    _refuse_unlike(folder, configs)
    score, title = next(iter(tasks.module(task).SCORES.items()))
    suites = {
        name: "corrupt" in own
        for config in configs.values()
        for name, own in config["data"]["suites"].items()
    }
    members: list[Member] = []
    scores, resampled, curves, said = {}, {}, {}, {}
    gradients = run_folders.gradients(folder)
    for run, path in runs.items():
        own = _members(run, path, configs[run], starts, gradients)
        keys = {member.id: member.key for member in own}
        members += own
        scores.update(_scores(path / "evaluations" / f"{run_folders.WEIGHTS}.csv", keys))
        resampled.update(_resampled(path / "evaluations" / f"{run_folders.WEIGHTS}.npz", keys))
        curves.update(_curves(path, keys, configs[run]["monitor"], score))
        environment = path / "environment.txt"
        said[run] = environment.read_text().splitlines() if environment.exists() else []
        asked = json.loads((path / "evaluations" / f"{run_folders.WEIGHTS}.json").read_text())
        said[run].append(f"{EVALUATED}{asked['command']}")
    there = {part.suite for own in scores.values() for part in own}  # that were evaluated
    homes = [config["monitor"] for config in configs.values()]
    suites = {name: suites[name] for name in dict.fromkeys([*homes, *suites]) if name in there}
    return Tables(
        folder,
        task,
        score,
        title,
        configs,
        said,
        tuple(members),
        tuple(name for name, corrupt in suites.items() if not corrupt),
        tuple(name for name, corrupt in suites.items() if corrupt),
        scores,
        resampled,
        curves,
    )


def _refuse_unlike(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UserError if runs of a study call different sets by one name."""
    known: dict[str, tuple[str, Any]] = {}
    for run, config in configs.items():
        data = config["data"]
        for name, own in data["suites"].items():
            whole = {"format": data["format"], **data.get("common", {}), **own}
            whole.pop("classes", None)
            first, other = known.setdefault(name, (run, whole))
            if other != whole:
                raise UserError(
                    f"{folder}: suite {name!r} of {first} and of {run} are different sets, which "
                    "cannot be compared; give them names of their own, see tinyjax.evaluate "
                    "--suites"
                )


def _goes_with_start(field: str, rows: Sequence[Mapping[str, str]]) -> bool:
    """Whether a field is a part of the start: how its weights are taken, and at what rate, if each
    start has one value of its own. Whatever else differs sets members apart.
    """
    if field != "reinit" and not field.startswith("optimizer."):
        return False
    both = {(row.get("init"), row[field]) for row in rows}
    return len(both) == len({init for init, _ in both}) > 1 < len({value for _, value in both})


def _members(
    run: str,
    folder: Path,
    config: Mapping[str, Any],
    starts: Mapping[str, str],
    gradients: Mapping[tuple, float],
) -> list[Member]:
    """A run's members; of one in phases those of the last. starts: see `folders.names`."""
    rows = run_folders.last_phase(read_rows(folder / "members.csv"))
    ends = {row["member"]: row for row in run_folders.last_phase(read_rows(folder / "results.csv"))}
    fields = [name for name in rows[0] if name not in PLAIN and name != "init"]
    tied = [field for field in fields if _goes_with_start(field, rows)]
    fields = [name for name in fields if name not in tied]
    places = [name for name in fields if name.startswith("data.")]
    whole = run_folders.trained_on(config)
    members = []
    for row in rows:
        init = row.get("init") if "init" in row else config.get("init", "")
        end, own = ends.get(row["member"], {}), (row["backbone"], int(row["seed"]))
        members.append(
            Member(
                f"{run}/{row['member']}" if run else row["member"],
                row["member"],
                run,
                config["monitor"],
                ", ".join(row[name] for name in places if row[name])
                or (f"{run}: {whole}" if run else whole),
                row["backbone"],
                int(row["parameters"]),
                int(row["multiply_adds"]),
                int(row["seed"]),
                starts[init] if init else SCRATCH,
                {name: row[name] for name in fields},
                {name: row[name] for name in tied if name != "reinit"},
                int(end.get("diverged_at") or -1),
                _first(
                    run_folders.number(end.get("rgn")),
                    gradients.get((*own, run_folders.place(init or ""))),
                    gradients.get((*own, run_folders.place(init or ""), whole)),
                ),
            )
        )
    return members


def _first(*values: float | None) -> float:
    """The first that is known; NaN if none is."""
    return next((v for v in values if v is not None and not math.isnan(v)), math.nan)


def _scores(file: Path, keys: Mapping[str, str]) -> dict[str, dict[Part, dict[str, float]]]:
    found: dict[str, dict[Part, dict[str, float]]] = {key: {} for key in keys.values()}
    for row in read_rows(file):
        if row["member"] in keys:
            severity = int(run_folders.number(row["severity"])) if row["severity"] else 0
            part = Part(row["suite"], row["slice"], row["corruption"], severity)
            found[keys[row["member"]]][part] = {
                name: run_folders.number(text)
                for name, text in row.items()
                if name not in NAMED and text
            }
    return found


def _resampled(file: Path, keys: Mapping[str, str]) -> dict[str, dict[str, np.ndarray]]:
    try:
        with np.load(file) as arrays:
            members, parts, values = (arrays[name] for name in ("members", "parts", "replicates"))
    except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
        message = f"{file}: broken ({error}); remove it, and what it tells is evaluated anew"
        raise UserError(message) from error
    return {
        keys[id]: dict(zip(parts.tolist(), own, strict=True))
        for id, own in zip(members.tolist(), values, strict=True)
        if id in keys
    }


def _curves(
    folder: Path, keys: Mapping[str, str], home: str, score: str
) -> dict[str, dict[str, np.ndarray]]:
    """The training loss and the score in the own domain over the steps; of phases the last's."""
    files = [folder / "metrics.csv", *sorted(folder.glob("phase[0-9]*/metrics.csv"))]
    wanted = {("train", "loss"): "loss", (home, score): "score"}
    found: dict[str, dict[str, list[tuple[float, float]]]] = {key: {} for key in keys.values()}
    there = [file for file in files if file.exists()][-1:]
    for row in read_rows(there[0]) if there else []:
        name = wanted.get((row["split"], row["metric"]))
        if name and row["member"] in keys:
            point = (float(row["step"]), run_folders.number(row["value"]))
            found[keys[row["member"]]].setdefault(name, []).append(point)
    return {
        key: {name: np.array(sorted(points)) for name, points in own.items()}
        for key, own in found.items()
    }
