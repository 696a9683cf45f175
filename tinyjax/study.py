"""Study: several runs and sweeps, one after the other, each perhaps from the weights of one before,
and one report of what is asked of them.

    python -m tinyjax.study --config configs/studies/ultrasmall.py --workdir runs/ultrasmall

The config file describes its stages by get_study(arg, workdir): name -> (config, points of its
sweep, as get_hyper has them; none: a plain run), and perhaps flags of tinyjax.rgn, which then
measures it; or name -> the folder of a run or sweep that is there and is taken as it is. Each is
what tinyjax.train makes of it, in <workdir>/<name>; kill it at any moment, and the same command
goes on from there. Those that no other starts from are evaluated then, and report.html is of these.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tinyjax import config as configs
from tinyjax import runfolder
from tinyjax.errors import UserError, exit_code, suggest
from tinyjax.population import space
from tinyjax.population.options import FLAGS as SWEEP
from tinyjax.population.options import PLAIN, lift_of, shard_of
from tinyjax.population.space import Member

FLAGS: dict[str, dict[str, Any]] = {
    "--stage": {
        "action": "append",
        "metavar": "NAME",
        "help": "train only this stage; may be given several times",
    },
    **{name: SWEEP[name] for name in ("--shard", "--lift")},
    "--dry-run": {"action": "store_true", "help": "only say what the stages are"},
}


class Stage(NamedTuple):
    """A run or a sweep of a study."""

    config: Any
    members: list[Member]
    rgn: tuple[str, ...] | None = None  # flags of tinyjax.rgn; None: it is not measured
    there: Path | None = None  # trained by someone else


def main(argv: list[str] | None = None) -> int:
    options = configs.options("study", __doc__, argv, FLAGS)
    if options.overrides:
        raise UserError(
            f"{options.overrides[0]}: the stages of a study have a config each; give arguments of "
            f"the file, {options.config.partition(':')[0]}:name=value"
        )
    folder, shard, how = options.workdir, shard_of(options.shard), lift_of(options.lift)
    stages = stages_of(options.config, folder)
    for name in options.stage or ():
        if name not in stages:
            raise UserError(f"--stage {name}: {suggest(name, stages)}")
    if options.dry_run:
        print(table(stages))
        return 0

    from tinyjax import report, rgn
    from tinyjax.train import train

    runfolder.start_log()
    with runfolder.stop_requests() as stop:
        for number, (name, (config, members, flags, there)) in enumerate(stages.items(), start=1):
            if options.stage and name not in options.stage:
                continue
            if there:
                _take(there, folder / name)
                continue
            runfolder.log.info(f"stage {number} of {len(stages)}: {name}, {len(members)} members")
            lift = how if members != [PLAIN] else None
            if code := train(config, folder / name, stop, members, shard, lift):
                return code
            if not runfolder.finished(folder / name):  # other shards' part is still to come
                break
            if flags is not None and not rgn.measured(folder / name):
                rgn.main(["--workdir", str(folder / name), *flags])
    if missing := [name for name in stages if not runfolder.finished(folder / name)]:
        names = ", ".join(missing)
        runfolder.log.info(f"still to be trained: {names}; the same command then goes on")
        return 0
    return report.main([str(folder)])


def stages_of(spec: str, workdir: Path) -> dict[str, Stage]:
    """The stages that a config file's `get_study` describes, in their order.

    Raises UserError for a file without one, and as `space.members` and `check` do.
    """
    from tinyjax.checks import check

    get_study = configs.names(spec, "get_study")["get_study"]
    stages = {}
    for name, stage in get_study(spec.partition(":")[2] or None, workdir).items():
        if isinstance(stage, str | Path):
            stages[name] = _there(name, Path(stage))
            continue
        config, points, *flags = stage
        config = config.unlock().lock()
        members = space.members(config, points) if points else [PLAIN]
        for member in members:
            check(configs.changed(config, member.point))
        stages[name] = Stage(config, members, tuple(flags[0]) if flags else None)
    return stages


def _there(name: str, folder: Path) -> Stage:
    """A stage that somebody else trained. Raises UserError unless it is finished."""
    if not runfolder.finished(folder):
        raise UserError(f"stage {name}: {folder} is no finished run or sweep; train it first")
    config = configs.of_run(json.loads((folder / "config.json").read_text()))
    ids = dict.fromkeys(row["member"] for row in runfolder.read_rows(folder / "members.csv"))
    return Stage(config, [Member(id, {}) for id in ids], None, folder)


def _take(there: Path, at: Path) -> None:
    """A link to a finished run or sweep."""
    if not at.is_symlink() and at.exists():
        raise UserError(f"{at}: is there already, and is not {there}; give another --workdir")
    if not at.exists():
        at.parent.mkdir(parents=True, exist_ok=True)
        at.unlink(missing_ok=True)
        at.symlink_to(there.resolve())


def table(stages: dict[str, Stage]) -> str:
    """A line for each stage: members, steps of each, minutes, roughly and on two cores, and what
    they are trained on and scored on.
    """
    from tinyjax.population.plan import minutes
    from tinyjax.robust.tables import trained_on

    lines = [f"{'stage':<16}{'members':>8}{'steps':>9}{'min':>7}  trained on -> scored on"]
    for name, (config, members, _, there) in stages.items():
        trained, suites = trained_on(config.to_dict()), ", ".join(config.data.suites)
        # what they start from may not be there yet
        took = 0 if there else minutes(*_from_scratch(config, members))
        steps, of = f"{config.schedule.steps:,}", f"  (that of {there})" if there else ""
        lines.append(
            f"{name:<16}{len(members):>8}{steps:>9}{took:>7.0f}  {trained} -> {suites}{of}"
        )
    return "\n".join(lines)


def _from_scratch(config: Any, members: Sequence[Member]) -> tuple[Any, list[Member]]:
    fields = ("init", "init_new")
    points = [{f: v for f, v in member.point.items() if f not in fields} for member in members]
    plain = zip(members, points, strict=True)
    return configs.changed(config, {"init": ""}), [m._replace(point=p) for m, p in plain]


def starts(*folders: str | Path) -> Sequence[dict[str, Any]]:
    """Points of a sweep: from scratch, and from the weights in each of the folders; the layer whose
    outputs are the classes always begins anew.
    """
    new = (r"head/class_out/.*",)
    return [{"init": ""}, *({"init": str(folder), "init_new": new} for folder in folders)]


if __name__ == "__main__":
    sys.exit(exit_code(main))
