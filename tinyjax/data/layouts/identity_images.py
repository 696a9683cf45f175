"""The common form of visible-infrared layouts: images with identity, modality and camera."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from tinyjax.data.layouts.listing import list_files, list_folders
from tinyjax.data.modality import INFRARED, VISIBLE
from tinyjax.data.sources import AnyPath, ImageFile
from tinyjax.errors import UserError

# Names of folders and lists, in lower case.
MODALITY_NAMES = {
    VISIBLE: ("visible", "vis", "rgb"),
    INFRARED: ("infrared", "thermal", "nir", "ir"),
}
LIST_FOLDERS = ("idx", "exp")


class IdentityImage(NamedTuple):
    file: ImageFile
    name: str  # path in the data set
    identity: str
    modality: int  # VISIBLE or INFRARED
    camera: int
    # Images of an identity with one capture are not compared; "": an image by itself.
    capture: str = ""


def modality_folders(folder: AnyPath) -> dict[int, AnyPath]:
    """Modality -> its subfolder of `folder`, if there is one."""
    folders = {subfolder.name.lower(): subfolder for subfolder in reversed(list_folders(folder))}
    return {
        modality: folders[name]
        for modality, names in MODALITY_NAMES.items()
        for name in reversed(names)
        if name in folders
    }


def text_files(data_dir: AnyPath) -> dict[str, AnyPath]:
    """The .txt files of a data set's folder and of its subfolders `LIST_FOLDERS`, by name."""
    folders = [data_dir, *(data_dir / name for name in LIST_FOLDERS)]
    return {file.name: file for folder in folders for file in list_files(folder, ".txt")}


class NoSplit(UserError):
    """A data set does not have a split."""


def hold_out(
    identities: Iterable[str], fraction: float, seed: Sequence[int], option: str, least: int = 1
) -> set[str]:
    """A random `fraction` of the identities, at least one and not all.

    It depends on the set of identities and the seed. option: the name of `fraction` in messages.
    least: their minimum number, if this is at most half of the identities.

    Raises UserError if `fraction` is not between 0 and 1, or with fewer than two identities.
    """
    names = sorted({*identities})
    if not 0 < fraction < 1:
        raise UserError(f"{option} = {fraction}: give a number between 0 and 1")
    if len(names) < 2:
        raise UserError(
            f"{option} = {fraction}: {len(names)} identity cannot be divided; the set needs more"
        )
    least = min(least, len(names) // 2)
    count = min(max(round(fraction * len(names)), least), len(names) - 1)
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[k] for k in order[:count]}
