"""The contents of the folder of an evaluated run, sweep or study, as one tuple.

A study is a folder whose subfolders are runs or sweeps; it has the members of all of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np

from tinyjax.core import Task
from tinyjax.errors import UserError
from tinyjax.metrics.slices import CLASS_SLICE_PREFIX
from tinyjax.reporting import run_folders
from tinyjax.run.csv_files import read_rows
from tinyjax.run.files import read_json

FIXED_COLUMNS = (
    "member", "phase", "seed", "backbone", "parameters", "backbone_parameters",
    "trained_parameters", "multiply_adds",
)  # fmt: skip
KEY_COLUMNS = ("suite", "slice", "corruption", "severity", "member")  # all others are scores
# Columns of the modality gap -> labels, see `metrics.modality_gap`.
GAP_COLUMNS = {
    "mAP visible": "within visible",
    "mAP infrared": "within infrared",
    "mAP visible to infrared": "visible to infrared",
    "mAP infrared to visible": "infrared to visible",
}
PROBE_COLUMN = "probe accuracy"
SCRATCH = "scratch"
EVALUATION_PREFIX = "evaluated: "  # of a line that follows those of environment.txt


class Member(NamedTuple):
    """One trained set of weights."""

    key: str  # unique name in the report: its id, in a study "run/id"
    id: str
    run: str  # subfolder of a study, else ""
    in_domain: str  # the suite that selected its best weights
    trained_on: str  # description of its training set
    backbone: str
    parameters: int
    trained_parameters: int
    multiply_adds: int
    seed: int
    start: str  # end of the path of its starting weights, or "scratch"
    varied: dict[str, str]  # other fields that the sweep varies -> value
    start_fields: dict[str, str]  # fields that its start determines -> value
    diverged_at: int  # step, -1 if it was trained to the end
    rgn: float  # relative gradient norm, see `run_folders.read_gradient_norms`; NaN: not measured

    @property
    def trained_share(self) -> float:
        """The fraction of the parameters that are trained, not frozen."""
        return self.trained_parameters / self.parameters


class Condition(NamedTuple):
    """What a score was measured on: a suite, a slice of it, or a corruption at severity 1 to 5."""

    suite: str
    slice: str = ""
    corruption: str = ""
    severity: int = 0


class Tables(NamedTuple):
    """A run, a sweep or a study."""

    folder: Path
    task: Task
    configs: dict[str, dict[str, Any]]  # run -> config; a single run or sweep is called ""
    environment: dict[str, list[str]]  # run -> lines of environment.txt
    members: tuple[Member, ...]
    suites: tuple[str, ...]  # uncorrupted ones
    corrupted_suites: tuple[str, ...]
    scores: dict[str, dict[Condition, dict[str, float]]]  # member key -> condition -> column
    resampled: dict[str, dict[str, np.ndarray]]  # member key -> "suite" or "suite/slice" -> f32 [B]
    curves: dict[str, dict[str, np.ndarray]]  # member key -> "loss", "score" -> f64 [points, 2]

    @property
    def metric(self) -> str:
        """Column of the task's main score."""
        return self.task.monitor

    @property
    def metric_label(self) -> str:
        return self.metrics[self.task.monitor]

    @property
    def metrics(self) -> Mapping[str, str]:
        """Column -> label of the main scores, which are the same in all runs."""
        return self.task.metrics(next(iter(self.configs.values())))

    def score(self, member: Member, condition: Condition, column: str = "") -> float:
        """A score, by default the task's main score; NaN if unknown.

        The main score of a slice with a single class is also known if only the suite is evaluated.
        """
        rows, column = self.scores[member.key], column or self.metric
        if condition not in rows and condition.slice.startswith(CLASS_SLICE_PREFIX):
            name = condition.slice.removeprefix(CLASS_SLICE_PREFIX)
            condition, column = Condition(condition.suite), f"{column}/{name}"
        return rows.get(condition, {}).get(column, math.nan)

    def size(self, member: Member, condition: Condition) -> float:
        """Number of scored objects, or of images for a classifier; NaN if unknown."""
        row = self.scores[member.key].get(condition, {})
        return row.get("boxes", row.get("images", math.nan))

    def shifted_suites(self, member: Member) -> tuple[str, ...]:
        """The uncorrupted suites other than the member's in-domain suite."""
        return tuple(name for name in self.suites if name != member.in_domain)

    def reference(self, member: Member, suite: str) -> Condition:
        """The in-domain condition that a member's score on a suite is compared with.

        It is the in-domain suite, or its slice with the suite's classes if the suite has fewer.
        """
        classes = self._scored_classes(member, Condition(suite))
        for condition in self.scores[member.key]:
            _, is_class_slice, names = condition.slice.partition(CLASS_SLICE_PREFIX)
            if condition.suite != member.in_domain or not is_class_slice:
                continue
            if {*names.split("+")} == classes:
                return condition
        return Condition(member.in_domain)

    def _scored_classes(self, member: Member, condition: Condition) -> set[str]:
        """The classes of a detector that have objects under a condition."""
        row = self.scores[member.key].get(condition, {})
        bins = self.configs[member.run].get("score", {}).get("size_bins", ())
        prefix = f"{self.metric}/"
        known = {name for name, value in row.items() if not math.isnan(value)}
        return {n.removeprefix(prefix) for n in known if n.startswith(prefix)} - {*bins}

    def conditions(self, suite: str) -> tuple[Condition, ...]:
        """All conditions of a suite, in the order of the file."""
        known = (condition for rows in self.scores.values() for condition in rows)
        return tuple(dict.fromkeys(condition for condition in known if condition.suite == suite))

    def columns(self, suite: str) -> tuple[str, ...]:
        """The names of a suite's scores."""
        rows = (scores.get(Condition(suite), {}) for scores in self.scores.values())
        return tuple(dict.fromkeys(name for row in rows for name in row))


def read(folder: Path, get_task: Callable[[str], Task], exclude: Sequence[str] = ()) -> Tables:
    """Read a folder of evaluated runs, without the runs named in `exclude`.

    get_task: name -> task.

    Raises UserError as `run_folders.list_runs` does, and for a study with several tasks, or with
    scores or suites that cannot be compared.
    """
    runs = run_folders.list_runs(folder, exclude)
    configs = {name: run_folders.read_config(path) for name, path in runs.items()}
    inits = {init for path in runs.values() for init in run_folders.starting_weights(path)}
    starts = run_folders.short_names(inits)
    names = {config["task"] for config in configs.values()}
    if len(names) > 1:
        raise UserError(
            f"{folder}: runs of several tasks ({', '.join(sorted(names))}); give a folder with one "
            "task"
        )
    task = get_task(*names)
    _check_same_suites(folder, configs)
    _check_same_metrics(folder, configs, task)
    members: list[Member] = []
    scores, resampled, curves, environment = {}, {}, {}, {}
    norms = run_folders.read_gradient_norms(folder)
    for run, path in runs.items():
        run_members = _read_members(run, path, configs[run], starts, norms)
        keys = {member.id: member.key for member in run_members}
        members += run_members
        evaluation = path / "evaluations" / f"{run_folders.WEIGHTS}.csv"
        scores.update(_read_scores(evaluation, keys))
        resampled.update(_read_resampled(evaluation.with_suffix(".npz"), keys))
        curves.update(_read_curves(path, keys, configs[run], task))
        file = path / "environment.txt"
        environment[run] = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        evaluated = read_json(evaluation.with_suffix(".json"))
        environment[run].append(f"{EVALUATION_PREFIX}{evaluated['command']}")
    suites = _ordered_suites(configs, {c.suite for rows in scores.values() for c in rows})
    return Tables(
        folder,
        task,
        configs,
        environment,
        tuple(members),
        tuple(name for name, corrupted in suites.items() if not corrupted),
        tuple(name for name, corrupted in suites.items() if corrupted),
        scores,
        resampled,
        curves,
    )


def _ordered_suites(
    configs: Mapping[str, Mapping[str, Any]], evaluated: set[str]
) -> dict[str, bool]:
    """Evaluated suites -> whether they are corrupted, the in-domain suites first."""
    corrupted = {
        name: "corrupt" in suite_config
        for config in configs.values()
        for name, suite_config in config["data"]["suites"].items()
    }
    in_domain = [config["monitor"] for config in configs.values()]
    order = dict.fromkeys([*in_domain, *corrupted])
    return {name: corrupted[name] for name in order if name in evaluated}


def _check_same_suites(folder: Path, configs: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise UserError if runs of a study use one suite name for different sets."""
    known: dict[str, tuple[str, Any]] = {}
    for run, config in configs.items():
        data = config["data"]
        for name, suite_config in data["suites"].items():
            merged = {"format": data["format"], **data.get("common", {}), **suite_config}
            merged.pop("classes", None)
            first_run, first = known.setdefault(name, (run, merged))
            if first != merged:
                raise UserError(
                    f"{folder}: suite {name!r} is a different set in {first_run} and {run}, so "
                    "scores cannot be compared; evaluate them with suites of different names, see "
                    "tinyjax.evaluate --suites"
                )


def _check_same_metrics(folder: Path, configs: Mapping[str, Mapping[str, Any]], task: Task) -> None:
    """Raise UserError if runs of a study were scored by different protocols."""
    labels = {run: task.metrics(config)[task.monitor] for run, config in configs.items()}
    if len({*labels.values()}) > 1:
        text = ", ".join(f"{run}: {label}" for run, label in labels.items())
        raise UserError(
            f"{folder}: the scores of the runs cannot be compared ({text}); evaluate all of them "
            "with the same --config.score.protocol"
        )


def _depends_on_start(field: str, rows: Sequence[Mapping[str, str]]) -> bool:
    """Return whether the start determines a field, such as the learning rate of fine-tuning.

    True for `reinit` and fields of `optimizer` that have one value for each start. All other fields
    distinguish members.
    """
    if field != "reinit" and not field.startswith("optimizer."):
        return False
    pairs = {(row.get("init"), row[field]) for row in rows}
    num_starts = len({init for init, _ in pairs})
    num_values = len({value for _, value in pairs})
    return len(pairs) == num_starts > 1 and num_values > 1


def _read_members(
    run: str,
    folder: Path,
    config: Mapping[str, Any],
    starts: Mapping[str, str],
    norms: Mapping[tuple, float],
) -> list[Member]:
    """A run's members, of its last phase.

    starts: see `run_folders.short_names`. norms: see `run_folders.read_gradient_norms`.
    """
    rows = run_folders.last_phase(read_rows(folder / "members.csv"))
    results = run_folders.last_phase(read_rows(folder / "results.csv"))
    results_of = {row["member"]: row for row in results}
    varied = [name for name in rows[0] if name not in FIXED_COLUMNS and name != "init"]
    start_fields = [field for field in varied if _depends_on_start(field, rows)]
    varied = [field for field in varied if field not in start_fields]
    data_fields = [field for field in varied if field.startswith("data.")]
    training_set = run_folders.describe_training_set(config)
    members = []
    for row in rows:
        init = row.get("init") if "init" in row else config.get("init", "")
        result = results_of.get(row["member"], {})
        start_key = row["backbone"], int(row["seed"]), run_folders.path_key(init or "")
        data_values = ", ".join(row[name] for name in data_fields if row[name])
        members.append(
            Member(
                key=f"{run}/{row['member']}" if run else row["member"],
                id=row["member"],
                run=run,
                in_domain=config["monitor"],
                trained_on=data_values or (f"{run}: {training_set}" if run else training_set),
                backbone=row["backbone"],
                parameters=int(row["parameters"]),
                trained_parameters=int(row["trained_parameters"]),
                multiply_adds=int(row["multiply_adds"]),
                seed=int(row["seed"]),
                start=starts[init] if init else SCRATCH,
                varied={field: row[field] for field in varied},
                start_fields={field: row[field] for field in start_fields if field != "reinit"},
                diverged_at=int(result.get("diverged_at") or -1),
                rgn=_first_known(
                    run_folders.parse_number(result.get("rgn")),
                    norms.get(start_key),
                    norms.get((*start_key, training_set)),
                ),
            )
        )
    return members


def _first_known(*values: float | None) -> float:
    """The first value that is neither None nor NaN, or NaN."""
    return next((v for v in values if v is not None and not math.isnan(v)), math.nan)


def _read_scores(
    file: Path, keys: Mapping[str, str]
) -> dict[str, dict[Condition, dict[str, float]]]:
    scores: dict[str, dict[Condition, dict[str, float]]] = {key: {} for key in keys.values()}
    for row in read_rows(file):
        if row["member"] in keys:
            severity = int(run_folders.parse_number(row["severity"])) if row["severity"] else 0
            condition = Condition(row["suite"], row["slice"], row["corruption"], severity)
            scores[keys[row["member"]]][condition] = {
                name: run_folders.parse_number(text)
                for name, text in row.items()
                if name not in KEY_COLUMNS and text
            }
    return scores


def _read_resampled(file: Path, keys: Mapping[str, str]) -> dict[str, dict[str, np.ndarray]]:
    try:
        with np.load(file) as arrays:
            ids, names, values = (arrays[name] for name in ("members", "parts", "replicates"))
    except (OSError, EOFError, KeyError, ValueError, BadZipFile) as error:
        raise UserError(
            f"{file}: cannot be read ({error}); remove it to evaluate the run again"
        ) from error
    return {
        keys[id]: dict(zip(names.tolist(), replicates, strict=True))
        for id, replicates in zip(ids.tolist(), values, strict=True)
        if id in keys
    }


def _read_curves(
    folder: Path, keys: Mapping[str, str], config: Mapping[str, Any], task: Task
) -> dict[str, dict[str, np.ndarray]]:
    """Training loss and in-domain score over the steps, of the last phase.

    Without the score if the evaluation, which has the config `config`, used another protocol.
    """
    files = [folder / "metrics.csv", *sorted(folder.glob("phase[0-9]*/metrics.csv"))]
    files = [file for file in files if file.exists()]
    names = {("train", "loss"): "loss"}
    if task.metrics(read_json(folder / "config.json")) == task.metrics(config):
        names[config["monitor"], task.monitor] = "score"
    points: dict[str, dict[str, list[tuple[float, float]]]] = {key: {} for key in keys.values()}
    for row in read_rows(files[-1]) if files else []:
        name = names.get((row["split"], row["metric"]))
        if name and row["member"] in keys:
            point = (float(row["step"]), run_folders.parse_number(row["value"]))
            points[keys[row["member"]]].setdefault(name, []).append(point)
    return {
        key: {name: np.array(sorted(curve)) for name, curve in curves.items()}
        for key, curves in points.items()
    }
