"""Atomic writes, on this machine or in a bucket, and records in JSON."""

import json
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tinyjax.config.paths import is_remote
from tinyjax.errors import UserError


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


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file of a run. Raises UserError if the file is damaged."""
    try:
        record = json.loads(file.read_bytes())
        problem = "" if isinstance(record, dict) else f"a {type(record).__name__}, not an object"
    except ValueError as error:
        problem = str(error)
    if problem:
        raise UserError(
            f"{file}: this file is damaged ({problem}); restore it from a copy, or repeat "
            "the run in another folder"
        )
    return record
