"""Benchmark: the latency of a network on this machine, in the runtimes that are installed.

    python -m tinyjax.benchmark --file mine.onnx --workdir runs/mine --input photos/
    python -m tinyjax.benchmark --workdir runs/sweep --input photos/ --threads 1

A run of --workdir is timed as tinyjax predicts, with decoding and suppression; a file with the
outputs that it has. Each time is that of one image of --input, from the prepared pixels to the
outputs in memory, after calls that are not timed. All candidates take turns in each of --rounds
rounds, and each runtime has a process of its own with as many cores as --threads. The command
prints the median and the quartiles, and writes them to <workdir>/latency.csv, or to
mine-latency.csv next to mine.onnx.

Of a sweep, each member is exported to a temporary ONNX file, before decoding, and timed. Its table
also has the score of the suite config.monitor and the memory of int8 activations as TensorFlow Lite
Micro places them, and figures/latency.png shows the score against both costs, with the Pareto
front.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinyjax import config as configs
from tinyjax.config.paths import parse_local_path
from tinyjax.errors import UserError, run_command
from tinyjax.exporting.latency import (
    RUN_RUNTIME,
    Process,
    Target,
    file_processes,
    limit_cores,
    measure,
    turns,
)
from tinyjax.run.csv_files import write_rows
from tinyjax.run.logs import log, start_log
from tinyjax.run.text import text_table
from tinyjax.run.timing import Candidate

MAX_IMAGES = 16  # that the calls of a candidate read in turn
FLAGS: dict[str, dict[str, Any]] = {
    "--file": {
        "action": "append",
        "default": [],
        "type": parse_local_path,
        "metavar": "FILE",
        "help": "a file of tinyjax.export; may be repeated",
    },
    "--input": {
        "required": True,
        "nargs": "+",
        "type": parse_local_path,
        "metavar": "PATH",
        "help": "images, folders, patterns",
    },
    "--threads": {
        "nargs": "+",
        "type": int,
        "default": [1],
        "metavar": "N",
        "help": "cores of a candidate, 0: all; several numbers are compared (default 1)",
    },
    "--rounds": {"type": int, "default": 50, "metavar": "N", "help": "default 50"},
}


def main(argv: list[str] | None = None) -> int:
    """Run the command. Raises UserError for invalid input."""
    options = configs.parse_options(
        "benchmark", __doc__, argv, FLAGS, required=(), optional=("workdir",)
    )
    check_options(options)
    start_log()

    from tinyjax.inference.input_files import find_files, is_video
    from tinyjax.population.plan import populations_of_run

    photos = [file for file in find_files(options.input) if not is_video(file)][:MAX_IMAGES]
    if not photos:
        raise UserError(f"--input {options.input[0]}: videos only; give images")
    files = [file_target(file, photos) for file in options.file]
    if options.workdir and sum(map(len, populations_of_run(options.workdir))) > 1:
        if files:
            raise UserError(
                f"--file {options.file[0]}: the members of the sweep {options.workdir} are timed "
                "alone; leave it out"
            )
        benchmark_sweep(options, photos)
        return 0
    runs = [run_target(options.workdir, photos)] if options.workdir else []
    processes: dict[Process, Candidate] = file_processes(files, options.threads)
    if runs:
        predictors = {(RUN_RUNTIME, n): (build_runs, (runs, n)) for n in options.threads}
        processes = {**predictors, **processes}
    rows = measure(processes, [*runs, *files], options.rounds)
    if options.workdir:
        output = options.workdir / "latency.csv"
    else:
        output = options.file[0].with_name(f"{options.file[0].stem}-latency.csv")
    write_rows(output, rows, rows[0])
    log.info(f"{text_table(rows)}\nwritten to {output}")
    return 0


def check_options(options: Any) -> None:
    """Raise UserError for invalid options."""
    if not options.file and not options.workdir:
        raise UserError("--file: give a file of tinyjax.export; or --workdir, a run or a sweep")
    for flag, values, lowest in (
        ("--threads", options.threads, 0),
        ("--rounds", [options.rounds], 2),
    ):
        if min(values) < lowest:
            raise UserError(f"{flag} {min(values)}: give {lowest} or more")


# ---- what is timed


def file_target(file: Path, photos: Sequence[Path]) -> Target:
    """A file, and images prepared for it. Raises UserError for a batch of more than one image."""
    from tinyjax.api import load
    from tinyjax.exporting import network_files, two_stage

    metadata, batch = network_files.describe(file)
    if metadata.get("component", two_stage.RPN) != two_stage.RPN:
        raise UserError(f"--file {file}: reads RoIs, not images; give the file of the RPN")
    if batch not in (None, 1):
        raise UserError(f"--file {file}: reads {batch} images per call; export it with --batch 1")
    outputs = metadata.get("outputs", metadata["task"])
    images = prepare(load(file), photos, metadata.get("modality", ""))
    return Target(file.name, file, outputs, images.astype(metadata["input"]["dtype"]))


def run_target(folder: Path, photos: Sequence[Path]) -> Target:
    """A run, and images prepared for it."""
    from tinyjax.api import load

    model = load(folder)
    outputs = "detections" if model.config.task == "detect" else model.config.task
    return Target(folder.name, folder, outputs, prepare(model, photos, first_modality(model)))


def first_modality(model: Any) -> str:
    """The modality whose path is timed: both cost the same."""
    return next(iter(model.predict_functions))


def prepare(model: Any, photos: Sequence[Path], modality: str) -> Any:
    """Images in the network's input size: uint8 [N, 1, H, W, C]. Raises UserError for a broken
    one.
    """
    import numpy as np

    arguments = (modality,) if modality else ()
    return np.stack([model.preprocess(photo, *arguments).pixels[None] for photo in photos])


# ---- in a process of its own


def build_runs(targets: Sequence[Target], threads: int) -> dict[str, Callable[[], Any]]:
    """Calls of tinyjax's own prediction, by name of the run."""
    limit_cores(threads)
    os.environ["JAX_PLATFORMS"] = "cpu"  # as all other runtimes

    from tinyjax.run import runtime

    runtime.tune_allocator()
    runtime.enable_compile_cache()

    import jax
    import numpy as np

    from tinyjax.api import load
    from tinyjax.data.modality import MODALITIES

    def make_call(target: Target) -> Callable[[], Any]:
        model = load(target.path)
        modality = first_modality(model)
        predict, variables = model.predict_functions[modality]
        labels = {"modality": np.full(1, MODALITIES[modality], np.uint8)} if modality else {}
        images = turns(target.images)
        return lambda: jax.device_get(predict(variables, {"image": next(images), **labels}))

    return {target.name: make_call(target) for target in targets}


# ---- sweeps


def benchmark_sweep(options: Any, photos: Sequence[Path]) -> None:
    """Time each member of a sweep, and write its table and figure. Raises UserError as
    `export_members` and `measure` do.
    """
    from tinyjax.reporting import latency_figure
    from tinyjax.run.files import read_json
    from tinyjax.tasks import get_task

    folder = options.workdir
    config = read_json(folder / "config.json")
    metrics = get_task(config["task"]).metrics(config)
    metric, label = next(iter(metrics.items()))
    members = member_rows(folder, config["monitor"], metric)
    with export_members(folder, members, photos) as targets:
        processes = file_processes(targets, options.threads)
        times = measure(processes, targets, options.rounds)
    rows = [{**members[time.pop("name")], **time} for time in times]
    write_rows(folder / "latency.csv", rows, rows[0])
    first = rows[0]
    shown = [
        r for r in rows if (r["runtime"], r["threads"]) == (first["runtime"], first["threads"])
    ]
    title = "{device}; {version}, threads: {threads}".format(**first)
    figure = folder / "figures" / "latency.png"
    latency_figure.draw(figure, shown, metric, f"{config['monitor']}: {label}", title)
    columns = [name for name in rows[0] if name != "device"]
    log.info(
        f"{first['device']}\n{text_table(rows, columns)}\n"
        f"written to {folder / 'latency.csv'} and {figure}"
    )


def member_rows(folder: Path, suite: str, metric: str) -> dict[str, dict[str, Any]]:
    """Member -> its row of members.csv and its score on a suite, from the last evaluation, else
    from the results.

    Raises UserError for a sweep that is not finished, and if a member has no score.
    """
    from tinyjax.run.csv_files import read_rows

    evaluation, results = folder / "evaluations" / "last.csv", folder / "results.csv"
    if not results.exists():
        raise UserError(f"--workdir {folder}: this sweep is not finished (no results.csv)")
    scores: dict[str, float] = {}
    for file in (results, evaluation):
        for row in read_rows(file) if file.exists() else ():
            is_whole = not row.get("slice") and not row.get("corruption")
            if row["suite"] == suite and is_whole:
                scores[row["member"]] = float(row[metric])
    left_out = ("backbone_parameters", "trained_parameters")
    rows = {row["member"]: row for row in read_rows(folder / "members.csv")}
    if missing := [*rows.keys() - scores]:
        raise UserError(f"{results}: no {metric} of member {missing[0]} on the suite {suite}")
    return {
        id: {**{k: v for k, v in row.items() if k not in left_out}, metric: scores[id]}
        for id, row in rows.items()
    }


@contextmanager
def export_members(
    folder: Path, members: dict[str, dict[str, Any]], photos: Sequence[Path]
) -> Iterator[list[Target]]:
    """Files of all members in a temporary folder, which is deleted afterwards. The rows of
    `members` get the columns bytes and arena_bytes.

    Raises UserError as `onnx.write` does, and for two-stage detectors.
    """
    from tinyjax.api import load
    from tinyjax.exporting import onnx, two_stage
    from tinyjax.exporting.arena import arena_bytes
    from tinyjax.exporting.functions import make_function
    from tinyjax.run.progress import progress_bar

    with tempfile.TemporaryDirectory() as temporary:
        targets = []
        for id, row in progress_bar(members.items(), unit="member", desc="export"):
            model = load(folder / "weights" / id)
            modality = first_modality(model)
            if two_stage.is_two_stage(model.config):
                raise UserError(
                    f"--workdir {folder}: a sweep of two-stage detectors, whose raw outputs are "
                    "several files; export members with --nms, and give --file"
                )
            function = make_function(model, name=modality)
            file = Path(temporary) / f"{id}.onnx"
            row["arena_bytes"] = arena_bytes(onnx.write(function, file, batch=1))
            row["bytes"] = file.stat().st_size
            outputs = function.metadata.get("outputs", function.metadata["task"])
            targets.append(Target(id, file, outputs, prepare(model, photos, modality)))
        yield targets


if __name__ == "__main__":
    sys.exit(run_command(main))
