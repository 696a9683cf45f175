"""Atomic writes, on this machine or in a bucket."""

import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyjax.config.paths import is_remote


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path, which replaces `path` when the block ends without an error."""
    if is_remote(path):
        with tempfile.TemporaryDirectory() as folder:
            yield (temporary := Path(folder) / path.name)
            path.write_bytes(temporary.read_bytes())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Unique per process: shards on several machines write the same tables.
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    yield temporary
    os.replace(temporary, path)
