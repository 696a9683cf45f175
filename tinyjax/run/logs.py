"""The log of a run, on standard output and in `log.txt`."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from tinyjax.config.paths import is_remote

log = logging.getLogger("tinyjax")

WRITE_INTERVAL = 10  # seconds between writes of a file that changes often


class _ConsoleHandler(logging.StreamHandler):
    """Standard output, above the progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)


def start_log(write: bool = True) -> None:
    """Log to stdout; without `write` only warnings and errors."""
    log.setLevel(logging.INFO if write else logging.WARNING)
    log.propagate = False
    log.handlers = [_ConsoleHandler()]


@contextmanager
def log_to(file: Path, write: bool = True) -> Iterator[None]:
    """Append the messages of this block to `file` as well, if `write`."""
    if not write:
        yield
        return
    handler = (
        _BucketHandler(file) if is_remote(file) else logging.FileHandler(file, encoding="utf-8")
    )
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


class _BucketHandler(logging.Handler):
    """A log in a bucket, rewritten at most every `WRITE_INTERVAL` seconds and when it is closed."""

    def __init__(self, file: Path):
        super().__init__()
        self._file, self._written = file, time.monotonic()
        self._text = file.read_text(encoding="utf-8") if file.exists() else ""

    def emit(self, record: logging.LogRecord) -> None:
        self._text += f"{self.format(record)}\n"
        if time.monotonic() - self._written > WRITE_INTERVAL:
            self._write()

    def close(self) -> None:
        self._write()
        super().close()

    def _write(self) -> None:
        with log_failure(self._file):
            self._file.write_text(self._text, encoding="utf-8")
        self._written = time.monotonic()


@contextmanager
def log_failure(file: Path) -> Iterator[None]:
    """Log an error of this block instead of raising it: a bucket may be briefly unreachable."""
    try:
        yield
    except Exception as error:  # the file systems of buckets raise many types
        log.debug(f"{file}: could not be written ({error})")
