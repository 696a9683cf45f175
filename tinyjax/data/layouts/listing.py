"""The common form of all layouts: a split's images and labels before decoding and validation. Also
the functions that search folders and zips for them.
"""

import logging
import os
import re
import shlex
import unicodedata
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
FOLDER_NAMES = ("images", "labels", "train", "val", "valid", "test", "JPEGImages")
UNSPLIT = "all"  # the only split of a set without splits

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
    frequencies: Mapping[str, str] = {}  # category -> r, c or f, see `federated`


def raise_error(problem: str, message: str) -> NoReturn:
    """The default `OnError`: raise UserError."""
    raise UserError(message)


def explain_upper_case(root: AnyPath) -> str:
    """The end of a message that names folders to rename, such as Images; else ""."""
    folders = (folder for parent in candidate_roots(root) for folder in list_folders(parent))
    renamed = [
        f"; rename {folder} to {name}"
        for folder in folders
        for name in FOLDER_NAMES
        if folder.name != name and folder.name.lower() == name.lower()
    ]
    return "".join(renamed[:3])


def unknown_split(source: Any, split: str, known: Sequence[str], flags: str = "") -> UserError:
    """The error for a split that does not exist. flags: of the command that divides the set."""
    others = sorted({*known} - {split})
    advice = suggest(split, others) if others else "no split in this format; correct data.format"
    renaming = explain_upper_case(source)
    hint = f"{advice}{renaming}{unread_hint(source)}"
    if len(others) == 1 and not renaming:
        hint += f". To divide {others[0]!r}: {split_command(source)}{flags}"
    return UserError(f"{source}: no images of a split {split!r}; {hint}")


def split_command(source: Any) -> str:
    """The command that divides a set into splits."""
    folder = shlex.quote(str(source).rstrip("/"))
    return f"python -m tinyjax.prepare {folder} --split 0.8,0.2"


# ---- folders and files


def candidate_roots(root: AnyPath) -> Iterator[AnyPath]:
    """`root` and the folders up to two levels below: archives often wrap a set once or twice.

    Folders that contain nothing but one folder are not counted. Links to folders inside or above
    `root` are skipped.
    """

    def subfolders(folder: AnyPath) -> list[AnyPath]:
        folders = (item for item in _scan_folder(folder) if item.is_folder)
        return [f.path for f in folders if not (f.is_link and _is_inside_or_above(f.path, top))]

    yield (top := root)
    while len(_scan_folder(root)) == 1 and (folders := subfolders(root)):
        (root,) = folders
        yield root
    first = subfolders(root)
    yield from first
    for folder in first:
        yield from subfolders(folder)


def list_folders(folder: AnyPath) -> list[AnyPath]:
    """The subfolders of a folder by name, without hidden ones; empty if it does not exist."""
    return [item.path for item in _scan_folder(folder) if item.is_folder]


def list_images(folder: AnyPath) -> list[AnyPath]:
    """The image files in a folder, by name."""
    return list_files(folder, SUFFIXES)


def list_files(folder: AnyPath, suffix: str | tuple[str, ...]) -> list[AnyPath]:
    """The files in a folder with this suffix in any case, by name, without hidden ones; empty if
    the folder does not exist.
    """
    return [item.path for item in _scan_folder(folder) if item.name.lower().endswith(suffix)]


def walk_files(folder: AnyPath, suffix: str | tuple[str, ...]) -> list[tuple[str, AnyPath]]:
    """`list_files` of a folder and its subfolders: (path relative to `folder`, file).

    Links to folders elsewhere are followed. A link to a folder inside or above `folder` is skipped:
    its files would occur twice.

    Raises UserError for a link without target that may have been a folder.
    """
    return [*_walk(folder, suffix, "", folder, set())]


def _walk(
    folder: AnyPath,
    suffix: str | tuple[str, ...],
    prefix: str,
    top: AnyPath,
    visited: set[Path],
) -> Iterator[tuple[str, AnyPath]]:
    for item in _scan_folder(folder):
        if item.name.lower().endswith(suffix):
            yield f"{prefix}{item.name}", item.path
        elif item.is_folder:
            if _is_first_visit(item.path, top, visited):
                yield from _walk(item.path, suffix, f"{prefix}{item.name}/", top, visited)
        elif item.is_link and "." not in item.name and not os.path.exists(str(item.path)):
            raise UserError(f"{item.path}: a link without target; restore it or remove the link")


def _is_first_visit(folder: AnyPath, top: AnyPath, visited: set[Path]) -> bool:
    """Whether a walk from `top` reads this folder nowhere else; adds its real path to `visited`."""
    if not isinstance(folder, Path) or not isinstance(top, Path):
        return True  # a zip has no links
    real = folder.resolve()
    if real in visited or (folder.is_symlink() and _is_inside_or_above(folder, top)):
        return False
    visited.add(real)
    return True


def _is_inside_or_above(folder: AnyPath, top: AnyPath) -> bool:
    if not isinstance(folder, Path) or not isinstance(top, Path):
        return False
    real, real_top = folder.resolve(), top.resolve()
    return real_top in (real, *real.parents) or real in real_top.parents


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
    if isinstance(image, Path) and image.is_symlink():
        return "; it is a link without target, restore the target or remove the link"
    folder = parent(image)
    for suffix in UNREAD_SUFFIXES:
        for name in (f"{stem(image)}{suffix}", f"{stem(image)}{suffix.upper()}"):
            if (folder / name).is_file():
                return f"; {name} is of a type that is not read, convert it to png"
    return ""


@lru_cache(maxsize=1000)
def warn_once(message: str) -> None:
    """Log a warning, unless the same one was logged before."""
    log.warning(message)


class _Item(NamedTuple):
    """A file or folder. Its path is made on demand, since most of a large folder is not wanted."""

    name: str
    is_folder: bool
    parent: AnyPath
    zip_path: str = ""  # path in a zip
    is_link: bool = False

    @property
    def path(self) -> AnyPath:
        if isinstance(self.parent, Path):
            return self.parent / self.name
        return zipfile.Path(self.parent.root, self.zip_path)


def _scan_folder(folder: AnyPath) -> list[_Item]:
    """A folder's content, by name, without hidden entries; empty if it does not exist."""
    if not folder.is_dir():
        return []
    if isinstance(folder, Path):
        with os.scandir(folder) as entries:  # knows folders without a further system call
            items = [
                # os.path.isdir: is_dir raises OSError for a link to itself
                _Item(e.name, os.path.isdir(e) if link else e.is_dir(), folder, "", link)
                for e in entries
                for link in [e.is_symlink()]
            ]
    else:
        paths = _zip_folders(folder.root).get(folder.at, {})
        items = [_Item(name, path.endswith("/"), folder, path) for path, name in paths.items()]
    # macOS adds a folder __MACOSX to its zips.
    visible = [i for i in items if not i.name.startswith(".") and i.name != "__MACOSX"]
    return sorted(visible, key=lambda item: item.name)


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


def path_key(path: str) -> str:
    """A path without its suffix, by which images and label files are matched.

    macOS decomposes the accents in names of files; text files and other systems compose them.
    """
    return unicodedata.normalize("NFC", path.rpartition(".")[0])


def existing_file(file: ImageFile) -> ImageFile | None:
    """The file, or one whose name differs only in its Unicode form; None if neither exists."""
    if file.is_file():
        return file
    if isinstance(file, AnyPath) and not file.name.isascii():
        names = (unicodedata.normalize(form, file.name) for form in ("NFC", "NFD"))
        return next((other for n in names if (other := parent(file) / n).is_file()), None)
    return None


def parent(file: AnyPath) -> AnyPath:
    """The folder of a file."""
    return cast(AnyPath, file.parent)


def stem(file: AnyPath) -> str:
    """The name without its suffix; not all Python versions have `zipfile.Path.stem`."""
    return PurePosixPath(file.name).stem


def read_text(file: AnyPath) -> str:
    """A text file's content without byte order mark. Raises UserError if it is not UTF-8."""
    try:
        return read_bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not text in UTF-8 ({error})") from error
