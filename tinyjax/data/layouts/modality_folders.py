"""Visible-infrared sets with a folder for each modality and identity.

Pairs of folders:

    visible/<id>/*.png, infrared/<id>/*.png
    {train,val,test}_id.txt         names of identities, separated by commas or lines; optional

Without these lists, identities are divided at random. Faces, where there are no lists of images:

    <any>train/{visible,infrared}/<id>/*.png, <any>test/..., such as Oulu_20Class_train

This layout of faces is ours: none is published. Folders of a modality may have the other names of
`MODALITY_NAMES`, in any case.
"""

from collections.abc import Iterator
from itertools import combinations

from tinyjax.data.images import SUFFIXES
from tinyjax.data.layouts.identity_images import (
    MODALITY_NAMES,
    IdentityImage,
    NoSplit,
    hold_out,
    modality_folders,
    text_files,
)
from tinyjax.data.layouts.listing import candidate_roots, list_folders, read_text, walk_files
from tinyjax.data.layouts.modality_lists import CAMERAS, LIST_SPLITS, find_lists, read_lists
from tinyjax.data.modality import INFRARED, VISIBLE
from tinyjax.data.sources import AnyPath
from tinyjax.errors import UserError, shorten, suggest


def read_pairs(root: AnyPath, split: str, test_fraction: float, seed: int) -> list[IdentityImage]:
    """The images of a split of paired folders: the identities of its list or, without lists,
    `test_fraction` of all for "test" and the others for "train".

    Raises UserError for a missing folder or list, and an identity in two lists.
    """
    data_dir = next(_paired_folders(root), None)
    if data_dir is None:
        raise UserError(f"{root}: {_missing_folders(root)}")
    images = _read_modalities(data_dir)
    if lists := _identity_lists(data_dir):
        if split not in lists:
            raise NoSplit(
                f"{root}: no list {split}_id.txt; {suggest(split, lists)}. Without any list, "
                "identities are divided at random"
            )
        known = {image.identity for image in images}
        if absent := sorted(lists[split] - known):
            raise UserError(
                f"{root}: {split}_id.txt names {len(absent)} identities without a folder "
                f"({shorten(absent)})"
            )
        return [image for image in images if image.identity in lists[split]]
    if split not in LIST_SPLITS:
        raise NoSplit(f"{root}: no split {split!r}; {suggest(split, LIST_SPLITS)}")
    test = hold_out((image.identity for image in images), test_fraction, (seed, 0), "test_fraction")
    return [image for image in images if (image.identity in test) == (split == "test")]


def read_faces(root: AnyPath, split: str) -> list[IdentityImage]:
    """The images of a split of a face set, by lists of images or else by folders.

    Raises UserError that names what is missing.
    """
    if lists := find_lists(root, split):
        return read_lists(*lists)
    for data_dir in candidate_roots(root):
        if data_dir.name.lower().endswith(split) and len(modality_folders(data_dir)) == 2:
            return _read_modalities(data_dir)
    raise NoSplit(
        f"{root}: no split {split!r}: missing {split}_visible.txt or {split}_infrared.txt (lines "
        f"of <path> <label>), and no folders {split}/visible/<id> and {split}/infrared/<id>"
    )


def _paired_folders(root: AnyPath) -> Iterator[AnyPath]:
    return (folder for folder in candidate_roots(root) if len(modality_folders(folder)) == 2)


def _missing_folders(root: AnyPath) -> str:
    existing = {
        modality for folder in candidate_roots(root) for modality in modality_folders(folder)
    }
    missing = [MODALITY_NAMES[m][0] for m in (VISIBLE, INFRARED) if m not in existing]
    folders = " and ".join(f"{name}/<id>/*.png" for name in missing or ("visible", "infrared"))
    return f"no folders {folders} side by side; give the folder that contains visible and infrared"


def _read_modalities(folder: AnyPath) -> list[IdentityImage]:
    """The images of <modality>/<id>, with the subfolders of an identity."""
    images = [
        IdentityImage(
            file,
            f"{modality_folder.name}/{identity.name}/{path}",
            identity.name,
            modality,
            CAMERAS[modality],
        )
        for modality, modality_folder in modality_folders(folder).items()
        for identity in list_folders(modality_folder)
        for path, file in walk_files(identity, SUFFIXES)
    ]
    for modality, modality_folder in modality_folders(folder).items():
        if not any(image.modality == modality for image in images):
            raise UserError(f"{modality_folder}: no images in folders <id>/")
    return images


def _identity_lists(data_dir: AnyPath) -> dict[str, set[str]]:
    """Split -> names of its identities, by the lists <split>_id.txt.

    Raises UserError for an identity in two of them.
    """
    suffix = "_id.txt"
    lists = {
        name.removesuffix(suffix): {
            field.strip() for field in read_text(file).replace("\n", ",").split(",")
        }
        - {""}
        for name, file in text_files(data_dir).items()
        if name.endswith(suffix)
    }
    for one, other in combinations(sorted(lists), 2):
        if shared := sorted(lists[one] & lists[other]):
            raise UserError(
                f"{data_dir}: {one}_id.txt and {other}_id.txt share {len(shared)} identities "
                f"({shorten(shared)}); name each in one list"
            )
    return lists
