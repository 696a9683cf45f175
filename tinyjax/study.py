"""Study: several runs and sweeps, one after the other, each perhaps from the weights of one before,
and one report of what is asked of them.

    python -m tinyjax.study --config configs/studies/ultrasmall.py --workdir runs/ultrasmall

The config file describes its stages by get_study(arg, workdir): name -> (config, points of its
sweep, as get_hyper has them; none: a plain run), and perhaps flags of tinyjax.rgn, which then
measures it; or name -> the folder of a run or sweep that is there and is taken as it is. Each is
what tinyjax.train makes of it, in <workdir>/<name>; kill it at any moment, and the same command
goes on from there. Those that no other starts from, and that were not trained to be measured, are
evaluated then, and report.html is of these.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from tinyjax import config as configs
from tinyjax.errors import UserError, exit_code, suggest
from tinyjax.population import search_space
from tinyjax.population.options import FLAGS as SWEEP
from tinyjax.population.options import SINGLE_RUN, parse_member_batching, parse_shard
from tinyjax.population.search_space import Member
from tinyjax.run import run_folder
from tinyjax.run.distributed import local_stop_requests
from tinyjax.run.logs import log, start_log

FLAGS: dict[str, dict[str, Any]] = {
    "--stage": {
        "action": "append",
        "metavar": "NAME",
        "help": "train only this stage; may be given several times",
    },
    **{name: SWEEP[name] for name in ("--shard", "--member-batching")},
    "--dry-run": {"action": "store_true", "help": "only say what the stages are"},
}


class Stage(NamedTuple):
    """A run or a sweep of a study."""

    config: Any
    members: list[Member]
    rgn: tuple[str, ...] | None = None  # flags of tinyjax.rgn; None: it is not measured


Stages = dict[str, Stage | Path]  # a path: of a finished run or sweep, which is taken as it is
FORM = (
    "(config, points of its sweep or None), perhaps with a list of flags of tinyjax.rgn, or a path"
)


def main(argv: list[str] | None = None) -> int:
    options = configs.parse_options("study", __doc__, argv, FLAGS)
    if options.overrides:
        raise UserError(
            f"{options.overrides[0]}: the stages of a study have a config each; give arguments of "
            f"the file, {options.config.partition(':')[0]}:name=value"
        )
    folder, shard, how = (
        options.workdir,
        parse_shard(options.shard),
        parse_member_batching(options.lift),
    )
    stages = stages_of(options.config, folder)
    for name in options.stage or ():
        if name not in stages:
            raise UserError(f"--stage {name}: {suggest(name, stages)}")
    if options.dry_run:
        print(table(stages))
        return 0
    for name, stage in stages.items():
        if isinstance(stage, Path):
            _take(name, stage, folder / name)

    from tinyjax import report, rgn
    from tinyjax.train import STOPPED, train

    start_log()
    with local_stop_requests() as stop:
        for number, (name, stage) in enumerate(stages.items(), start=1):
            if isinstance(stage, Path) or (options.stage and name not in options.stage):
                continue
            config, members, flags = stage
            log.info(f"stage {number} of {len(stages)}: {name}, {len(members)} members")
            lift = how if members != [SINGLE_RUN] else None
            if code := train(config, folder / name, stop, members, shard, lift):
                return code
            if not run_folder.is_finished(folder / name):  # other shards' part is still to come
                break
            if flags is not None and not rgn.measured(folder / name):
                rgn.main(["--workdir", str(folder / name), *flags])
            if stop:
                return STOPPED
    if missing := [name for name in stages if not run_folder.is_finished(folder / name)]:
        names = ", ".join(missing)
        log.info(f"still to be trained: {names}; the same command then goes on")
        return 0
    return report.main([str(folder), *(f"--without={name}" for name in _means(stages))])


def stages_of(spec: str, workdir: Path) -> Stages:
    """The stages that a config file's `get_study` describes, in their order.

    Raises UserError for a file without one, one that does not describe stages, and as
    `space.members` and `check` do.
    """
    get_study = configs.definitions(spec, "get_study")["get_study"]
    try:
        signature(get_study).bind(None, workdir)
    except TypeError as error:
        message = f"{spec}: write it with two arguments, def get_study(arg, workdir)"
        raise UserError(message) from error
    found = get_study(spec.partition(":")[2] or None, workdir)
    if not isinstance(found, Mapping) or not found:
        raise UserError(f"{spec}: get_study: give a dict, name -> {FORM}")
    return {name: _stage(name, given) for name, given in found.items()}


def _stage(name: str, given: Any) -> Stage | Path:
    from tinyjax.config.validation import check
    from tinyjax.rgn import FLAGS as RGN

    if isinstance(given, str | Path):
        return Path(given)
    if not isinstance(given, tuple) or len(given) not in (2, 3):
        raise UserError(f"stage {name}: give {FORM}")
    config, points, *more = given
    if not isinstance(config, ConfigDict) or not all(isinstance(m, list | tuple) for m in more):
        raise UserError(f"stage {name}: give {FORM}")
    flags = tuple(more[0]) if more else None
    if flags is not None:
        configs.parse_options("rgn", None, ["--workdir", name, *flags], RGN, needs=("workdir",))
    config = config.unlock().lock()
    members = search_space.make_members(config, points) if points else [SINGLE_RUN]
    for member in members:
        check(configs.with_fields(config, member.point))
    return Stage(config, members, flags)


def _take(name: str, there: Path, at: Path) -> None:
    """A link to a finished run or sweep. Raises UserError unless it is one, and where something
    else has the stage's place.
    """
    if not run_folder.is_finished(there):
        raise UserError(f"stage {name}: {there} is no finished run or sweep; train it first")
    if at.exists() and at.resolve() != there.resolve():
        raise UserError(f"{at}: is there already, and is not {there}; give another --workdir")
    if not at.exists():
        at.parent.mkdir(parents=True, exist_ok=True)
        at.unlink(missing_ok=True)  # a link to what was moved
        # Relative: folders of runs are moved together.
        at.symlink_to(os.path.relpath(there.resolve(), at.parent.resolve()))


def _means(stages: Stages) -> list[str]:
    """Those that were trained to be measured, if there are others, of whom it says something."""
    found = [n for n, stage in stages.items() if isinstance(stage, Stage) and stage.rgn is not None]
    return found if len(found) < len(stages) else []


def table(stages: Stages) -> str:
    """A line for each stage: members, steps of each, minutes, roughly and on two cores, and what
    they are trained on and scored on.
    """
    from tinyjax.population.plan import estimated_minutes
    from tinyjax.reporting.run_folders import trained_on

    lines = [f"{'stage':<16}{'members':>8}{'steps':>9}{'min':>7}  trained on -> scored on"]
    for name, stage in stages.items():
        if isinstance(stage, Path):
            there = "" if run_folder.is_finished(stage) else ", which is not finished yet"
            lines.append(f"{name:<16}{'':>24}  that of {stage}{there}")
            continue
        config, members, _ = stage
        trained, suites = trained_on(config.to_dict()), ", ".join(config.data.suites)
        took = estimated_minutes(
            *_from_scratch(config, members)
        )  # what they start from may not be there yet
        steps = f"{config.schedule.steps:,}"
        lines.append(f"{name:<16}{len(members):>8}{steps:>9}{took:>7.0f}  {trained} -> {suites}")
    return "\n".join(lines)


def _from_scratch(config: Any, members: Sequence[Member]) -> tuple[Any, list[Member]]:
    fields = ("init", "reinit")
    points = [{f: v for f, v in member.point.items() if f not in fields} for member in members]
    plain = zip(members, points, strict=True)
    return configs.with_fields(config, {"init": ""}), [m._replace(point=p) for m, p in plain]


def starts(*folders: str | Path) -> Sequence[dict[str, Any]]:
    """Points of a sweep: from scratch, and from the weights in each of the folders; the layer whose
    outputs are the classes always begins anew.
    """
    new = (r"head/class_out/.*",)
    return [{"init": ""}, *({"init": str(folder), "reinit": new} for folder in folders)]


if __name__ == "__main__":
    sys.exit(exit_code(main))
