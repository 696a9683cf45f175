"""Train the populations of a sweep one after the other, and write its tables and figures."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyjax.core import Task
from tinyjax.population import plan
from tinyjax.population.search_space import Member
from tinyjax.run import distributed, run_folder
from tinyjax.run.csv_files import read_rows, write_rows
from tinyjax.run.logs import log
from tinyjax.run.progress import progress_bar
from tinyjax.training.reporters import PopulationReporter


def train_sweep(
    config: Any,
    task: Task,
    members: Sequence[Member],
    folder: Path,
    shard: tuple[int, int],
    member_batching: str | None,
    train_members: Callable[..., int],
) -> int:
    """Train the populations of a sweep that belong to this shard and are not finished; the shard
    that finishes the last population writes the tables of the sweep.

    train_members: `(members, reporter, number, method, chunk_size) -> exit code`.
    """
    started, (index, shards) = time.time(), shard
    is_main = distributed.is_main_process()
    if is_main:
        plan.load_or_make_plan(config, task, members, folder / "plan.json", member_batching)
    distributed.barrier("plan is written")
    populations = plan.load_or_make_plan(config, task, members, folder / "plan.json")
    if run_folder.log_if_finished(folder):
        return 0
    folders = population_folders(folder, len(populations))
    by_id = {member.id: member for member in members}
    numbers = range(index, len(populations), shards)
    member_steps = {number: _member_steps(populations[number], by_id, config) for number in numbers}
    bar = progress_bar(
        total=sum(member_steps.values()), unit="step", smoothing=0.05, disable=not is_main
    )
    for number in numbers:
        population = populations[number]
        finished = [path for path in folders if run_folder.is_finished(path)]
        if folders[number] in finished:
            bar.update(member_steps[number])
            continue
        to_train = [by_id[id] for id in population.members]
        bar.set_description_str(f"{_progress_text(finished)}, {len(to_train)} training")
        log.info(
            f"population {number + 1} of {len(populations)}: {len(to_train)} of {len(members)} "
            "members"
        )
        reporter = PopulationReporter(folders[number], to_train, task, bar)
        method, chunk_size = population.member_batching, population.chunk_size
        if code := train_members(to_train, reporter, number, method, chunk_size):
            return code
        distributed.barrier(f"population {number}")
    bar.close()
    if not is_main:
        return 0
    if missing := collect_tables(folder, len(populations), task.metrics(config)):
        log.info(
            f"shard {index} of {shards} is finished; not yet finished by other shards: populations "
            f"{', '.join(map(str, missing))}"
        )
        return 0
    log.info(f"finished after {time.time() - started:.0f} s; everything is in {folder}")
    return 0


def population_folders(folder: Path, num_populations: int) -> list[Path]:
    return [folder / "populations" / str(number) for number in range(num_populations)]


def collect_tables(folder: Path, num_populations: int, labels: Mapping[str, str]) -> list[int]:
    """Write a sweep's tables and figures from those of its populations.

    Returns the numbers of the unfinished populations; nothing is written if there are any.

    labels: see `Task.metrics`.
    """
    from tinyjax.reporting import sweep_figures

    folders = population_folders(folder, num_populations)
    if missing := [n for n, path in enumerate(folders) if not run_folder.is_finished(path)]:
        return missing
    tables = {
        name: [row for path in folders for row in read_rows(path / f"{name}.csv")]
        for name in ("members", "metrics", "results")
    }
    sweep_figures.draw(folder / "figures", tables, labels)
    for name, rows in tables.items():  # results.csv comes last: it marks the sweep as finished
        columns = dict.fromkeys(column for row in rows for column in row)
        write_rows(folder / f"{name}.csv", rows, columns)
    return []


def _member_steps(population: plan.PlannedPopulation, by_id: dict[str, Member], config: Any) -> int:
    points = (by_id[id].point for id in population.members)
    return sum(point.get("schedule.steps", config.schedule.steps) for point in points)


def _progress_text(finished: Sequence[Path]) -> str:
    """The numbers of finished and of diverged members, as text."""
    rows = [row for path in finished for row in read_rows(path / "results.csv")]
    diverged = {row["member"]: int(row["diverged_at"]) >= 0 for row in rows}
    count = sum(diverged.values())
    return f"members: {len(diverged)} finished" + (f" ({count} diverged)" if count else "")
