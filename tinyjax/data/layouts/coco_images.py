"""Where the images of a COCO file are: its file names may be paths of another machine."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from tinyjax.data.layouts.listing import existing_file
from tinyjax.data.sources import AnyPath

Parts = tuple[str, ...]
MAX_TRIED = 100  # of the names with the same folder: a few images may be missing


def find_images(
    folders: Sequence[AnyPath], names: Iterable[str]
) -> dict[str, tuple[str, AnyPath | None]]:
    """File name -> its part inside the data set, and the file.

    Names are relative to the first of `folders` in which one of them exists. If none exists, or for
    an absolute path or one with "..", the longest trailing part that exists in one of the folders
    is used, the same for all names in a folder. Nothing outside `folders` is read: the file is None
    for an absolute path or one with ".." of which no part exists.
    """
    parts = {name: _split(str(name)) for name in names}
    relative = {name: path for name, path in parts.items() if _is_inside(path)}
    images: dict[str, tuple[str, AnyPath | None]] = {}
    if folder := _find_folder(folders, relative.values(), 0):
        images = {name: (str(name), folder.joinpath(*path)) for name, path in relative.items()}
    by_parent: dict[Parts, list[str]] = defaultdict(list)
    for name in parts.keys() - images.keys():
        by_parent[parts[name][:-1]].append(name)
    for parent, siblings in by_parent.items():
        paths = [parts[name] for name in siblings]
        for skipped in range(len(parent) + 1):
            if folder := _find_folder(folders, paths, skipped):
                for name in siblings:
                    path = parts[name][skipped:]
                    images[name] = "/".join(path), folder.joinpath(*path)
                break
    for name in parts.keys() - images.keys():
        inside = _is_inside(parts[name])
        images[name] = str(name), folders[0].joinpath(*parts[name]) if inside else None
    return images


def _split(name: str) -> Parts:
    return PurePosixPath(name.replace("\\", "/")).parts


def _is_inside(path: Parts) -> bool:
    """Return whether a path is relative and does not leave its folder; C: is a drive."""
    return (
        bool(path)
        and not any(part.startswith("/") or part == ".." for part in path)
        and (not (len(path[0]) == 2 and path[0].endswith(":")))
    )


def _find_folder(
    folders: Sequence[AnyPath], paths: Iterable[Parts], skipped: int
) -> AnyPath | None:
    """The first of `folders` in which one of the paths exists without its first parts."""
    trailing = [path[skipped:] for path in [*paths][:MAX_TRIED] if _is_inside(path[skipped:])]
    for path in trailing:
        for folder in folders:
            if existing_file(folder.joinpath(*path)):
                return folder
    return None
