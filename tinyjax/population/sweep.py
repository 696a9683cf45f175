"""Runs that are made of several trainings: sweeps, and trainings in phases. `train_members` is the
one of `train.py`.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyjax import config as configs
from tinyjax.config.validation import check
from tinyjax.errors import UserError
from tinyjax.population import plan
from tinyjax.population.options import SINGLE_RUN
from tinyjax.population.search_space import Member
from tinyjax.run import distributed, progress, run_folder
from tinyjax.run.csv_files import read_rows, write_rows
from tinyjax.run.logs import log, log_to
from tinyjax.run.weights import copy_weights


def train_sweep(
    config,
    members: Sequence[Member],
    folder: Path,
    stop: Sequence[int],
    shard: tuple[int, int],
    how: str | None,
    train_members: Callable[..., int],
) -> int:
    """Train the members of a sweep, one population after the other; those that are finished are
    not trained again. Whoever finishes the last one makes one table of all of them.
    """
    started, (i, n) = time.time(), shard
    leads = distributed.is_main_process()
    if leads:
        plan.load_or_make_plan(config, members, folder / "plan.json", how)
    distributed.barrier("planned")
    populations = plan.load_or_make_plan(config, members, folder / "plan.json")
    if run_folder.log_if_finished(folder):
        return 0
    places = [folder / "populations" / str(number) for number in range(len(populations))]
    everyone = {member.id: member for member in members}
    mine = range(i, len(populations), n)
    steps = [
        sum(everyone[id].point.get("schedule.steps", config.schedule.steps) for id in own.members)
        for own in populations
    ]
    total = sum(steps[number] for number in mine)
    bar = progress.progress_bar(total=total, unit="step", smoothing=0.05, disable=not leads)
    for number in mine:
        own = [everyone[id] for id in populations[number].members]
        done = [place for place in places if run_folder.is_finished(place)]
        if places[number] in done:
            bar.update(steps[number])
            continue
        bar.set_description_str(f"{_count(done)}, {len(own)} training")
        log.info(f"population {number + 1} of {len(populations)}: {len(own)} of {len(members)}")
        if code := train_members(config, own, folder, stop, number, *populations[number][1:], bar):
            return code
        distributed.barrier(f"population {number}")
    bar.close()
    if not leads:
        return 0
    if missing := collect_tables(folder, len(populations), config.task):
        others = ", ".join(map(str, missing))
        log.info(f"shard {i} of {n} is done; of other shards are populations {others}")
        return 0
    log.info(f"finished after {time.time() - started:.0f} s; everything is in {folder}")
    return 0


def collect_tables(folder: Path, populations: int, task: str) -> list[int]:
    """Make a sweep's tables of those of its populations; or return which are not finished."""
    from tinyjax import tasks
    from tinyjax.reporting import sweep_figures

    places = [folder / "populations" / str(number) for number in range(populations)]
    if missing := [k for k, place in enumerate(places) if not run_folder.is_finished(place)]:
        return missing
    tables = {
        name: [row for place in places for row in read_rows(place / f"{name}.csv")]
        for name in ("members", "metrics", "results")
    }
    sweep_figures.draw(folder / "figures", tables, tasks.module(task).SCORES)
    for name, rows in tables.items():  # the last one says that the sweep is finished
        columns = dict.fromkeys(column for row in rows for column in row)
        write_rows(folder / f"{name}.csv", rows, columns)
    return []


def _count(finished: Sequence[Path]) -> str:
    """How many members of these populations are done, and how many of them stopped early."""
    rows = [row for place in finished for row in read_rows(place / "results.csv")]
    stopped = {row["member"]: int(row["diverged_at"]) >= 0 for row in rows}
    return f"members: {len(stopped)} done" + (
        f" ({sum(stopped.values())} stopped)" if any(stopped.values()) else ""
    )


def train_phases(
    config, folder: Path, stop: Sequence[int], train_members: Callable[..., int]
) -> int:
    """Train in phases: each is a run of its own, in `folder`/phase1 and so on, that starts from the
    weights of the one before. The last one's weights are also the whole run's.
    """
    started, leads = time.time(), distributed.is_main_process()
    places = [folder / f"phase{number + 1}" for number in range(len(config.phases))]
    runs = phases(config, places)  # all of them are checked before the first begins
    for number, (own, place) in enumerate(zip(runs, places, strict=True), start=1):
        log.info(f"phase {number} of {len(runs)}: {config.phases[number - 1]}")
        if run_folder.is_finished(place):
            continue
        # Not compared with what is there, as a folder is that might be another run's: this one is
        # part of ours, and where both were moved the start of the phase has another path.
        if leads:
            run_folder.create(place, configs.to_json(own))
        with log_to(place / "log.txt", leads):
            if code := train_members(own, [SINGLE_RUN], place, stop):
                return code
        distributed.barrier(f"phase {number}")
    if not leads:
        return 0
    copy_weights(places[-1], folder)
    for table in ("members.csv", "results.csv"):  # the latter says that the run is finished
        rows = [
            {"phase": number, **row}
            for number, place in enumerate(places, start=1)
            for row in read_rows(place / table)
        ]
        write_rows(folder / table, rows, dict.fromkeys(name for r in rows for name in r))
    log.info(f"finished after {time.time() - started:.0f} s; everything is in {folder}")
    return 0


def phases(config, places: Sequence[Path]) -> list[Any]:
    """The configs of a run's phases, which are to be trained in `places`.

    Raises UserError for a phase that is none, and as `check` does for each.
    """
    found = []
    for before, fields in zip(("", *places), config.phases, strict=False):
        if not isinstance(fields, Mapping):
            raise UserError(f"phases: {fields!r}: give a dict, field -> value, for each phase")
        if fields.keys() & {"init", "phases"}:
            raise UserError(
                f"phases: {fields!r}: a phase has no init and no phases of its own; the first "
                "starts from the config's init, each other one from the one before"
            )
        start = {"init": str(before), "reinit": ()} if before else {}
        found.append(configs.with_fields(config, {"phases": (), **start, **fields}))
        check(found[-1])
    return found
