"""Train the runs and sweeps of a study in order, some from the weights of earlier ones, and write
one report.

    python -m tinyjax.study --config configs/studies/ultrasmall.py --workdir runs/ultrasmall

The config file defines get_study(arg, workdir), which returns a dict, stage name -> one of

    (config, points)            points of the sweep, as in get_hyper; None for a single run
    (config, points, commands)  the same, and commands on the trained stage, name -> flags:
                                {"rgn": [..]} measures it by tinyjax.rgn, {"average": [..]}
                                averages its weights by tinyjax.average
    folder                      a finished run or sweep, which is not trained again

Each stage is trained as by tinyjax.train, in <workdir>/<name>. After an interruption, the same
command resumes. At the end, stages are evaluated and report.html is written. The report leaves out
stages that others start from, and stages measured by tinyjax.rgn.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from tinyjax import config as configs
from tinyjax.config.paths import parse_path
from tinyjax.config.spec import split_spec
from tinyjax.errors import STOPPED, UserError, run_command, suggest
from tinyjax.population import search_space
from tinyjax.population.options import FLAGS as SWEEP_FLAGS
from tinyjax.population.options import SINGLE_RUN, parse_member_batching, parse_shard
from tinyjax.population.search_space import Member
from tinyjax.run import run_folder
from tinyjax.run.distributed import local_stop_requests
from tinyjax.run.logs import log, start_log
from tinyjax.run.text import text_table
from tinyjax.training.validation import check_members
from tinyjax.transfer.starting_weights import CLASS_SHAPES

FLAGS: dict[str, dict[str, Any]] = {
    "--stage": {
        "action": "append",
        "metavar": "NAME",
        "help": "train only this stage, or print its populations; may be repeated",
    },
    **{name: SWEEP_FLAGS[name] for name in ("--shard", "--member-batching")},
    "--dry-run": {"action": "store_true", "help": "only print the stages"},
}


class Stage(NamedTuple):
    """A run or a sweep of a study."""

    config: Any
    members: list[Member]
    commands: dict[str, tuple[str, ...]]  # of COMMANDS, after training -> flags


Stages = dict[str, Stage | Path]  # a path: a finished run or sweep
COMMANDS = ("rgn", "average")
STAGE_FORMAT = (
    "(config, points of the sweep or None), optionally with commands "
    f"{{{' or '.join(COMMANDS)}: list of flags}}, or a path"
)


def main(argv: list[str] | None = None) -> int:
    """Run the command. Raises UserError for invalid input."""
    options = configs.parse_options("study", __doc__, argv, FLAGS)
    if options.overrides:
        raise UserError(
            f"{options.overrides[0]}: each stage of a study has its own config; give "
            f"arguments to the config file, {split_spec(options.config)[0]}:name=value"
        )
    folder, shard = options.workdir, parse_shard(options.shard)
    member_batching = parse_member_batching(options.member_batching)
    stages = load_stages(options.config, folder)
    for name in options.stage or ():
        if name not in stages:
            raise UserError(f"--stage {name}: {suggest(name, stages)}")
    if options.dry_run:
        print(stage_table(stages))
        for name in options.stage or ():
            if not isinstance(stage := stages[name], Path):
                print(f"\n{name}:\n{describe_stage(stage, member_batching)}")
        return 0
    for name, stage in stages.items():
        if isinstance(stage, Path):
            _link_stage(name, stage, folder / name)

    from tinyjax import report

    start_log()
    with local_stop_requests() as stop:
        selected = options.stage or stages
        if (code := _train_stages(stages, selected, folder, stop, shard, member_batching)) != 0:
            return code
    if unfinished := [name for name in stages if not run_folder.is_finished(folder / name)]:
        log.info(f"not finished: {', '.join(unfinished)}; run the same command to continue")
        return 0
    return report.main([str(folder), *(f"--exclude={name}" for name in _stages_to_exclude(stages))])


def _train_stages(
    stages: Stages,
    selected: Iterable[str],
    folder: Path,
    stop: Sequence[int],
    shard: tuple[int, int],
    member_batching: str | None,
) -> int:
    """Train the selected stages in order, until one is not finished; return an exit code."""
    from tinyjax.train import train

    for number, (name, stage) in enumerate(stages.items(), start=1):
        if isinstance(stage, Path) or name not in selected:
            continue
        config, members, commands = stage
        log.info(f"stage {number} of {len(stages)}: {name}, {len(members)} members")
        stage_batching = member_batching if members != [SINGLE_RUN] else None
        if code := train(config, folder / name, stop, members, shard, stage_batching):
            return code
        if not run_folder.is_finished(folder / name):  # other shards still train it
            break
        for command, flags in commands.items():
            module = import_module(f"tinyjax.{command}")
            if not module.is_done(folder / name):
                module.main(["--workdir", str(folder / name), *flags])
        if stop:
            return STOPPED
    return 0


def load_stages(spec: str, workdir: Path) -> Stages:
    """Return the stages that `get_study` of a config file returns, in order.

    Raises UserError if there is no `get_study` or a stage is invalid, see also
    `search_space.make_members` and `validation.check_members`.
    """
    get_study = configs.definitions(spec, "get_study")["get_study"]
    try:
        signature(get_study).bind(None, workdir)
    except TypeError as error:
        message = f"{spec}: give get_study two arguments, def get_study(arg, workdir)"
        raise UserError(message) from error
    stages = get_study(split_spec(spec)[1], workdir)
    if not isinstance(stages, Mapping) or not stages:
        raise UserError(f"{spec}: get_study must return a dict, name -> {STAGE_FORMAT}")
    return {name: _make_stage(name, value) for name, value in stages.items()}


def _make_stage(name: str, value: Any) -> Stage | Path:
    if isinstance(value, str | Path):
        return parse_path(value)
    if not isinstance(value, tuple) or len(value) not in (2, 3):
        raise UserError(f"stage {name}: give {STAGE_FORMAT}")
    config, points, commands = value if len(value) == 3 else (*value, {})
    if not isinstance(config, ConfigDict) or not isinstance(commands, Mapping):
        raise UserError(f"stage {name}: give {STAGE_FORMAT}")
    for command, flags in commands.items():
        if command not in COMMANDS or not isinstance(flags, list | tuple):
            raise UserError(f"stage {name}: give {STAGE_FORMAT}")
        argv, known = ["--workdir", name, *flags], import_module(f"tinyjax.{command}").FLAGS
        configs.parse_options(command, None, argv, known, required=("workdir",))
    config = config.unlock().lock()
    members = search_space.make_members(config, points) if points else [SINGLE_RUN]
    check_members(config, members)
    return Stage(config, members, {name: tuple(flags) for name, flags in commands.items()})


def _link_stage(name: str, source: Path, link: Path) -> None:
    """Create a link to a finished run or sweep.

    Raises UserError if `source` is not finished, or if `link` exists and points elsewhere.
    """
    if not run_folder.is_finished(source):
        raise UserError(f"stage {name}: {source} is not a finished run or sweep; train it first")
    if link.exists() and link.resolve() != source.resolve():
        raise UserError(f"{link}: exists and is not {source}; give another --workdir")
    if not link.exists():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)  # a broken link
        # Relative, so that the folder of all runs can be moved.
        link.symlink_to(os.path.relpath(source.resolve(), link.parent.resolve()))


def _stages_to_exclude(stages: Stages) -> list[str]:
    """Return the stages measured by tinyjax.rgn, which the report leaves out, unless all are."""
    names = [
        n for n, stage in stages.items() if isinstance(stage, Stage) and "rgn" in stage.commands
    ]
    return names if len(names) < len(stages) else []


def stage_table(stages: Stages) -> str:
    """Return a text table of the stages.

    Columns: members, steps per member, estimated minutes on two cores, training set and suites.
    """
    from tinyjax.population.plan import estimated_minutes
    from tinyjax.reporting.run_folders import describe_training_set
    from tinyjax.tasks import get_task

    rows: list[dict[str, Any]] = []
    for name, stage in stages.items():
        if isinstance(stage, Path):
            state = "" if run_folder.is_finished(stage) else ", not finished yet"
            rows.append({"stage": name, "trained on -> scored on": f"run {stage}{state}"})
            continue
        config, members, _ = stage
        training_set = describe_training_set(config.to_dict())
        # The starting weights may not exist yet, and do not affect the cost.
        scratch_config, scratch_members = _without_init(config, members)
        minutes = estimated_minutes(scratch_config, get_task(config.task), scratch_members)
        rows.append(
            {
                "stage": name,
                "members": len(members),
                "steps": f"{config.schedule.steps:,}",
                "min": f"{minutes:.0f}",
                "trained on -> scored on": f"{training_set} -> {', '.join(config.data.suites)}",
            }
        )
    return text_table(rows, ("stage", "members", "steps", "min", "trained on -> scored on"))


def describe_stage(stage: Stage, member_batching: str | None) -> str:
    """The populations that a stage would train, as a table."""
    from tinyjax.train import describe_plan

    # The starting weights may not exist yet.
    return describe_plan(*_without_init(stage.config, stage.members), member_batching)


def _without_init(config: Any, members: Sequence[Member]) -> tuple[Any, list[Member]]:
    fields = ("init", "reinit")
    points = [{f: v for f, v in member.point.items() if f not in fields} for member in members]
    return configs.with_fields(config, {"init": ""}), [
        member._replace(point=point) for member, point in zip(members, points, strict=True)
    ]


def init_points(*folders: str | Path) -> Sequence[dict[str, Any]]:
    """Return points of a sweep over starting weights: from scratch, and from each of the folders.

    The layers whose shapes may depend on the classes are always initialized at random.
    """
    reinit = (CLASS_SHAPES,)
    return [{"init": ""}, *({"init": str(folder), "reinit": reinit} for folder in folders)]


if __name__ == "__main__":
    sys.exit(run_command(main))
