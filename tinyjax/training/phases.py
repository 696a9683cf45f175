"""Training in phases: each phase is a run that starts from the weights of the previous phase."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinyjax import config as configs
from tinyjax.errors import UserError
from tinyjax.run import distributed, run_folder
from tinyjax.run.csv_files import read_rows, write_rows
from tinyjax.run.logs import log, log_to
from tinyjax.run.weights import copy_weights
from tinyjax.training.validation import check_config


def train_phases(config: Any, folder: Path, train_run: Callable[[Any, Path], int]) -> int:
    """Train in `folder`/phase1, phase2, ...; the last phase's weights are also those of the run.

    train_run: `(config, folder) -> exit code`, trains a single run.
    """
    started, is_main = time.time(), distributed.is_main_process()
    folders = [folder / f"phase{number + 1}" for number in range(len(config.phases))]
    phases = phase_configs(config, folders)  # checks all before the first one starts
    for number, (phase, path) in enumerate(zip(phases, folders, strict=True), start=1):
        log.info(f"phase {number} of {len(phases)}: {config.phases[number - 1]}")
        if run_folder.is_finished(path):
            continue
        # Unlike `open_folder`, this does not compare the config with the stored one: the folder
        # belongs to this run, and its stored `init` is outdated if the run was moved.
        if is_main:
            run_folder.create(path, configs.to_json(phase))
        with log_to(path / "log.txt", is_main):
            if code := train_run(phase, path):
                return code
        distributed.barrier(f"phase {number}")
    if not is_main:
        return 0
    run_folder.record_config(folder, configs.to_json(config))
    copy_weights(folders[-1], folder)
    for table in ("members.csv", "results.csv"):  # results.csv marks the run as finished
        rows = [
            {"phase": number, **row}
            for number, path in enumerate(folders, start=1)
            for row in read_rows(path / table)
        ]
        write_rows(folder / table, rows, dict.fromkeys(name for row in rows for name in row))
    log.info(f"finished after {time.time() - started:.0f} s; everything is in {folder}")
    return 0


def phase_configs(config: Any, folders: Sequence[Path]) -> list[Any]:
    """The configs of a run's phases, which will be trained in `folders`.

    Raises UserError for a malformed phase, and as `check_config` does for each.
    """
    phases = []
    for previous, fields in zip(("", *folders), config.phases, strict=False):
        if not isinstance(fields, Mapping):
            raise UserError(f"phases: {fields!r}: give a dict, field -> value, for each phase")
        if fields.keys() & {"init", "phases"}:
            raise UserError(
                f"phases: {fields!r}: a phase sets neither init nor phases; the first phase starts "
                "from the config's init, each other phase from the one before it"
            )
        start = {"init": str(previous), "reinit": ()} if previous else {}
        phases.append(configs.with_fields(config, {"phases": (), **start, **fields}))
        check_config(phases[-1])
    return phases
