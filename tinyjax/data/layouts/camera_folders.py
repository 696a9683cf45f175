"""Visible-infrared sets with a folder for each camera and lists of identities.

SYSU-MM01 as it unpacks (github.com/wuancong/SYSU-MM01):

    cam1/0001/0001.jpg              cameras 1, 2, 4, 5 are visible, 3 and 6 infrared
    exp/{train,val,test}_id.txt     comma-separated numbers

LLCM (github.com/ZYK100/LLCM):

    test_{vis,nir}/cam1/0001/*.jpg  no camera 3 in test_nir
    idx/test_id.txt                 comma-separated numbers
    idx/train_{vis,nir}.txt         lines of "<path> <label>"
"""

import re
from collections.abc import Iterable

from tinyjax.data.layouts.identity_images import IdentityImage, NoSplit
from tinyjax.data.layouts.listing import candidate_roots, list_folders, list_images, read_text
from tinyjax.data.layouts.modality_lists import read_lists
from tinyjax.data.modality import INFRARED, VISIBLE
from tinyjax.data.sources import AnyPath
from tinyjax.errors import UserError, shorten, suggest

SYSU_MODALITIES = {1: VISIBLE, 2: VISIBLE, 3: INFRARED, 4: VISIBLE, 5: VISIBLE, 6: INFRARED}
SYSU_SPLITS = {
    "train": ("train",),
    "val": ("val",),
    "test": ("test",),
    "trainval": ("train", "val"),  # AGW and most other methods train on both
}
LLCM_FOLDERS = {"test_vis": VISIBLE, "test_nir": INFRARED}
LLCM_CAMERA = re.compile(r"(?:cam|_c)0*(\d+)")


def read_sysu(root: AnyPath, split: str) -> list[IdentityImage]:
    """The images of a split of SYSU-MM01. Raises UserError that names what is missing."""
    if split not in SYSU_SPLITS:
        raise UserError(f"{root}: no split {split!r} of SYSU-MM01; {suggest(split, SYSU_SPLITS)}")
    lists = [f"exp/{name}_id.txt" for name in SYSU_SPLITS[split]]
    folders = [f"cam{camera}" for camera in SYSU_MODALITIES]
    data_dir = _find_set(root, "SYSU-MM01", [*folders, *lists])
    _check_subfolders(data_dir, folders, "identities, such as 0001")
    identities = {f"{k:04d}" for name in lists for k in _read_numbers(data_dir / name)}
    images = [
        IdentityImage(
            file, f"{folder}/{identity.name}/{file.name}", identity.name, modality, camera
        )
        for folder, (camera, modality) in zip(folders, SYSU_MODALITIES.items(), strict=True)
        for identity in list_folders(data_dir / folder)
        if identity.name in identities
        for file in list_images(identity)
    ]
    _check_identities(data_dir, lists, identities, images)
    return images


def read_llcm(root: AnyPath, split: str) -> list[IdentityImage]:
    """The images of a split of LLCM. Raises UserError that names what is missing.

    An identity's images of one camera are one capture: LLCM does not compare them. The form of the
    names in the training lists is not documented; without a camera in its name, an image has
    camera 0.
    """
    if split == "train":
        lists = {VISIBLE: ("idx/train_vis.txt",), INFRARED: ("idx/train_nir.txt",)}
        data_dir = _find_set(root, "LLCM", [name for names in lists.values() for name in names])
        files = {modality: data_dir / name for modality, (name,) in lists.items()}
        return [
            image._replace(camera=int(match[1]) if (match := LLCM_CAMERA.search(image.name)) else 0)
            for image in read_lists(data_dir, files)
        ]
    if split != "test":
        raise NoSplit(f"{root}: no split {split!r} of LLCM; {suggest(split, ('train', 'test'))}")
    list_name = "idx/test_id.txt"
    data_dir = _find_set(root, "LLCM", [*LLCM_FOLDERS, list_name])
    _check_subfolders(data_dir, LLCM_FOLDERS, "cameras, such as cam1")
    identities = {f"{k:04d}" for k in _read_numbers(data_dir / list_name)}
    images = [
        IdentityImage(
            file,
            f"{folder}/{camera.name}/{identity.name}/{file.name}",
            identity.name,
            modality,
            int(match[1]),
            capture=camera.name,
        )
        for folder, modality in LLCM_FOLDERS.items()
        for camera in list_folders(data_dir / folder)
        if (match := LLCM_CAMERA.fullmatch(camera.name))
        for identity in list_folders(camera)
        if identity.name in identities
        for file in list_images(identity)
    ]
    _check_identities(data_dir, [list_name], identities, images)
    return images


def _find_set(root: AnyPath, title: str, required: list[str]) -> AnyPath:
    """The folder with most of the required files and folders.

    Raises UserError that names the missing ones.
    """
    best, fewest = root, required
    for data_dir in candidate_roots(root):
        missing = [name for name in required if not (data_dir / name).exists()]
        if not missing:
            return data_dir
        if len(missing) < len(fewest):
            best, fewest = data_dir, missing
    raise UserError(
        f"{best}: {title} has {', '.join(required)}, as it unpacks; missing here: "
        f"{', '.join(fewest)}"
    )


def _read_numbers(file: AnyPath) -> list[int]:
    """The identities of a list: comma-separated numbers."""
    fields = read_text(file).replace("\n", ",").split(",")
    fields = [field.strip() for field in fields if field.strip()]
    wrong = [field for field in fields if not field.isdecimal()]
    if wrong or not fields:
        content = shorten(map(repr, wrong)) if wrong else "no number"
        raise UserError(f"{file}: {content}; give comma-separated numbers, such as 1,2,4")
    return [int(field) for field in fields]


def _check_subfolders(data_dir: AnyPath, folders: Iterable[str], content: str) -> None:
    if empty := [name for name in folders if not list_folders(data_dir / name)]:
        raise UserError(f"{data_dir}: {', '.join(empty)} without folders of {content}")


def _check_identities(
    data_dir: AnyPath, lists: list[str], identities: set[str], images: list[IdentityImage]
) -> None:
    if absent := sorted(identities - {image.identity for image in images}):
        raise UserError(
            f"{data_dir}: {len(absent)} of {len(identities)} identities in {', '.join(lists)} have "
            f"no image in any camera ({shorten(absent)}); unpack the set again"
        )
