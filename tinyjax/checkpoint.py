"""A member's whole state on disk, written atomically: a save that is cut off leaves the one before
it.

A thin layer on orbax: steps are folders, renamed into place when they are complete.
"""

from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

KEPT = 2


class Checkpoints:
    """The checkpoints of one folder; the newest `KEPT` stay."""

    def __init__(self, folder: Path):
        policy = ocp.training.preservation_policies.LatestN(KEPT)
        self._orbax = ocp.training.Checkpointer(
            folder.absolute(), preservation_policy=policy, cleanup_tmp_directories=True
        )

    def latest(self) -> int | None:
        """The newest complete step, if there is one."""
        return None if self._orbax.latest is None else self._orbax.latest.step

    def save(self, step: int, state: Any) -> None:
        """Write `state` as `step` and return when it is on disk; a step that is there already
        stays.
        """
        if self.latest() != step:
            self._orbax.save(step, state, force=True)

    def restore(self, like: Any) -> Any:
        """The newest state, in the structure, shapes and types of `like`."""
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), like
        )
        return self._orbax.load(self.latest(), abstract)

    def close(self) -> None:
        self._orbax.close()
