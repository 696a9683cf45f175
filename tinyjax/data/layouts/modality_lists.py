"""Visible-infrared sets with a list of images for each modality, lines of "<path> <label>".

RegDB as it unpacks, with ten trials, each with its own training and test identities:

    Visible/<id>/*.bmp, Thermal/<id>/*.bmp
    idx/{train,test}_{visible,thermal}_{1..10}.txt

Faces, Oulu-CASIA and BUAA-VisNir: there is no common layout, and published divisions differ. Ours:

    {train,test}_{visible,infrared}.txt

Lists are in the set's folder, in idx/ or in exp/. An infrared list or folder may also be named
thermal, nir or ir, a visible one vis or rgb.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import PurePosixPath

from tinyjax.data.layouts.identity_images import (
    MODALITY_NAMES,
    IdentityImage,
    NoSplit,
    text_files,
)
from tinyjax.data.layouts.listing import candidate_roots, join_inside, read_text
from tinyjax.data.modality import INFRARED, VISIBLE
from tinyjax.data.sources import AnyPath
from tinyjax.errors import UserError, suggest

LINE = re.compile(r"\s*(.+?)\s+(\d+)\s*")
CAMERAS = {VISIBLE: 1, INFRARED: 2}
LIST_SPLITS = ("train", "test")


def read_regdb(root: AnyPath, split: str, trial: int) -> list[IdentityImage]:
    """The images of a split of RegDB. Raises UserError that names the missing lists."""
    lists = find_lists(root, split, f"_{trial}")
    if lists is None:
        known = sorted(
            {
                int(match[1])
                for data_dir in candidate_roots(root)
                for name in text_files(data_dir)
                if (match := re.fullmatch(rf"{re.escape(split)}_\w+_(\d+)\.txt", name))
            }
        )
        trials = ", ".join(map(str, known))
        advice = f"trials with lists: {trials}"
        if not known:
            advice = "give the folder of RegDB as it unpacks, with Visible/, Thermal/ and idx/"
        if split not in LIST_SPLITS:
            advice = suggest(split, LIST_SPLITS)
        raise NoSplit(
            f"{root}: no lists of split {split!r}, trial {trial}: "
            f"idx/{split}_visible_{trial}.txt and idx/{split}_thermal_{trial}.txt; {advice}"
        )
    return read_lists(*lists)


def find_lists(
    root: AnyPath, split: str, suffix: str = ""
) -> tuple[AnyPath, dict[int, AnyPath]] | None:
    """The set's folder and modality -> list, named <split>_<modality><suffix>.txt; None if one of
    the two lists is missing.
    """
    for data_dir in candidate_roots(root):
        by_name = {name.lower(): file for name, file in text_files(data_dir).items()}
        lists = {
            modality: by_name[name]
            for modality, names in MODALITY_NAMES.items()
            for name in (f"{split}_{alias}{suffix}.txt".lower() for alias in reversed(names))
            if name in by_name
        }
        if len(lists) == len(MODALITY_NAMES):
            return data_dir, lists
    return None


def read_lists(data_dir: AnyPath, lists: Mapping[int, AnyPath]) -> list[IdentityImage]:
    """The images of lists by modality; paths are relative to `data_dir`.

    An identity has the name of its images' folder, by which it is recognized in other lists, if
    folders and labels correspond to each other; else the name "<list>: label <n>", because the
    labels of each list begin at 0.

    Raises UserError for a line of another form, and for an image that is listed twice.
    """
    rows: list[tuple[int, str, str]] = []  # modality, path, label
    positions: dict[str, str] = {}
    for modality, file in lists.items():
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            if not line.strip():
                continue
            position = f"{file}, line {number}"
            if not (match := LINE.fullmatch(line)):
                raise UserError(f'{position}: {line!r}; give "<path> <label>", such as a/1.bmp 0')
            path = match[1].replace("\\", "/")
            if path in positions:
                raise UserError(f"{position}: {path} is listed before, in {positions[path]}")
            positions[path] = position
            rows.append((modality, path, match[2]))
    if not rows:
        raise UserError(f"{', '.join(map(str, lists.values()))}: no image is listed")
    stem = next(iter(lists.values())).name.removesuffix(".txt")
    names = _identity_names([(path, label) for _, path, label in rows], stem)
    return [
        IdentityImage(
            join_inside(data_dir, path, positions[path]),
            path,
            names[label],
            modality,
            CAMERAS[modality],
        )
        for modality, path, label in rows
    ]


def _identity_names(rows: list[tuple[str, str]], list_name: str) -> dict[str, str]:
    """Label -> name of its identity, for rows of (path, label) of a list."""
    folders, labels = defaultdict(set), defaultdict(set)
    for path, label in rows:
        folder = PurePosixPath(path).parent.name
        folders[label].add(folder)
        labels[folder].add(label)
    if all(len(names) == 1 for names in (*folders.values(), *labels.values())):
        return {label: folder for label, (folder,) in folders.items()}
    return {label: f"{list_name}: label {label}" for label in folders}
