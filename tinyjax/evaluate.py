"""Evaluate: the weights of a finished run, or of all members of a sweep, on its suites.

    python -m tinyjax.evaluate --workdir runs/hit_uav [--weights best] [--suite shift]

Of a detector AP (IoU 0.50:0.95), AP50 and AP75, per class and per size of object (the side of a
square of equal area, in pixels of the file); of a classifier the mean accuracy of its classes,
top-1 and top-5. Of every suite, of its slices by config.data.slices, and of suites with "corrupt"
under every corruption: docs/robustness.md. Writes <workdir>/evaluations/<weights>.csv, the main
score on resampled images to <weights>.npz, and to the folder <weights> what `tinyjax.report` shows;
of a single run also figures and the worst images. Fields of the config may be overridden, such as
--config.nms.iou_threshold=0.6.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from tinyjax import config as configs
from tinyjax.errors import UserError, exit_code, shorten, suggest
from tinyjax.run import progress, run_folder
from tinyjax.run.csv_files import write_rows
from tinyjax.run.files import atomic
from tinyjax.run.logs import log, start_log

AT_ONCE = 32  # members that predict together: hundreds of them would fill the memory with boxes
FLAGS = {
    "--weights": {
        "choices": ("last", "best"),
        "default": "last",
        "help": "averaged weights: the last, or the best",
    },
    "--suite": {
        "action": "append",
        "metavar": "NAME",
        "help": "only this suite; may be given several times",
    },
    "--suites": {
        "metavar": "FILE[:ARGS]",
        "help": "suites, slices and monitor of this config instead of the run's own",
    },
}


class Group(NamedTuple):
    """Members that predict together."""

    ids: list[str]
    config: Any
    about: dict[str, Any]  # of the first, see `write_weights`
    score: Callable[..., list[dict[str, float]]]  # ([predictions of each], split)
    predict: Callable[..., list[dict[str, Any]]]  # (images)


class Result(NamedTuple):
    """A group on a suite."""

    group: Group
    suite: str
    split: Any
    predictions: list[dict[str, Any]]  # of each member
    examined: list[Any]  # of each member, see `robust.examine.Examined`


def main(argv: list[str] | None = None) -> int:
    options = configs.parse_options("evaluate", __doc__, argv, FLAGS, needs=("workdir",))
    folder, which = Path(options.workdir), options.weights
    for text in options.overrides:
        if text.startswith((f"{configs.PREFIX}model.", f"{configs.PREFIX}task")):
            raise UserError(f"{text}: weights are of the network that was trained; leave it out")

    from tinyjax import tasks
    from tinyjax.data.corruptions.corrupt import of_suite
    from tinyjax.run import runtime

    runtime.tune_allocator()
    runtime.enable_compile_cache()
    start_log()
    groups = _groups(folder, which, options.overrides, options.suites)
    suites = groups[0].config.data.suites
    kind = tasks.module(groups[0].config.task)
    names = options.suite or list(suites)
    for name in names:
        if name not in suites:
            raise UserError(f"--suite {name}: {suggest(name, suites)}")
    clean = tuple(name for name in names if "corrupt" not in suites[name])
    # None: its images as they are, to compare with
    corruptions = {n: [None, *of_suite(n, suites[n])] for n in names if n not in clean}

    place, rows, replicates, shown = folder / "evaluations" / which, [], {}, {}
    passes = len(groups) * (len(clean) + sum(map(len, corruptions.values())))
    bar = progress.progress_bar(total=passes, unit="part")
    for result in _examined(groups, clean, kind, bar):
        for id, own in zip(result.group.ids, result.examined, strict=True):
            for part, scores in own.scores.items():
                rows.append(_row(id, result.suite, part, scores=scores))
                replicates[id, _part(result.suite, part)] = own.replicates[part]
            if own.seen:
                _save(place / id / f"{result.suite}.npz", own.seen)
        shown[result.suite] = result
    for name, pairs in corruptions.items():
        for pair in pairs:
            for id, scores in _scored(groups, name, pair, kind, bar):
                rows.append(_row(id, name, "", pair, scores))
    bar.close()
    write_rows(
        place.with_suffix(".csv"), rows, dict.fromkeys(column for row in rows for column in row)
    )
    with atomic(place.with_suffix(".json")) as path:
        asked = {"command": run_folder.command_line(), "config": groups[0].config.to_dict()}
        path.write_text(json.dumps(asked, indent=2))
    if replicates:
        _save(place.with_suffix(".npz"), _stacked(replicates, kind.SCORE))
    if len(groups) == 1 and len(groups[0].ids) == 1:
        _report_one(groups[0], shown, kind, place)
    log.info(_said(rows, kind))
    shown_in = f"; what is shown of it to {place}" if place.exists() else ""
    log.info(f"written to {place.with_suffix('.csv')}{shown_in}")
    return 0


# ---- members


def _groups(folder: Path, which: str, overrides: Sequence[str], suites: str | None) -> list[Group]:
    from tinyjax import tasks
    from tinyjax.population import plan, stack

    found = []
    for ids in plan.populations_of_run(folder):
        for start in range(0, len(ids), AT_ONCE):
            some = [*ids[start : start + AT_ONCE]]
            networks = stack.load_stored(folder, some, which, overrides)
            first = networks[0]
            config = _asked(first.config, suites) if suites else first.config
            task, predict = stack.make_predictor(networks, tasks.module(first.config.task))
            found.append(Group(some, config, first.about, task.score, predict))
    return found


def _asked(config: Any, spec: str) -> Any:
    """The config with the suites, slices and `monitor` of another, which say all of themselves."""
    from tinyjax.config.validation import check

    other, whole = configs.load(spec), config.to_dict()
    ours, theirs = whole["data"], other.data.to_dict()
    common = {"format": theirs["format"], **theirs["common"]}
    common.pop("classes", None)  # a suite's are training's
    for name, own in theirs["suites"].items():
        if not isinstance(own, Mapping):
            raise UserError(f"--suites {spec}: data.suites.{name} = {own!r}: give a dict")
    whole["data"] = {
        **ours,
        "common": {},
        "train": {**ours["common"], **ours["train"]},
        "suites": {name: {**common, **own} for name, own in theirs["suites"].items()},
        "slices": theirs.get("slices", {}),
    }
    asked = configs.from_json(json.dumps({**whole, "monitor": other.monitor}))
    check(asked)
    return asked


# ---- suites


def _examined(
    groups: Sequence[Group], names: tuple[str, ...], kind: ModuleType, bar: Any
) -> Iterator[Result]:
    from tinyjax.metrics.slices import resamples

    for group in groups:
        config, classes = group.config, tuple(group.about["classes"])
        channels, data = group.about["frame"][2], configs.to_json(config.data)
        splits = _splits(config.task, data, names, classes, channels)
        for name, split in splits.items():
            bar.set_description_str(name)
            slices = kind.slices(split, config.data.get("slices", {}))
            if name == config.monitor:
                slices |= _fewer_classes(
                    {n: kind.present(s) for n, s in splits.items()}, name, split
                )
            found = group.predict(split.images)
            counts = resamples(len(split.names))
            examined = kind.examine(found, split, config, slices, counts)
            yield Result(group, name, split, found, examined)
            bar.update()


def _scored(
    groups: Sequence[Group], name: str, pair: tuple[str, int] | None, kind: ModuleType, bar: Any
) -> Iterator[tuple[str, dict[str, float]]]:
    for group in groups:
        bar.set_description_str(" ".join(map(str, (name, *(pair or ())))))
        config, classes = group.config, tuple(group.about["classes"])
        channels, data = group.about["frame"][2], configs.to_json(config.data)
        split = _corrupted(config.task, data, name, classes, channels, pair)
        yield from zip(group.ids, group.score(group.predict(split.images), split), strict=True)
        bar.update()


@lru_cache(maxsize=1)
def _splits(
    task: str, data: str, names: tuple[str, ...], classes: tuple[str, ...], channels: int
) -> dict[str, Any]:
    """Suites by a config's `data` part as JSON: the groups of a sweep mostly have the same."""
    from tinyjax import tasks

    kind, group = tasks.module(task), configs.from_json(data)
    found = {name: _loaded(task, group, name, classes, channels) for name in names}
    if unlike := kind.unlike(found):
        log.info("\n".join(unlike))
    fields = group.get("slices", {})
    known = {part.partition("=")[0] for s in found.values() for part in kind.slices(s, fields)}
    for field in {*fields} - known if found else ():
        log.warning(f"data.slices.{field}: no image of {shorten(found)} says it")
    return found


@lru_cache(maxsize=1)
def _corrupted(
    task: str,
    data: str,
    name: str,
    classes: tuple[str, ...],
    channels: int,
    pair: tuple[str, int] | None,
) -> Any:
    return _loaded(task, configs.from_json(data), name, classes, channels, pair)


def _loaded(
    task: str,
    data: Any,
    name: str,
    classes: tuple[str, ...],
    channels: int,
    pair: tuple[str, int] | None = None,
) -> Any:
    from tinyjax import tasks

    split = tasks.module(task).load(data, data.suites[name], classes, pair)
    if (there := split.images.shape[-1]) != channels:
        raise UserError(
            f"data.suites.{name}: images of {there} channels, the network takes {channels}; give "
            f"channels = {channels}"
        )
    return split


def _fewer_classes(present: Mapping[str, tuple[str, ...]], name: str, split: Any) -> dict[str, Any]:
    """Slices of suite `name` by classes: what suites that have fewer are to be compared with."""
    from tinyjax.metrics.slices import of_classes

    fewer = {own for own in present.values() if own and {*own} < {*present[name]}}
    return {f"classes={'+'.join(own)}": of_classes(len(split.names), own) for own in sorted(fewer)}


# ---- what is written, and what is said


def _row(id: str, suite: str, part: str, pair: Any = None, scores: Any = None) -> dict[str, Any]:
    corruption, severity = pair or ("", "")
    about = {"member": id, "suite": suite, "slice": part}
    return {**about, "corruption": corruption, "severity": severity, **scores}


def _part(suite: str, part: str) -> str:
    return f"{suite}/{part}" if part else suite


def _stacked(replicates: Mapping[tuple[str, str], Any], score: str) -> dict[str, Any]:
    """Arrays of the scores on resampled images: float32 [member, part, B], NaN where a member was
    not evaluated on a part.
    """
    import numpy as np

    members, parts = (list(dict.fromkeys(key[i] for key in replicates)) for i in (0, 1))
    count = len(next(iter(replicates.values())))
    table = np.full((len(members), len(parts), count), np.nan, np.float32)
    for (member, part), values in replicates.items():
        table[members.index(member), parts.index(part)] = values
    return {"members": members, "parts": parts, "score": score, "replicates": table}


def _save(file: Path, arrays: Mapping[str, Any]) -> None:
    import numpy as np

    with atomic(file) as path, path.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def _report_one(group: Group, shown: Mapping[str, Result], kind: ModuleType, place: Path) -> None:
    """Tables, figures and the worst images of a single run."""
    suites = {name: result.split for name, result in shown.items()}
    found = {
        name: kind.in_file_pixels(result.predictions[0], result.split)
        for name, result in shown.items()
    }
    scores = {name: result.examined[0].scores[""] for name, result in shown.items()}
    if shown:
        kind.report(place, suites, found, scores, group.about.get("training", {}))
        log.info(f"step {group.about['step']}\n{kind.table(scores)}")


def _said(rows: Sequence[Mapping[str, Any]], kind: ModuleType) -> str:
    """The main score of every suite and slice: of a sweep from the lowest to the highest; of
    corruptions their mean over severities.
    """
    import numpy as np

    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        of = _part(row["suite"], row["slice"] or row["corruption"])
        found.setdefault(of, {}).setdefault(row["member"], []).append(row[kind.SCORE])
    width = max(map(len, found)) + 2
    lines = [f"{'':<{width}}{kind.SCORES[kind.SCORE]}"]
    for of, own in found.items():
        means = [np.mean(values) for values in own.values()]
        low, high = min(means), max(means)
        lines.append(f"{of:<{width}}{low:.3f}" + (f" to {high:.3f}" if len(means) > 1 else ""))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(exit_code(main))
