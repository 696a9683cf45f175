"""A member's whole state on disk, written atomically: a save that is cut off leaves the one before
it, and one that was damaged later is noticed and passed over.

A thin layer on orbax: steps are folders, renamed into place when they are complete.
"""

import logging
import shutil
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from orbax.checkpoint import v1 as ocp

from tinyjax.config.paths import remote
from tinyjax.errors import UserError
from tinyjax.run import distributed
from tinyjax.run.logs import log

KEPT = 2
# orbax logs the tracebacks of its threads; what matters of them is raised as well.
logging.getLogger("absl").setLevel(logging.CRITICAL)


class Checkpoints:
    """The checkpoints of one folder; the newest `KEPT` stay."""

    def __init__(self, folder: Path):
        self._folder = folder if remote(folder) else folder.absolute()
        policy = ocp.training.preservation_policies.LatestN(KEPT)
        self._orbax = ocp.training.Checkpointer(
            self._folder, preservation_policy=policy, cleanup_tmp_directories=True
        )

    def latest(self) -> int | None:
        """The newest complete step, if there is one."""
        return None if self._orbax.latest is None else self._orbax.latest.step

    def save(self, step: int, state: Any) -> None:
        """Write `state` as `step` and return when it is on disk; a step that is there already
        stays.

        Raises UserError if it cannot be written: what was saved before is whole.
        """
        if self.latest() == step:
            return
        state = jax.device_get(state)
        # orbax does not notice a flipped bit in an array; the checksum does.
        checksum = {"crc32": _checksum(state)}
        try:
            self._orbax.save(step, state, force=True, custom_metadata=checksum)
        except Exception as error:  # a full disk comes as any of several types, from any thread
            raise UserError(
                f"{self._folder}: step {step} could not be saved ({_line(error)}){self._room()}. "
                "What was saved before is whole: make room, then run the same command again"
            ) from error

    def _room(self) -> str:
        if remote(self._folder):
            return ""
        free = shutil.disk_usage(self._folder).free / 2**20
        return f"; {free:,.0f} MiB are free on this disk"

    def restore(self, like: Any) -> Any:
        """The newest state that is whole, in the structure, shapes and types of `like`.

        Newer ones that are damaged are set aside as "damaged-<step>", with a message. Raises
        UserError if none is whole, and then touches nothing.
        """
        abstract = jax.tree.map(np.empty_like, like)
        damaged: dict[int, str] = {}
        for step in sorted((one.step for one in self._orbax.checkpoints), reverse=True):
            state, damage = self._read(step, abstract)
            if distributed.all_true(not damage):
                self._set_aside(damaged)
                return state
            damaged[step] = damage or "another process could not read it"
        reasons = "; ".join(f"{step}: {reason}" for step, reason in damaged.items())
        raise UserError(
            f"{self._folder}: every checkpoint is damaged ({reasons}); to start anew give another "
            "--workdir, or remove this folder"
        )

    def _read(self, step: int, abstract: Any) -> tuple[Any, str]:
        """The state of a step and, if it is damaged, how."""
        try:
            state = self._orbax.load(step, abstract)
            whole = self._orbax.metadata(step).custom_metadata["crc32"] == _checksum(state)
        except Exception as error:  # whatever a missing or cut-off file leads orbax to
            return None, _line(error) or "unreadable"
        return state, "" if whole else "its checksum is another"

    def _set_aside(self, damaged: dict[int, str]) -> None:
        for step, reason in damaged.items():
            there, aside = self._folder / str(step), self._folder / f"damaged-{step}"
            log.warning(f"{there}: this checkpoint is damaged ({reason}); taking the one before")
            if distributed.is_main_process():
                epath.Path(aside).rmtree(missing_ok=True)  # of an earlier time
                there.rename(aside)
        distributed.barrier("damaged checkpoints are set aside")
        self._orbax.reload()

    def close(self) -> None:
        self._orbax.close()


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def _checksum(state: Any) -> int:
    crc = 0
    for leaf in jax.tree.leaves(state):
        crc = zlib.crc32(np.asarray(leaf).tobytes(), crc)
    return crc
