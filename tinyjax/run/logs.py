"""The log of a run: standard output and `log.txt`."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from tinyjax.config.paths import remote

log = logging.getLogger("tinyjax")

WRITE_INTERVAL = 10  # seconds between writes of a file that changes often


class _Console(logging.StreamHandler):
    """Standard output, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)


def start_log(write: bool = True) -> None:
    """Messages go to stdout; without `write` warnings alone."""
    log.setLevel(logging.INFO if write else logging.WARNING)
    log.propagate = False
    log.handlers = [_Console()]


@contextmanager
def log_to(file: Path, write: bool = True) -> Iterator[None]:
    """Messages of this block also go to the end of `file`, unless this process does not write."""
    if not write:
        yield
        return
    handler = _Bucket(file) if remote(file) else logging.FileHandler(file)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        handler.close()


class _Bucket(logging.Handler):
    """A log in a bucket: written whole, at most every `WRITE_INTERVAL` seconds and on closing."""

    def __init__(self, file: Path):
        super().__init__()
        self._file, self._written = file, time.monotonic()
        self._text = file.read_text() if file.exists() else ""

    def emit(self, record: logging.LogRecord) -> None:
        self._text += f"{self.format(record)}\n"
        if time.monotonic() - self._written > WRITE_INTERVAL:
            self._write()

    def close(self) -> None:
        self._write()
        super().close()

    def _write(self) -> None:
        with not_needed(self._file):
            self._file.write_text(self._text)
        self._written = time.monotonic()


@contextmanager
def not_needed(file: Path) -> Iterator[None]:
    """What fails in this block is said, and ends nothing: a bucket may be out of reach for once."""
    try:
        yield
    except Exception as error:  # of any of the libraries below
        log.debug(f"{file}: could not be written ({error})")
