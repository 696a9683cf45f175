"""Data sources: folders, zips that are read in place, and the bytes of their files."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Protocol

from tinyjax.config.paths import parse_local_path
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


LABEL_FILE_SUFFIXES = (".yaml", ".yml", ".json")  # of a label file that is itself a source


@contextmanager
def open_source(source: str | Path) -> Iterator[AnyPath]:
    """Open a data source and yield its root: a folder, a .zip (read in place), or a label file.

    A label file is YOLO's yaml or a COCO json; `recognition.find_layout` then reads its layout.

    Raises UserError if `source` is none of these, if a zip is broken, if a zip entry has a path
    outside the zip's root, or if its compression ratio is that of a decompression bomb.
    """
    path = parse_local_path(source)
    if path.is_dir() or (path.is_file() and path.suffix.lower() in LABEL_FILE_SUFFIXES):
        yield path
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
            _normalize_names(file)
            yield zipfile.Path(file)
    elif path.is_file() and _starts_like_zip(path):
        raise UserError(f"{path}: a truncated or broken zip; copy or download it again")
    elif path.exists():
        raise UserError(
            f"{path}: neither a folder nor a .zip file; unpack other archives and give the folder"
        )
    else:
        raise UserError(f"{path}: no such folder or .zip file")


def _starts_like_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _normalize_names(archive: zipfile.ZipFile) -> None:
    """Replace the backslashes that older Windows packers write into the names of entries."""
    for entry in archive.filelist:
        # orig_filename, which is compared with the entry's own header, keeps the backslashes.
        entry.filename = entry.filename.replace("\\", "/")
    archive.NameToInfo = {entry.filename: entry for entry in archive.filelist}


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
