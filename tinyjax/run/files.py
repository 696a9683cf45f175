"""Writing files so that a kill leaves them whole, on this machine or in a bucket."""

import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tinyjax.config.paths import remote


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends without an error."""
    if remote(path):
        with tempfile.TemporaryDirectory() as folder:
            yield (own := Path(folder) / path.name)
            path.write_bytes(own.read_bytes())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # Shards on several machines write the same tables.
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.tmp")
    yield temporary
    os.replace(temporary, path)
