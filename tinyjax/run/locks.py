"""Locks of a run folder: at most one process writes each shard of a run.

A shard of a sweep, or a single run as shard 0 of 1, locks heartbeats/<i>-of-<n>.lock. Shards of the
same n share no population, so they run at the same time; shards of another n are refused. The
operating system releases the lock of a process that dies. A bucket has no such locks, see `lease`.
"""

import errno
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from tinyjax.config.paths import is_remote
from tinyjax.errors import MachineError
from tinyjax.run import distributed, heartbeat
from tinyjax.run.logs import log

TIMEOUT = 1  # seconds; another process that looks for shards holds the lock for a moment
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


class Lock(Protocol):
    """A lock that belongs to a file name, in a folder or a bucket."""

    def acquire(self) -> bool:
        """Acquire the lock. Returns False if another process holds it."""

    def release(self) -> None: ...

    def is_held_elsewhere(self, file: Path) -> bool:
        """Whether another process holds the lock of `file`."""


@contextmanager
def lock_shard(folder: Path, shard: tuple[int, int]) -> Iterator[bool]:
    """Lock shard (i, n) of a run; yield whether other shards of the run are being trained.

    Only the main process of a group locks. Raises MachineError in all processes if another process
    trains the shard, or shards of another number.
    """
    with ExitStack() as stack:
        error, shared = None, False
        if distributed.is_main_process():
            try:
                shared = stack.enter_context(_lock(folder, *shard))
            except MachineError as refusal:
                error = refusal
        if not distributed.all_true(error is None):
            raise error or MachineError(f"{folder}: another process trains here")
        yield not distributed.all_true(not shared)


@contextmanager
def _lock(folder: Path, index: int, shards: int) -> Iterator[bool]:
    file = folder / "heartbeats" / f"{index}-of-{shards}.lock"
    lock = _make_lock(file)
    if not lock.acquire():
        raise _refusal(folder, file)
    try:
        others = [path for path in file.parent.glob("*-of-*.lock") if path.name != file.name]
        held = [path for path in sorted(others) if lock.is_held_elsewhere(path)]
        for path in held:
            if not path.name.endswith(f"-of-{shards}.lock"):
                raise _refusal(folder, path)
        yield bool(held)
    finally:
        lock.release()


def _make_lock(file: Path) -> Lock:
    if is_remote(file):
        from tinyjax.run.lease import BucketLock  # imports google.cloud.storage

        return BucketLock(file)
    return _LocalLock(file)


def _refusal(folder: Path, file: Path) -> MachineError:
    name = file.name.removesuffix(".lock")
    shard = "" if name == "0-of-1" else f"shard {name.replace('-', ' ')} "
    process = heartbeat.describe(file.with_name(f"{name}.0.json"))
    return MachineError(
        f"{folder}: another process trains {shard}here ({process}); wait until it ends, or give "
        "another --workdir"
    )


class _LocalLock:
    """A `Lock` of the operating system."""

    def __init__(self, file: Path):
        file.parent.mkdir(parents=True, exist_ok=True)
        # A soft lock would outlive a killed process, so it is no fallback.
        self._lock = FileLock(file, fallback_to_soft=False)

    def acquire(self) -> bool:
        try:
            self._lock.acquire(timeout=TIMEOUT)
        except Timeout:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            log.warning(
                f"{self._lock.lock_file}: this file system has no locks ({error.strerror}); make "
                "sure that no other process trains in this folder"
            )
        return True

    def release(self) -> None:
        self._lock.release()

    def is_held_elsewhere(self, file: Path) -> bool:
        try:
            with FileLock(file, fallback_to_soft=False).acquire(timeout=0):
                return False
        except Timeout:
            return True
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return False
