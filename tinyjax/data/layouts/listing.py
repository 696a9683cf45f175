"""What every layout of files is first read into: which images there are, and what is labeled in
them, nothing decoded and nothing judged yet.
"""

import re
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, NoReturn, TypeVar

from tinyjax.data.images import SUFFIXES, Bytes, Place, content
from tinyjax.errors import UserError, shorten, suggest

Given = TypeVar("Given")

SAME_SPLIT = {"val": "valid", "valid": "val"}  # Roboflow's name, where only one is there
Refuse = Callable[[str, str], None]  # (kind of problem, message); what returns is left out


class Label(NamedTuple):
    """One labeled object, as the source has it."""

    where: str  # what a message calls it
    category: str
    box: tuple[float, float, float, float]  # xyxy in pixels of the file, or relative to its sides
    ignore: bool = False  # a don't-care box
    area: float | None = None  # px^2; None: that of the box


class Entry(NamedTuple):
    """One image."""

    place: Bytes
    info: dict[str, Any]  # "file_name", "height" and "width" if the source says, what else it says
    labels: Sequence[Label]


class Listing(NamedTuple):
    """One split."""

    where: str  # the file or folder that lists it
    entries: Sequence[Entry]
    categories: tuple[str, ...]  # in the source's order
    ignored: frozenset[str] = frozenset()  # of these, what the source marks as don't-care
    groups: frozenset[str] = frozenset()  # of these, groups, and what is scored only if named
    relative: bool = False  # boxes are in [0, 1] of the image's width and height


def refuse(kind: str, message: str) -> NoReturn:
    """A loader's answer to a problem unless it is given another: stop."""
    raise UserError(message)


def homes(root: Place) -> Iterator[Place]:
    """`root`, the folders in it, and theirs: archives often wrap a set once or twice."""
    yield root
    first = folders(root)
    yield from first
    for folder in first:
        yield from folders(folder)


def folders(place: Place) -> list[Place]:
    """The folders in a folder, in order of name; hidden ones left out. None if it is none."""
    return [one for _, one in _within(place) if one.is_dir()]


def inside(root: Place, name: str, where: str) -> Place:
    """`root / name`. Raises UserError if `name` leaves `root`."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        raise UserError(f"{where}: file name {name!r} leaves the data set; give a path inside it")
    return root / str(path)


def image_files(place: Place) -> list[Place]:
    """The images in a folder, in order of name."""
    return files(place, SUFFIXES)


def files(place: Place, suffix: str | tuple[str, ...]) -> list[Place]:
    """The files in a folder whose name ends so, in capitals or not, in order of name; hidden ones
    left out. None if there is no folder.
    """
    return [one for name, one in _within(place) if name.lower().endswith(suffix)]


def walk(place: Place, suffix: str | tuple[str, ...], above: str = "") -> list[tuple[str, Place]]:
    """`files` of a folder and of all folders in it: (path from `place`, file)."""
    found = []
    for name, one in _within(place):
        if name.lower().endswith(suffix):
            found.append((f"{above}{name}", one))
        elif one.is_dir():
            found += walk(one, suffix, f"{above}{name}/")
    return found


def _within(place: Place) -> list[tuple[str, Place]]:
    """(name, place) of what is in a folder, in order of name; hidden ones left out."""
    if not place.is_dir():
        return []
    if isinstance(place, Path):
        found: list[tuple[str, Place]] = [(one.name, one) for one in place.iterdir()]
    else:
        paths = _contents(place.root).get(place.at, {})
        found = [(name, zipfile.Path(place.root, path)) for path, name in paths.items()]
    seen = (pair for pair in found if not pair[0].startswith("."))
    return sorted(seen, key=lambda pair: pair[0])


@lru_cache(maxsize=1)
def _contents(archive: zipfile.ZipFile) -> dict[str, dict[str, str]]:
    """Folder -> {path: name} in it. `zipfile.Path.iterdir` looks at all names for each folder."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for path in archive.namelist():
        folder, slash, name = path.rstrip("/").rpartition("/")
        found[folder + slash][path] = name
    return found


def text(file: Place) -> str:
    """What a text file holds, without the mark that Windows puts first. Raises UserError."""
    try:
        return content(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not text in UTF-8 ({error})") from error


def spread(entries: Sequence[Given], limit: int, name: Callable[[Given], str]) -> list[Given]:
    """At most `limit` of them, evenly over their names; 0: all. Raises UserError below 0."""
    if not isinstance(limit, int) or limit < 0:
        raise UserError(f"limit = {limit!r}: give a number of images, or 0 for all")
    if not limit or limit >= len(entries):
        return [*entries]
    ordered = sorted(entries, key=name)
    return [ordered[i * len(entries) // limit] for i in range(limit)]


def refuse_where(where: Any) -> None:
    """Raise UserError for what does not have the form that `chosen` wants."""
    if not isinstance(where, Mapping):
        raise UserError(f"where = {where!r}: give a dict, field -> value or (low, high)")
    for field, wanted in where.items():
        pair = isinstance(wanted, tuple | list) and [type(v) in (int, float) for v in wanted]
        if not isinstance(wanted, str | int | float) and pair != [True, True]:
            raise UserError(f"where: {field} = {wanted!r}: give a value, or (low, high)")
        if pair and not wanted[0] < wanted[1]:
            raise UserError(f"where: {field} = {wanted!r}: give the low end first")


def chosen(listed: Listing, where: Mapping[str, Any]) -> Listing:
    """Of the listing those images that say so: field -> a text or number that it is, or (low, high)
    of a number, half-open.

    Raises UserError for a field that no image has, if none is left, and as `refuse_where`.
    """
    refuse_where(where)
    entries = [*listed.entries]
    for field, wanted in where.items():
        known = dict.fromkeys(name for entry in listed.entries for name in entry.info)
        if field not in known:
            message = f"{listed.where}: where: no image says {field!r}; {suggest(field, known)}"
            raise UserError(message)
        entries = [entry for entry in entries if _is(entry.info.get(field), wanted)]
    if where and not entries:
        asked = ", ".join(f"{field} = {wanted!r}" for field, wanted in where.items())
        raise UserError(f"{listed.where}: where: no image has {asked}")
    return listed._replace(entries=entries)


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, str | int | float):
        return value == wanted
    return isinstance(value, int | float) and wanted[0] <= value < wanted[1]


def renamed(listed: Listing, names: Mapping[str, str]) -> Listing:
    """The listing with other names of its categories, theirs -> ours. Raises UserError."""
    for name, ours in names.items():
        if not isinstance(ours, str):
            raise UserError(f"rename: {name!r} to {ours!r}: give a name")
        if name not in listed.categories:
            raise UserError(
                f"{listed.where}: rename: no category {name!r}; {suggest(name, listed.categories)}"
            )

    def new(name: str) -> str:
        return names.get(name, name)

    entries = [
        entry._replace(
            labels=[label._replace(category=new(label.category)) for label in entry.labels]
        )
        for entry in listed.entries
    ]
    return listed._replace(
        entries=entries,
        categories=tuple(dict.fromkeys(map(new, listed.categories))),
        ignored=frozenset(map(new, listed.ignored)),
        groups=frozenset(map(new, listed.groups)),
    )


def roles(
    listed: Listing, classes: Sequence[str], ignore_classes: Sequence[str], match: bool
) -> tuple[tuple[str, ...], frozenset[str]]:
    """The scored classes in the order of their labels, and the names that are don't-care.

    match: the classes are those of another set, and some of the names may be unknown here. Raises
    UserError for unknown names, names given twice, and if no class is left.
    """
    if match and classes and not {*classes} & {*listed.categories}:
        raise UserError(
            f"{listed.where}: none of the classes of training ({shorten(classes)}) is one of the "
            f"categories here ({shorten(listed.categories)}); give rename, theirs -> ours"
        )
    asked = [*classes, *ignore_classes]
    for name in asked:
        if name not in listed.categories and not match:
            known = suggest(name, listed.categories)
            raise UserError(f"{listed.where}: no category {name!r}; {known}")
        if asked.count(name) > 1:
            raise UserError(f"{name!r} is named twice in classes and ignore_classes; name it once")
    for name in classes:
        if name in listed.ignored:
            raise UserError(
                f'{listed.where}: category {name!r} is marked "ignore": 1, so it cannot be '
                "one of classes; leave it out"
            )
    ignored = listed.ignored | {*ignore_classes}
    every = (name for name in listed.categories if name not in ignored | listed.groups)
    found = tuple(classes) or tuple(every)
    if not found:
        raise UserError(f"{listed.where}: no category to learn; give at least one class")
    return found, ignored


def stem(file: Place) -> str:
    """The name without its suffix, which a path inside a zip does not tell on every Python."""
    return PurePosixPath(file.name).stem


def no_split(where: Any, split: str, known: Sequence[str]) -> UserError:
    others = sorted({*known} - {split})
    return UserError(f"{where}: no images of a split {split!r}; {suggest(split, others)}")
