"""The common form of all layouts: a split's images and labels before decoding and validation. Also
the functions that search folders and zips for them.
"""

import logging
import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, NoReturn, cast

from tinyjax.data.images import SUFFIXES
from tinyjax.data.sources import AnyPath, ImageFile, read_bytes
from tinyjax.errors import UserError, suggest

log = logging.getLogger("tinyjax")

# Pictures, videos and arrays that are not read; they are counted, so that none is silently missing.
UNREAD_SUFFIXES = (
    *(".arw", ".ats", ".avi", ".avif", ".cr2", ".csq", ".dng", ".exr", ".fff", ".fits", ".heic"),
    *(".heif", ".j2k", ".jp2", ".jxl", ".mkv", ".mov", ".mp4", ".nef", ".npy", ".npz", ".pfm"),
    *(".raw", ".seq", ".svg", ".tga"),
)
SPLIT_ALIASES = {"val": "valid", "valid": "val"}  # Roboflow writes valid; used if only one exists

# Called with (problem, message) for an invalid image or box, which is left out if the call returns
OnError = Callable[[str, str], None]


class Label(NamedTuple):
    """One labeled object, as stored in the source."""

    source: str  # file and position, for messages
    category: str
    box: tuple[float, float, float, float]  # xyxy in pixels of the file, or relative to its sides
    ignore: bool = False  # an ignored region
    area: float | None = None  # px^2; None: the box's area


class Entry(NamedTuple):
    """One image with its labels."""

    file: ImageFile
    info: dict[str, Any]  # "file_name", "height" and "width" if stated, other fields of the source
    labels: Sequence[Label]


class Listing(NamedTuple):
    """One split."""

    source: str  # the file or folder that lists it, for messages
    entries: Sequence[Entry]
    categories: tuple[str, ...]  # in the source's order
    ignored: frozenset[str] = frozenset()  # categories that the source marks as ignored
    groups: frozenset[str] = frozenset()  # categories that are scored only if `classes` names them
    relative: bool = False  # boxes are in [0, 1] of the image's width and height
    notices: tuple[str, ...] = ()  # how ambiguous labels were read, for the report


def raise_error(problem: str, message: str) -> NoReturn:
    """The default `OnError`: raise UserError."""
    raise UserError(message)


def unknown_split(source: Any, split: str, known: Sequence[str]) -> UserError:
    """The error for a split that does not exist."""
    others = sorted({*known} - {split})
    hint = f"{suggest(split, others)}{unread_hint(source)}"
    return UserError(f"{source}: no images of a split {split!r}; {hint}")


# ---- folders and files


def candidate_roots(root: AnyPath) -> Iterator[AnyPath]:
    """`root` and the folders up to two levels below: archives often wrap a set once or twice."""
    yield root
    first = list_folders(root)
    yield from first
    for folder in first:
        yield from list_folders(folder)


def list_folders(folder: AnyPath) -> list[AnyPath]:
    """The subfolders of a folder by name, without hidden ones; empty if it does not exist."""
    return [path for _, path in _scan_folder(folder) if path.is_dir()]


def list_images(folder: AnyPath) -> list[AnyPath]:
    """The image files in a folder, by name."""
    return list_files(folder, SUFFIXES)


def list_files(folder: AnyPath, suffix: str | tuple[str, ...]) -> list[AnyPath]:
    """The files in a folder with this suffix in any case, by name, without hidden ones; empty if
    the folder does not exist.
    """
    return [path for name, path in _scan_folder(folder) if name.lower().endswith(suffix)]


def walk_files(
    folder: AnyPath, suffix: str | tuple[str, ...], prefix: str = ""
) -> list[tuple[str, AnyPath]]:
    """`list_files` of a folder and its subfolders: (path relative to `folder`, file)."""
    files = []
    for name, path in _scan_folder(folder):
        if name.lower().endswith(suffix):
            files.append((f"{prefix}{name}", path))
        elif path.is_dir():
            files += walk_files(path, suffix, f"{prefix}{name}/")
    return files


def list_unread(folder: AnyPath) -> list[AnyPath]:
    """The files of `UNREAD_SUFFIXES` in a folder and its subfolders, see `select_unread`."""
    return select_unread(walk_files(folder, SUFFIXES + UNREAD_SUFFIXES))


def select_unread(files: Iterable[tuple[str, AnyPath]]) -> list[AnyPath]:
    """The files of `UNREAD_SUFFIXES` among (path, file).

    A file next to an image of the same name, such as its temperatures as .npy, is left out.
    """
    named = [(path.rpartition(".")[0], file) for path, file in files]
    images = {name for name, file in named if file.name.lower().endswith(SUFFIXES)}
    return [
        file
        for name, file in named
        if name not in images and file.name.lower().endswith(UNREAD_SUFFIXES) and not file.is_dir()
    ]


def describe_unread(files: Sequence[AnyPath]) -> str:
    """The number of files and their types; "" without files."""
    if not files:
        return ""
    suffixes = sorted({PurePosixPath(file.name).suffix.lower() for file in files})
    count, pronoun = ("1 file", "it") if len(files) == 1 else (f"{len(files)} files", "them")
    types = ", ".join(suffixes)
    return f"{count} of a type that is not read ({types}); convert {pronoun} to png"


def unread_hint(folder: AnyPath) -> str:
    """The end of a message that a folder has no images; "" if all its files are read."""
    unread = describe_unread(list_unread(folder))
    return f". It has {unread}" if unread else ""


def warn_unread(folder: AnyPath) -> None:
    """Log the number of files in a folder that are not read."""
    if unread := describe_unread(list_unread(folder)):
        warn_once(f"{folder}: {unread}")


def explain_missing(image: ImageFile) -> str:
    """The end of a message that an image is missing: a file of its name that is not read; or ""."""
    if not isinstance(image, AnyPath):
        return ""
    folder = cast(AnyPath, image.parent)
    for suffix in UNREAD_SUFFIXES:
        for name in (f"{stem(image)}{suffix}", f"{stem(image)}{suffix.upper()}"):
            if (folder / name).is_file():
                return f"; {name} is of a type that is not read, convert it to png"
    return ""


@lru_cache(maxsize=1000)
def warn_once(message: str) -> None:
    """Log a warning, unless the same one was logged before."""
    log.warning(message)


def _scan_folder(folder: AnyPath) -> list[tuple[str, AnyPath]]:
    """(name, path) of a folder's content, by name, without hidden entries."""
    if not folder.is_dir():
        return []
    if isinstance(folder, Path):
        content: list[tuple[str, AnyPath]] = [(path.name, path) for path in folder.iterdir()]
    else:
        paths = _zip_folders(folder.root).get(folder.at, {})
        content = [(name, zipfile.Path(folder.root, path)) for path, name in paths.items()]
    visible = (pair for pair in content if not pair[0].startswith("."))
    return sorted(visible, key=lambda pair: pair[0])


@lru_cache(maxsize=1)
def _zip_folders(archive: zipfile.ZipFile) -> dict[str, dict[str, str]]:
    """Folder -> {path: name} of its content; `zipfile.Path.iterdir` scans all names each time."""
    folders: dict[str, dict[str, str]] = defaultdict(dict)
    for path in archive.namelist():
        folder, slash, name = path.rstrip("/").rpartition("/")
        folders[folder + slash][path] = name
    return folders


def join_inside(root: AnyPath, name: str, source: str) -> AnyPath:
    """`root / name`. Raises UserError if `name` leaves `root`; source: the file with `name`."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        raise UserError(f"{source}: file name {name!r} leaves the data set; give a path inside it")
    return root / str(path)


def stem(file: AnyPath) -> str:
    """The name without its suffix; not all Python versions have `zipfile.Path.stem`."""
    return PurePosixPath(file.name).stem


def read_text(file: AnyPath) -> str:
    """A text file's content without byte order mark. Raises UserError if it is not UTF-8."""
    try:
        return read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not text in UTF-8 ({error})") from error
