"""Study: several runs and sweeps, one after the other, each perhaps from the weights of one before,
and one report of what is asked of them.

    python -m tinyjax.study --config configs/studies/ultrasmall.py --workdir runs/ultrasmall

The config file describes its stages by get_study(arg, workdir): name -> (config, points of its
sweep, as get_hyper has them; none: a plain run). Each is what tinyjax.train makes of it, in
<workdir>/<name>; kill it at any moment, and the same command goes on from there. Those that no
other starts from are evaluated then, and report.html is of these.
"""

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

    from tinyjax import report
    from tinyjax.train import train

    runfolder.start_log()
    with runfolder.stop_requests() as stop:
        for number, (name, (config, members)) in enumerate(stages.items(), start=1):
            if options.stage and name not in options.stage:
                continue
            runfolder.log.info(f"stage {number} of {len(stages)}: {name}, {len(members)} members")
            lift = how if members != [PLAIN] else None
            if code := train(config, folder / name, stop, members, shard, lift):
                return code
            if not runfolder.finished(folder / name):  # other shards' part is still to come
                break
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
    for name, (config, points) in get_study(spec.partition(":")[2] or None, workdir).items():
        config = config.unlock().lock()
        members = space.members(config, points) if points else [PLAIN]
        for member in members:
            check(configs.changed(config, member.point))
        stages[name] = Stage(config, members)
    return stages


def table(stages: dict[str, Stage]) -> str:
    """A line for each stage: members, steps of each, and what they are trained on and scored on."""
    from tinyjax.robust.tables import trained_on

    lines = [f"{'stage':<16}{'members':>8}{'steps':>9}  trained on -> scored on"]
    for name, (config, members) in stages.items():
        trained, suites = trained_on(config.to_dict()), ", ".join(config.data.suites)
        steps = config.schedule.steps
        lines.append(f"{name:<16}{len(members):>8}{steps:>9,}  {trained} -> {suites}")
    return "\n".join(lines)


def starts(*folders: str | Path) -> Sequence[dict[str, Any]]:
    """Points of a sweep: from scratch, and from the weights in each of the folders; the layer whose
    outputs are the classes always begins anew.
    """
    new = (r"head/class_out/.*",)
    return [{"init": ""}, *({"init": str(folder), "init_new": new} for folder in folders)]


if __name__ == "__main__":
    sys.exit(exit_code(main))
