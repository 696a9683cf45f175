"""Files that a command reads, and the names of what it writes for them."""

import os
from collections.abc import Iterable
from glob import glob
from pathlib import Path
from typing import NamedTuple

from tinyjax.config.paths import parse_local_path
from tinyjax.data import images, video
from tinyjax.data.layouts.listing import describe_unread, select_unread
from tinyjax.errors import UserError
from tinyjax.run.logs import log

SUFFIXES = images.SUFFIXES + video.SUFFIXES


class OutputPaths(NamedTuple):
    """Names of the input files and paths of their pictures."""

    root: str  # folder that contains all input files
    output: Path

    def name(self, file: Path) -> str:
        """Return the path of an input file below the root."""
        return Path(os.path.relpath(os.path.abspath(file), self.root)).as_posix()

    def picture(self, file: Path, suffix: str) -> Path:
        """Return the path of the picture or video of an input file."""
        return self.output / f"{self.name(file)}{suffix}"


def output_paths(files: Iterable[Path], output: Path) -> OutputPaths:
    """The outputs of input files; their root is the common parent folder."""
    folders = [os.path.dirname(os.path.abspath(file)) for file in files]
    return OutputPaths(os.path.commonpath(folders), output)


def find_files(sources: Iterable[str | Path], flag: str = "--input") -> list[Path]:
    """Return the image and video files of paths, folders (sorted by name) and patterns.

    A warning counts the files of types that are not read.

    Raises UserError for a source without any.
    """
    files: list[Path] = []
    for source in sources:
        path = parse_local_path(source)
        if path.is_file():
            files.append(path)
            continue
        paths = path.iterdir() if path.is_dir() else map(Path, glob(str(path), recursive=True))
        visible = sorted(p for p in paths if not p.name.startswith(".") and p.is_file())
        unread = describe_unread(select_unread((str(p), p) for p in visible if not is_video(p)))
        if not (matches := [p for p in visible if p.suffix.lower() in SUFFIXES]):
            problem = "no images" if path.is_dir() else "no such file or folder; no images match"
            hint = unread or f"known formats: {', '.join(SUFFIXES)}"
            if path.is_dir() and any(f.suffix.lower() in SUFFIXES for f in path.glob("*/*")):
                hint = f"its subfolders have some: give '{path}/*/*'"
            raise UserError(f"{flag} {path}: {problem}; {hint}")
        if unread:
            log.warning(f"{flag} {path}: {unread}")
        files += matches
    # Two threads must not write the same picture, and a link to a folder above repeats its files.
    unique: dict[Path, Path] = {}
    for file in sorted(files, key=lambda file: len(file.parts)):
        unique.setdefault(file.parent.resolve() / file.name, file)
    kept = {*unique.values()}
    return [file for file in dict.fromkeys(files) if file in kept]


def check_output(output: Path, files: Iterable[Path]) -> None:
    """Raise UserError if the output is not a folder, or contains input files."""
    if output.exists() and not output.is_dir():
        raise UserError(f"--output {output}: not a folder")
    for file in files:
        if output.resolve() in file.resolve().parents:
            raise UserError(f"--output {output}: contains the input {file}; give another folder")


def is_video(file: Path) -> bool:
    """Return whether a file has the suffix of a video."""
    return file.suffix.lower() in video.SUFFIXES
