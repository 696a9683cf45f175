"""Data sources: folders, zips that are read in place, and the bytes of their files."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol

from tinyjax.errors import UserError

# Both support what is used here: `/`, iterdir, is_dir, is_file, read_bytes.
AnyPath = Path | zipfile.Path

MAX_UNPACKED_BYTES = 2**24  # of a zip entry that exceeds MAX_UNPACK_RATIO
MAX_UNPACK_RATIO = 200  # unpacked to packed size


class ImageFile(Protocol):
    """An image file: a path, an entry of a zip, or a record."""

    @property
    def name(self) -> str: ...
    def is_file(self) -> bool: ...
    def read_bytes(self) -> bytes: ...


@contextmanager
def open_source(source: str | Path) -> Iterator[AnyPath]:
    """Open a data source and yield its root: a folder, a .zip (read in place), or a yaml's folder.

    Raises UserError if `source` is none of these, if a zip entry has a path outside the zip's root,
    or if its compression ratio is that of a decompression bomb.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        yield path
    elif path.suffix in (".yaml", ".yml") and path.is_file():
        if others := [f for f in path.parent.glob("*.y*ml") if f != path]:
            raise UserError(
                f"{path}: the folder also has {others[0].name}; give the folder as source"
            )
        yield path.parent
    elif path.is_file() and zipfile.is_zipfile(path):
        try:
            archive = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            raise UserError(
                f"{path}: a broken zip ({error}); create or download it again"
            ) from error
        with archive as file:
            for entry in file.infolist():
                _check_entry(path, entry)
            yield zipfile.Path(file)
    elif path.exists():
        raise UserError(f"{path}: neither a folder nor a .zip file")
    else:
        raise UserError(f"{path}: no such folder or .zip file")


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    entry_path = PurePosixPath(entry.filename.replace("\\", "/"))
    if entry_path.is_absolute() or ".." in entry_path.parts:
        raise UserError(
            f"{path}: entry {entry.filename!r} leaves the folder; create the zip again without it"
        )
    if (
        entry.file_size > MAX_UNPACKED_BYTES
        and entry.file_size > MAX_UNPACK_RATIO * entry.compress_size
    ):
        raise UserError(
            f"{path}: entry {entry.filename!r} unpacks {entry.compress_size:,} bytes to "
            f"{entry.file_size:,}, like a decompression bomb; if it is none, unpack the zip and "
            "give the folder"
        )


def read_bytes(file: ImageFile) -> bytes:
    """The content of a small file. Raises UserError if it cannot be read."""
    try:
        return file.read_bytes()
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        # RuntimeError: an encrypted zip, or a compression method that Python does not support
        raise UserError(f"{file}: cannot be read ({error})") from error
