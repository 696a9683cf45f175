"""Checkpoints of the training state. An interrupted save leaves the previous checkpoint intact, and
a checkpoint that is damaged later is detected and skipped.

A thin layer over orbax, which writes each step to a folder and renames it when it is complete.
"""

import logging
import shutil
import sys
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from tinyjax.config.paths import is_remote
from tinyjax.errors import UserError
from tinyjax.run import distributed
from tinyjax.run.logs import log

MAX_TO_KEEP = 2
# orbax logs the tracebacks of its threads; the errors that matter are raised as well.
logging.getLogger("absl").setLevel(logging.CRITICAL)


class Checkpoints:
    """The checkpoints in a folder; the newest `MAX_TO_KEEP` are kept."""

    def __init__(self, folder: Path):
        self._folder = folder if is_remote(folder) else folder.absolute()
        policy = ocp.training.preservation_policies.LatestN(MAX_TO_KEEP)
        self._orbax = ocp.training.Checkpointer(
            self._folder, preservation_policy=policy, cleanup_tmp_directories=True
        )

    def latest(self) -> int | None:
        """Return the newest complete step, or None."""
        return None if self._orbax.latest is None else self._orbax.latest.step

    def save(self, step: int, state: Any) -> None:
        """Write `state` as `step` and return when it is on disk. An existing step is not rewritten.

        Raises UserError if it cannot be written; earlier checkpoints stay intact.
        """
        if self.latest() == step:
            return
        state = jax.device_get(state)
        # orbax does not detect a flipped bit in an array; the checksum does.
        checksum = {"crc32": _checksum(state)}
        hook = _hide_closed_loop()
        try:
            self._orbax.save(step, state, force=True, custom_metadata=checksum)
        except Exception as error:  # a full disk raises several types, from several threads
            raise UserError(
                f"{self._folder}: step {step} could not be saved ({_first_line(error)})"
                f"{self._free_space()}. Earlier checkpoints are intact: free some space, then run "
                "the same command again"
            ) from error
        sys.unraisablehook = hook  # after an error it stays: other writes may fail later

    def _free_space(self) -> str:
        if is_remote(self._folder):
            return ""
        free = shutil.disk_usage(self._folder).free / 2**20
        return f"; {free:,.0f} MiB are free on this disk"

    def restore(self, like: Any) -> Any:
        """Return the newest undamaged state, with the structure, shapes and types of `like`.

        Newer, damaged checkpoints are renamed to "damaged-<step>" with a warning. Raises UserError
        if all are damaged; then none is renamed.
        """
        abstract = jax.tree.map(np.empty_like, like)
        damaged: dict[int, str] = {}
        for step in sorted((saved.step for saved in self._orbax.checkpoints), reverse=True):
            state, problem = self._read(step, abstract)
            if distributed.all_true(not problem):
                self._rename_damaged(damaged)
                return state
            damaged[step] = problem or "another process could not read it"
        reasons = "; ".join(f"{step}: {reason}" for step, reason in damaged.items())
        raise UserError(
            f"{self._folder}: every checkpoint is damaged ({reasons}); to start again give another "
            "--workdir, or remove this folder"
        )

    def _read(self, step: int, abstract: Any) -> tuple[Any, str]:
        """Return the state of a step and an empty string, or None and what is wrong with it."""
        hook = _hide_closed_loop()
        try:
            state = self._orbax.load(step, abstract)
            intact = self._orbax.metadata(step).custom_metadata["crc32"] == _checksum(state)
        except Exception as error:  # orbax raises many types for missing and truncated files
            return None, _first_line(error) or "unreadable"
        sys.unraisablehook = hook  # after an error it stays: other reads may fail later
        return state, "" if intact else "checksum mismatch"

    def _rename_damaged(self, damaged: dict[int, str]) -> None:
        for step, reason in damaged.items():
            path, new_path = self._folder / str(step), self._folder / f"damaged-{step}"
            log.warning(f"{path}: this checkpoint is damaged ({reason}); using an earlier one")
            if distributed.is_main_process():
                epath.Path(new_path).rmtree(missing_ok=True)  # from an earlier restart
                path.rename(new_path)
        distributed.barrier("damaged checkpoints are set aside")
        self._orbax.reload()

    def close(self) -> None:
        self._orbax.close()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def _checksum(state: Any) -> int:
    crc = 0
    for leaf in jax.tree.leaves(state):
        crc = zlib.crc32(np.asarray(leaf).tobytes(), crc)
    return crc


def _hide_closed_loop() -> Callable[[Any], None]:
    """Install `_ignore_closed_loop` and return the hook that was there."""
    hook = sys.unraisablehook
    sys.unraisablehook = partial(_ignore_closed_loop, hook)
    return hook


def _ignore_closed_loop(hook: Callable[[Any], None], unraisable: Any) -> None:
    """`sys.unraisablehook` without the tracebacks of reads and writes that fail after the first
    failure has closed their event loop.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        hook(unraisable)
