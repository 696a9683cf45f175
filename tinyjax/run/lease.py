"""A lock in a bucket: an object that its holder renews while it runs.

Google Cloud Storage has no locks, but it writes an object only if its generation, the number of its
version, is the expected one. Of two processes that write on the same condition, one is refused.
"""

import os
import platform
import secrets
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.api_core.exceptions import GoogleAPIError, NotFound, PreconditionFailed
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage import Blob, Client

from tinyjax.errors import EX_UNAVAILABLE, UserError
from tinyjax.run.logs import WRITE_INTERVAL, log

EXPIRY = 60  # seconds; a lease that is not renewed for so long belongs to a dead process
# The holder ends before its lease expires: 40 s, a request and the interval between two of them.
MAX_RENEWAL_AGE = 40
REQUEST_TIMEOUT = 8
RETRY_INTERVAL = 2


class Lease:
    """An object in a bucket that belongs to the process that wrote it last.

    Args:
        file: gs://bucket/name of the object.
        clock, sleep: of this process, in seconds.

    Raises UserError if the bucket cannot be accessed.
    """

    def __init__(
        self,
        file: Path,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self._file, self._clock, self._sleep = file, clock, sleep
        self._token = f"{platform.node()} {os.getpid()} {secrets.token_hex(8)}"
        self._blob: Any = None  # as this process wrote it
        try:
            self._client = Client(project=None)  # objects are accessed by their bucket
        except GoogleAuthError as error:
            raise self._no_access(error) from error

    def acquire(self) -> bool:
        """Return whether this process has acquired the lease; another may be renewing it.

        A lease that exists is watched until it has not been renewed for `EXPIRY` seconds.
        """
        try:
            return self._write(None) or self._take_over()
        except (GoogleAPIError, GoogleAuthError, OSError) as error:
            raise self._no_access(error) from error

    def renew(self) -> bool:
        """Return whether the lease was still that of this process, for another `EXPIRY` seconds."""
        return self._write(self._blob, retry=None)

    def release(self) -> None:
        """Delete the object."""
        try:
            self._blob.delete(if_generation_match=self._blob.generation, timeout=REQUEST_TIMEOUT)
        except (GoogleAPIError, GoogleAuthError, OSError) as error:
            log.debug(f"{self._file}: could not be deleted ({error})")

    def is_held_elsewhere(self, file: Path) -> bool:
        """Whether the lease `file` is not expired, by the clock of the server."""
        other = self._read(file)
        return other is not None and (self._blob.updated - other.updated).total_seconds() < EXPIRY

    def _take_over(self) -> bool:
        stored, start = self._read(self._file), self._clock()
        if stored:
            log.info(f"{self._file}: waiting up to {EXPIRY} s to see if its process still runs")
        while stored and self._clock() - start < EXPIRY:
            self._sleep(RETRY_INTERVAL)
            last, stored = stored, self._read(self._file)
            if stored and stored.generation != last.generation:
                return False  # renewed
        return self._write(stored)

    def _write(self, expected: Blob | None, **options: Any) -> bool:
        """Write the object if its generation is that of `expected`; None: if there is no object."""
        generation = expected.generation if expected else 0
        blob = self._bucket_object(self._file)
        try:
            blob.upload_from_string(
                self._token, if_generation_match=generation, timeout=REQUEST_TIMEOUT, **options
            )
        except PreconditionFailed:
            # An earlier request may have been successful without an answer.
            blob = self._read(self._file)
            if blob is None or blob.download_as_text(timeout=REQUEST_TIMEOUT) != self._token:
                return False
        self._blob = blob
        return True

    def _read(self, file: Path) -> Blob | None:
        """An object with its properties, or None if there is none."""
        blob = self._bucket_object(file)
        try:
            blob.reload(timeout=REQUEST_TIMEOUT)
        except NotFound:
            return None
        return blob

    def _bucket_object(self, file: Path) -> Blob:
        bucket, _, name = str(file).removeprefix("gs://").partition("/")
        return self._client.bucket(bucket).blob(name)

    def _no_access(self, error: Exception) -> UserError:
        reason = str(error).partition("\n")[0]
        return UserError(f"{self._file}: the bucket cannot be accessed ({reason})")


def keep_renewing(
    lease: Lease, released: Callable[[float], bool], clock: Callable[[], float] = time.monotonic
) -> bool:
    """Renew a lease every `WRITE_INTERVAL` seconds. Return False when it is lost, that is, another
    process has it, or it was not renewed for `MAX_RENEWAL_AGE` seconds.

    released: waits for the given seconds and returns whether to end.
    """
    renewed, interval = clock(), WRITE_INTERVAL
    while not released(interval):
        start = clock()
        try:
            if not lease.renew():
                return False
            renewed, interval = start, WRITE_INTERVAL
        except Exception as error:  # the bucket may be unreachable for a moment
            log.debug(f"a lease could not be renewed ({error})")
            interval = RETRY_INTERVAL
            if clock() - renewed > MAX_RENEWAL_AGE:
                return False
    return True


class BucketLock:
    """A lease that a thread renews. The process ends when it loses the lease, because another may
    write the run folder then.
    """

    def __init__(self, file: Path):
        self._file, self._lease = file, Lease(file)
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._renew, daemon=True)

    def acquire(self) -> bool:
        """Acquire the lease. Returns False if another process holds it."""
        if acquired := self._lease.acquire():
            self._thread.start()
        return acquired

    def release(self) -> None:
        """Delete the lease."""
        self._released.set()
        self._thread.join()
        self._lease.release()

    def is_held_elsewhere(self, file: Path) -> bool:
        """Whether another process holds the lease `file`."""
        return self._lease.is_held_elsewhere(file)

    def _renew(self) -> None:
        if not keep_renewing(self._lease, self._released.wait):
            print(
                f"error: {self._file}: taken over by another process, or not renewed for "
                f"{MAX_RENEWAL_AGE} s; the same command resumes",
                file=sys.stderr,
                flush=True,
            )
            os._exit(EX_UNAVAILABLE)
