"""The data of a run: loaded, and compared with the data that the run began with."""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from tinyjax import config as configs
from tinyjax.core import Split, Task
from tinyjax.data import fingerprint
from tinyjax.errors import UserError
from tinyjax.population.search_space import Member
from tinyjax.run import distributed, runtime
from tinyjax.run.files import atomic
from tinyjax.run.logs import log
from tinyjax.run.run_folder import DATA_FILE
from tinyjax.tasks.suites import load_splits


def load_data(
    task: Task, config: Any, folder: Path, record_file: Path
) -> tuple[Split, dict[str, Split]]:
    """The training split and the suites.

    Raises UserError if a batch is larger than the training split, if the split does not fit on the
    device, or as `check_record` does.
    """
    training, suites, record = load_described(config.task, configs.to_json(config.data))
    if config.batch > (size := len(training.names)):
        raise UserError(
            f"batch = {config.batch}: the training set has {size} images; give 1 to {size}"
        )
    check_record(record_file, record)
    if distributed.is_main_process():
        log.info("\n".join(task.describe_data(training, suites, config, folder)))
    if not config.data.stream:
        runtime.check_dataset_fits(training.inputs)
    return training, suites


def record_file(folder: Path, population_folder: Path, members: Sequence[Member]) -> Path:
    """The file that records the data of a population: that of its run, unless its members set
    fields of `data`.
    """
    differs = any(name.startswith("data.") for member in members for name in member.point)
    return (population_folder if differs else folder) / DATA_FILE


def check_record(file: Path, current: dict[str, Any]) -> None:
    """Write the record of a run's data, or compare it with the one that is there.

    current: see `load_described`. Raises UserError if the classes, images or labels differ.
    """
    if distributed.is_main_process() and not file.exists():
        with atomic(file) as path:
            path.write_text(json.dumps(current), encoding="utf-8")
    distributed.barrier("data is recorded")
    try:
        recorded = json.loads(file.read_bytes())
        message = _difference(recorded, current)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: not a record of a run's data ({error!r}); remove it if the data are those "
            "that the run began with"
        ) from error
    if message:
        raise UserError(f"{file.parent}: {message}, or another --workdir")


def _difference(recorded: dict[str, Any], current: dict[str, Any]) -> str:
    """What differs, and what to give instead; "" if nothing differs."""
    before, now = recorded["classes"], current["classes"]
    if classes := fingerprint.class_difference(before, now):
        order = "classes in the old order" if sorted(before) == sorted(now) else "old classes"
        return f"the training classes {classes}; give the {order} (data.common.classes)"
    for name, split in current["splits"].items():
        if difference := fingerprint.difference(recorded["splits"][name], split):
            return (
                f"data.{name} is not what the run began with: {difference}; give the old images "
                "and labels"
            )
    return ""


@lru_cache(maxsize=1)  # most populations of a sweep share their data
def load_described(task: str, data_json: str) -> tuple[Split, dict[str, Split], dict[str, Any]]:
    """The splits of a config's `data`, as JSON, and their record: the classes, and each split as
    `fingerprint.describe` returns it.
    """
    training, suites = load_splits(task, configs.from_json(data_json))
    splits = {"train": training, **{f"suites.{name}": split for name, split in suites.items()}}
    records = {name: fingerprint.describe(split) for name, split in splits.items()}
    return training, suites, {"classes": [*training.classes], "splits": records}
