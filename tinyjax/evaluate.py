"""Evaluate: score the weights of a finished run, or of all members of a sweep, on its suites.

    python -m tinyjax.evaluate --workdir runs/hit_uav [--weights best] [--suite shift]

A detector gets AP (IoU 0.50:0.95), AP50 and AP75, per class and per object size (the side of a
square of equal area, in file pixels); a classifier gets mean class accuracy, top-1 and top-5. Every
suite is scored as a whole and by slice (config.data.slices); suites with "corrupt" are scored under
every corruption, see docs/robustness.md. The command writes

    <workdir>/evaluations/<weights>.csv    scores
    <workdir>/evaluations/<weights>.npz    the main score on resampled images
    <workdir>/evaluations/<weights>/       what `tinyjax.report` shows; figures of a single run

Fields of the config may be overridden, such as --config.nms.iou_threshold=0.6.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from tinyjax import config as configs
from tinyjax.config.parsing import PREFIX
from tinyjax.errors import UserError, exit_code, shorten, suggest
from tinyjax.run.csv_files import write_rows
from tinyjax.run.files import atomic
from tinyjax.run.logs import log, start_log
from tinyjax.run.progress import progress_bar
from tinyjax.run.run_folder import command_line
from tinyjax.run.text import text_table, value_range

MAX_GROUP = 32  # members that predict together: boxes of hundreds would fill the memory
FLAGS = {
    "--weights": {
        "choices": ("last", "best"),
        "default": "last",
        "help": "which averaged weights: the last, or those with the best score",
    },
    "--suite": {
        "action": "append",
        "metavar": "NAME",
        "help": "score only this suite; may be given several times",
    },
    "--suites": {
        "metavar": "FILE[:ARGS]",
        "help": "use suites, slices and monitor of this config instead of the run's",
    },
}


class Group(NamedTuple):
    """Members that predict together."""

    ids: list[str]
    config: Any
    metadata: dict[str, Any]  # of the first member, see `networks.weights_metadata`
    predict: Callable[..., list[dict[str, Any]]]  # (inputs) -> predictions of each member


class Result(NamedTuple):
    """A group on a suite."""

    group: Group
    suite: str
    split: Any
    predictions: list[dict[str, Any]]  # of each member
    examined: list[Any]  # of each member, see `metrics.slices.Examined`


def main(argv: list[str] | None = None) -> int:
    options = configs.parse_options("evaluate", __doc__, argv, FLAGS, needs=("workdir",))
    folder, which = Path(options.workdir), options.weights
    for text in options.overrides:
        if text.startswith((f"{PREFIX}model.", f"{PREFIX}task")):
            raise UserError(f"{text}: the weights belong to the trained network; leave it out")

    from tinyjax.run import runtime
    from tinyjax.tasks import get_task

    runtime.tune_allocator()
    runtime.enable_compile_cache()
    start_log()
    groups = _groups(folder, which, options.overrides, options.suites)
    config = groups[0].config
    task = get_task(config.task)
    clean, corrupted = _split_suites(config.data.suites, options.suite)
    passes = len(groups) * (len(clean) + sum(map(len, corrupted.values())))
    bar = progress_bar(total=passes, unit="pass")
    path, rows, replicates, results = folder / "evaluations" / which, [], {}, {}
    for result in _examine(groups, task, clean, bar):
        for id, examined in zip(result.group.ids, result.examined, strict=True):
            for name, scores in examined.scores.items():
                rows.append(_row(id, result.suite, name, scores=scores))
                replicates[id, _label(result.suite, name)] = examined.replicates[name]
            if examined.detections:
                _save(path / id / f"{result.suite}.npz", examined.detections)
        results[result.suite] = result
    for name, pairs in corrupted.items():
        for pair in pairs:
            for id, scores in _score_corrupted(groups, task, name, pair, bar):
                rows.append(_row(id, name, "", pair, scores))
    bar.close()
    _write(path, rows, replicates, task, config)
    if len(groups) == 1 and len(groups[0].ids) == 1:
        _report_single_run(groups[0], task, results, path)
    log.info(_summary(rows, task))
    figures = f", figures and images to {path}" if path.exists() else ""
    log.info(f"scores are written to {path.with_suffix('.csv')}{figures}")
    return 0


# ---- members


def _groups(folder: Path, which: str, overrides: Sequence[str], suites: str | None) -> list[Group]:
    from tinyjax.population.networks import load_stored
    from tinyjax.population.plan import populations_of_run
    from tinyjax.population.stack import make_predictor
    from tinyjax.tasks import get_task

    groups = []
    for population in populations_of_run(folder):
        for start in range(0, len(population), MAX_GROUP):
            ids = [*population[start : start + MAX_GROUP]]
            networks = load_stored(folder, ids, which, overrides)
            config, metadata = networks[0].config, networks[0].metadata
            predict = make_predictor(networks, get_task(config.task))
            config = _with_suites(config, suites) if suites else config
            groups.append(Group(ids, config, metadata, predict))
    return groups


def _with_suites(config: Any, spec: str) -> Any:
    """The config with suites, slices and `monitor` of the config file `spec`."""
    from tinyjax.training.validation import check

    other, merged = configs.load(spec), config.to_dict()
    run_data, other_data = merged["data"], other.data.to_dict()
    common = {"format": other_data["format"], **other_data["common"]}
    common.pop("classes", None)  # suites have the classes of the training set
    for name, arguments in other_data["suites"].items():
        if not isinstance(arguments, Mapping):
            raise UserError(f"--suites {spec}: data.suites.{name} = {arguments!r}: give a dict")
    merged["data"] = {
        **run_data,
        "common": {},
        "train": {**run_data["common"], **run_data["train"]},
        "suites": {name: {**common, **args} for name, args in other_data["suites"].items()},
        "slices": other_data.get("slices", {}),
    }
    config = configs.from_json(json.dumps({**merged, "monitor": other.monitor}))
    check(config)
    return config


# ---- suites

Pair = tuple[str, int] | None  # corruption and severity; None: the images as they are


def _split_suites(
    suites: Any, selected: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, list[Pair]]]:
    """The selected suites without corruptions, and the corruptions of the others, each list
    beginning with None, the images as they are, for comparison.
    """
    from tinyjax.data.corruptions.corrupt import suite_corruptions

    names = selected or list(suites)
    for name in names:
        if name not in suites:
            raise UserError(f"--suite {name}: {suggest(name, suites)}")
    clean = tuple(name for name in names if "corrupt" not in suites[name])
    corrupted = {n: [None, *suite_corruptions(n, suites[n])] for n in names if n not in clean}
    return clean, corrupted


def _examine(
    groups: Sequence[Group], task: Any, names: tuple[str, ...], bar: Any
) -> Iterator[Result]:
    from tinyjax.metrics.slices import resample_counts

    for group in groups:
        config = group.config
        splits = _load_suites(*_suite_key(group), names)
        for name, split in splits.items():
            bar.set_description_str(name)
            slices = task.slices(split, config.data.get("slices", {})) if task.slices else {}
            if name == config.monitor:
                present = {n: task.classes_present(s) for n, s in splits.items()}
                slices |= _class_slices(present, name, split)
            predictions = group.predict(split.inputs)
            counts = resample_counts(len(split.names))
            examined = task.examine(predictions, split, config, slices, counts)
            yield Result(group, name, split, predictions, examined)
            bar.update()


def _score_corrupted(
    groups: Sequence[Group], task: Any, name: str, pair: Pair, bar: Any
) -> Iterator[tuple[str, dict[str, float]]]:
    for group in groups:
        bar.set_description_str(" ".join(map(str, (name, *(pair or ())))))
        split = _load_corrupted(*_suite_key(group), name, pair)
        scores = task.score(group.predict(split.inputs), split, group.config)
        yield from zip(group.ids, scores, strict=True)
        bar.update()


Shapes = tuple[tuple[str, tuple[int, ...]], ...]


def _suite_key(group: Group) -> tuple[str, str, tuple[str, ...], Shapes]:
    """What a group's suites depend on: task, data as JSON, classes, input shapes."""
    inputs = {name: tuple(shape) for name, shape in group.metadata["inputs"].items()}
    classes = tuple(group.metadata["classes"])
    return group.config.task, configs.to_json(group.config.data), classes, (*inputs.items(),)


@lru_cache(maxsize=1)  # the groups of a sweep mostly share their suites
def _load_suites(
    task: str, data_json: str, classes: tuple[str, ...], inputs: Shapes, names: tuple[str, ...]
) -> dict[str, Any]:
    from tinyjax.tasks import get_task

    functions, data = get_task(task), configs.from_json(data_json)
    splits = {name: _load_suite(task, data, name, classes, inputs) for name in names}
    if functions.class_mismatch and (lines := functions.class_mismatch(splits)):
        log.info("\n".join(lines))
    fields, known = data.get("slices", {}), set()
    if functions.slices:
        sliced = (functions.slices(split, fields) for split in splits.values())
        known = {name.partition("=")[0] for slices in sliced for name in slices}
    for field in {*fields} - known if splits else ():
        log.warning(f"data.slices.{field}: no image of {shorten(splits)} has this field")
    return splits


@lru_cache(maxsize=1)
def _load_corrupted(
    task: str, data_json: str, classes: tuple[str, ...], inputs: Shapes, name: str, pair: Pair
) -> Any:
    return _load_suite(task, configs.from_json(data_json), name, classes, inputs, pair)


def _load_suite(
    task: str,
    data: Any,
    name: str,
    classes: tuple[str, ...],
    inputs: Shapes,
    pair: Pair = None,
) -> Any:
    from tinyjax.tasks import get_task

    split = get_task(task).load(data, data.suites[name], classes, pair)
    for key, shape in inputs:
        channels, expected = split.inputs[key].shape[-1], shape[-1]
        if channels != expected:
            raise UserError(
                f"data.suites.{name}: images with {channels} channels, but the network reads "
                f"{expected}; give channels = {expected}"
            )
    return split


def _class_slices(present: Mapping[str, tuple[str, ...]], name: str, split: Any) -> dict[str, Any]:
    """Slices of suite `name` by class sets, for comparison with suites that have fewer classes."""
    from tinyjax.metrics.slices import class_slice

    subsets = {classes for classes in present.values() if classes and {*classes} < {*present[name]}}
    return {
        f"classes={'+'.join(classes)}": class_slice(len(split.names), classes)
        for classes in sorted(subsets)
    }


# ---- output


def _row(id: str, suite: str, slice: str, pair: Pair = None, scores: Any = None) -> dict[str, Any]:
    corruption, severity = pair or ("", "")
    names = {"member": id, "suite": suite, "slice": slice}
    return {**names, "corruption": corruption, "severity": severity, **scores}


def _label(suite: str, slice: str) -> str:
    return f"{suite}/{slice}" if slice else suite


def _write(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    replicates: Mapping[tuple[str, str], Any],
    task: Any,
    config: Any,
) -> None:
    columns = dict.fromkeys(column for row in rows for column in row)
    write_rows(path.with_suffix(".csv"), [dict(row) for row in rows], columns)
    with atomic(path.with_suffix(".json")) as file:
        request = {"command": command_line(), "config": config.to_dict()}
        file.write_text(json.dumps(request, indent=2))
    if replicates:
        _save(path.with_suffix(".npz"), _stack(replicates, task.monitor))


def _stack(replicates: Mapping[tuple[str, str], Any], score: str) -> dict[str, Any]:
    """Scores on resampled images as arrays: float32 [member, suite or slice, resample], NaN where
    a member was not evaluated.
    """
    import numpy as np

    members, labels = (list(dict.fromkeys(key[i] for key in replicates)) for i in (0, 1))
    count = len(next(iter(replicates.values())))
    table = np.full((len(members), len(labels), count), np.nan, np.float32)
    for (member, label), values in replicates.items():
        table[members.index(member), labels.index(label)] = values
    return {"members": members, "parts": labels, "score": score, "replicates": table}


def _save(file: Path, arrays: Mapping[str, Any]) -> None:
    import numpy as np

    with atomic(file) as path, path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def _report_single_run(group: Group, task: Any, results: Mapping[str, Result], path: Path) -> None:
    """Write tables, figures and the worst images of a single run."""
    if not results:
        return
    suites = {name: result.split for name, result in results.items()}
    predictions: dict[str, Any] = {n: result.predictions[0] for n, result in results.items()}
    if task.to_file_pixels:
        predictions = {n: task.to_file_pixels(p, suites[n]) for n, p in predictions.items()}
    scores = {name: result.examined[0].scores[""] for name, result in results.items()}
    task.write_report(path, suites, predictions, scores, group.metadata.get("training", {}))
    log.info(f"step {group.metadata['step']}\n{task.score_table(scores)}")


def _summary(rows: Sequence[Mapping[str, Any]], task: Any) -> str:
    """The main score of every suite and slice, of a sweep from the lowest to the highest member;
    for a corruption, the mean over severities.
    """
    import numpy as np

    scores: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        label = _label(row["suite"], row["slice"] or row["corruption"])
        scores.setdefault(label, {}).setdefault(row["member"], []).append(row[task.monitor])
    title = task.metrics[task.monitor]
    return text_table(
        [
            {"": label, title: value_range([float(np.mean(v)) for v in members.values()])}
            for label, members in scores.items()
        ]
    )


if __name__ == "__main__":
    sys.exit(exit_code(main))
