"""Evaluate: score the weights of a finished run, or of all members of a sweep, on its suites.

    python -m tinyjax.evaluate --workdir runs/hit_uav [--weights best] [--suite shift]
    python -m tinyjax.evaluate --model mine.onnx [--suites configs/other.py]

--model scores a file of tinyjax.export as its runtime computes it. The suites are those of the
run's config, which the file contains.

A detector gets AP (IoU 0.50:0.95), AP50 and AP75, per class and per object size (the side of a
square of equal area, in file pixels); a classifier gets mean class accuracy, top-1 and top-5; a
recognition network gets R1 to R20, mAP and mINP, by protocol, and its modality gap, on suites
without identities that it was trained on. A suite is scored on all images and by slice
(config.data.slices); a suite with the option "corrupt" is not sliced, but scored under every
corruption, see docs/robustness.md. The command writes

    <workdir>/evaluations/<weights>.csv    scores
    <workdir>/evaluations/<weights>.npz    the main score on resampled images
    <workdir>/evaluations/<weights>-trials.csv    means over the trials of a sweep over trials
    <workdir>/evaluations/<weights>/       input of `tinyjax.report`; figures of a single run

and for mine.onnx the same in mine-evaluations/onnx.csv, .npz and onnx/, next to the file. Fields of
the config may be overridden, such as --config.nms.iou_threshold=0.6. If the folder cannot be
written, the scores are only printed, with a warning; the exit code is 0.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tinyjax import config as configs
from tinyjax.config.parsing import PREFIX
from tinyjax.errors import UserError, run_command
from tinyjax.run.csv_files import read_rows, write_rows
from tinyjax.run.files import atomic
from tinyjax.run.logs import log, start_log
from tinyjax.run.progress import progress_bar
from tinyjax.run.run_folder import command_line
from tinyjax.run.text import text_table, value_range

if TYPE_CHECKING:
    from tinyjax.evaluation.groups import Group
    from tinyjax.evaluation.suites import Corruption

FLAGS = {
    "--weights": {
        "choices": ("last", "best"),
        "default": "last",
        "help": "averaged weights: the last ones, or the ones with the best score",
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


class Result(NamedTuple):
    """A group on a suite."""

    group: "Group"
    suite: str
    split: Any
    predictions: list[dict[str, Any]]  # of each member
    member_results: list[Any]  # of each member, see `metrics.slices.SuiteResult`


def main(argv: list[str] | None = None) -> int:
    options = configs.parse_options(
        "evaluate", __doc__, argv, FLAGS, required=(), optional=("workdir", "model")
    )
    _check_options(options)

    from tinyjax.evaluation import groups as members
    from tinyjax.evaluation.suites import select_suites
    from tinyjax.run import runtime
    from tinyjax.tasks import get_task

    runtime.tune_allocator()
    start_log()
    runtime.enable_compile_cache()
    changes = options.overrides, options.suites
    if options.model:
        group, path = members.load_file(options.model, *changes)
        groups = [group]
    else:
        groups = members.load_run(options.workdir, options.weights, *changes)
        path = options.workdir / "evaluations" / options.weights
    config = groups[0].config
    task = get_task(config.task)
    clean, corrupted = select_suites(config.data.suites, options.suite)
    passes = len(groups) * (len(clean) + sum(map(len, corrupted.values())))
    bar = progress_bar(total=passes, unit="evaluation")
    rows, replicates, results = [], {}, {}
    failures: list[str] = []
    for result in _evaluate_clean(groups, task, clean, bar):
        for id, member in zip(result.group.ids, result.member_results, strict=True):
            for slice_name, scores in member.scores.items():
                rows.append(_row(id, result.suite, slice_name, scores=scores))
            for slice_name, values in member.replicates.items():
                replicates[id, _label(result.suite, slice_name)] = values
            if member.examples:
                with _collect_failure(failures):
                    _save(path / id / f"{result.suite}.npz", member.examples)
        results[result.suite] = result
    for name, corruptions in corrupted.items():
        for corruption in corruptions:
            for id, scores in _score_corrupted(groups, task, name, corruption, bar):
                rows.append(_row(id, name, "", corruption, scores))
    bar.close()
    with _collect_failure(failures):
        _write_scores(path, rows, replicates, task, config)
    if len(groups) == 1 and len(groups[0].ids) == 1:
        _report_single_run(groups[0], task, results, path, failures)
    log.info(_summary_table(rows, task, config))
    if options.workdir and (options.workdir / "members.csv").exists():
        with _collect_failure(failures):
            _report_trials(rows, options.workdir / "members.csv", path)
    if failures:
        log.warning(f"the scores are not saved, or not all of them: {failures[0]}")
        return 0
    figures = f", figures and images to {path}" if path.exists() else ""
    log.info(f"scores are written to {path.with_suffix('.csv')}{figures}")
    return 0


def _check_options(options: Any) -> None:
    """Raise UserError for options that do not go together."""
    configs.given_source(options)
    if options.model and options.weights != "last":
        raise UserError(
            f"--weights {options.weights}: {options.model} has one set of weights; leave it out"
        )
    for text in options.overrides:
        if text.startswith((f"{PREFIX}model.", f"{PREFIX}task")):
            raise UserError(f"{text}: the weights belong to the trained network; leave it out")


def _evaluate_clean(
    groups: Sequence["Group"], task: Any, names: tuple[str, ...], bar: Any
) -> Iterator[Result]:
    from tinyjax.evaluation.suites import class_slices, load_clean
    from tinyjax.metrics.slices import resample_counts

    for group in groups:
        config = group.config
        splits = load_clean(group, names)
        for name, split in splits.items():
            bar.set_description_str(name)
            slices = task.slices(split, config.data.get("slices", {})) if task.slices else {}
            if name == config.monitor:
                classes_present = {n: task.classes_present(s) for n, s in splits.items()}
                slices |= class_slices(classes_present, name, split)
            predictions = group.predict(split.inputs)
            counts = resample_counts(len(split.names))
            member_results = task.evaluate_slices(predictions, split, config, slices, counts)
            yield Result(group, name, split, predictions, member_results)
            bar.update()


def _score_corrupted(
    groups: Sequence["Group"], task: Any, name: str, corruption: "Corruption", bar: Any
) -> Iterator[tuple[str, dict[str, float]]]:
    from tinyjax.evaluation.suites import load_corrupted

    for group in groups:
        bar.set_description_str(" ".join(map(str, (name, *(corruption or ())))))
        split = load_corrupted(group, name, corruption)
        scores = task.score(group.predict(split.inputs), split, group.config)
        yield from zip(group.ids, scores, strict=True)
        bar.update()


# ---- output


def _row(
    id: str, suite: str, slice: str, corruption: "Corruption" = None, scores: Any = None
) -> dict[str, Any]:
    name, severity = corruption or ("", "")
    names = {"member": id, "suite": suite, "slice": slice}
    return {**names, "corruption": name, "severity": severity, **scores}


def _label(suite: str, slice: str) -> str:
    return f"{suite}/{slice}" if slice else suite


def _write_scores(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    replicates: Mapping[tuple[str, str], Any],
    task: Any,
    config: Any,
) -> None:
    columns = dict.fromkeys(column for row in rows for column in row)
    write_rows(path.with_suffix(".csv"), [dict(row) for row in rows], columns)
    with atomic(path.with_suffix(".json")) as file:
        record = {"command": command_line(), "config": config.to_dict()}
        file.write_text(json.dumps(record, indent=2), encoding="utf-8")
    if replicates:
        _save(path.with_suffix(".npz"), _stack_replicates(replicates, task.monitor))


def _stack_replicates(replicates: Mapping[tuple[str, str], Any], metric: str) -> dict[str, Any]:
    """Scores on resampled images as arrays: float32 [member, suite or slice, resample], NaN where
    a member was not evaluated.
    """
    import numpy as np

    members, labels = (list(dict.fromkeys(key[i] for key in replicates)) for i in (0, 1))
    count = len(next(iter(replicates.values())))
    table = np.full((len(members), len(labels), count), np.nan, np.float32)
    for (member, label), values in replicates.items():
        table[members.index(member), labels.index(label)] = values
    return {"members": members, "parts": labels, "score": metric, "replicates": table}


def _save(file: Path, arrays: Mapping[str, Any]) -> None:
    import numpy as np

    with atomic(file) as path, path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


@contextmanager
def _collect_failure(failures: list[str]) -> Iterator[None]:
    """Append an operating system error of this block to `failures` instead of raising it."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        failures.append(f"{error.filename}: {error.strerror}")


def _report_single_run(
    group: "Group", task: Any, results: Mapping[str, Result], path: Path, failures: list[str]
) -> None:
    """Log the scores of a single run, and write tables, figures and the worst images."""
    if not results:
        return
    suites = {name: result.split for name, result in results.items()}
    predictions: dict[str, Any] = {n: result.predictions[0] for n, result in results.items()}
    if task.to_file_pixels:
        predictions = {n: task.to_file_pixels(p, suites[n]) for n, p in predictions.items()}
    scores = {name: result.member_results[0].scores[""] for name, result in results.items()}
    title = f"step {group.metadata['step']}" if "step" in group.metadata else group.ids[0]
    log.info(f"{title}\n{task.score_table(scores)}")
    with _collect_failure(failures):
        counts = group.metadata.get("training", {})
        task.write_report(path, suites, predictions, scores, counts, group.config)


def _report_trials(rows: Sequence[Mapping[str, Any]], members: Path, path: Path) -> None:
    """Log and write means over the trials of a sweep over trials. members: its members.csv."""
    from tinyjax.reporting import trial_means

    if means := trial_means.mean_rows(rows, read_rows(members)):
        log.info(f"means over trials:\n{trial_means.table(means)}")
        write_rows(path.with_name(f"{path.name}-trials.csv"), means, means[0])


def _summary_table(rows: Sequence[Mapping[str, Any]], task: Any, config: Any) -> str:
    """A table of the main score on every suite and slice: for a sweep, the range over its members;
    for a corruption, the mean over severities.
    """
    import numpy as np

    scores: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        label = _label(row["suite"], row["slice"] or row["corruption"])
        scores.setdefault(label, {}).setdefault(row["member"], []).append(row[task.monitor])
    title = task.metrics(config)[task.monitor]
    return text_table(
        [
            {"": label, title: value_range([float(np.mean(v)) for v in members.values()])}
            for label, members in scores.items()
        ]
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
