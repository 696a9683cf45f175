"""Tiny visible-infrared sets, with the folders and file names of the published archives."""

import re
from pathlib import Path

import numpy as np

from tests.data.layouts.source_files import png, save
from tinyjax.data import recognition
from tinyjax.data.options import RecognitionOptions

HEIGHT, WIDTH = 12, 6
SYSU_IDS = {"train": (1, 2, 5), "val": (7, 9), "test": (6, 10, 11)}
# Cameras of identities that do not appear in all of the six.
SYSU_CAMERAS = {7: (3, 4, 5, 6), 9: (4, 5, 6), 10: (2, 3, 6), 11: (1, 4, 5, 6)}
SYSU_IMAGES = 12
LLCM_TEST_IDS = (714, 716)


def load_recognition(source, split, layout, **options):
    options = {"size": (HEIGHT, WIDTH), **options}
    return recognition.load(
        RecognitionOptions(source=source, split=split, layout=layout, **options)
    )


def picture(name: str, gray: bool = False) -> bytes:
    """Noise that depends on the name; an infrared file has one channel."""
    shape = (HEIGHT, WIDTH) if gray else (HEIGHT, WIDTH, 3)
    seed = [int(digits) for digits in re.findall(r"\d+", name)] or [0]
    return png(np.random.default_rng(seed).integers(0, 255, shape, np.uint8))


def write_images(root: Path, names: list[str], gray: bool) -> None:
    for name in names:
        save(root / name, picture(name, gray))


def sysu(root: Path) -> None:
    """SYSU-MM01: `SYSU_IMAGES` images by each camera of an identity."""
    for split, ids in SYSU_IDS.items():
        save(root / "exp" / f"{split}_id.txt", ",".join(map(str, ids)) + "\n")
        for identity in ids:
            for camera in SYSU_CAMERAS.get(identity, range(1, 7)):
                names = [f"cam{camera}/{identity:04d}/{k:04d}.jpg" for k in range(1, 13)]
                write_images(root, names, camera in (3, 6))
    (root / "cam1" / "0500").mkdir()  # an identity in no list
    save(root / "cam1" / "0500" / "0001.jpg", picture("500"))


def regdb(root: Path, infrared: str = "Thermal", trials: int = 2, images: int = 3) -> None:
    """RegDB: six identities, three of each trial for training."""
    for modality in ("Visible", infrared):
        for identity in range(1, 7):
            letter = modality[0].lower()
            names = [f"{modality}/{identity}/m_front_{letter}_{k}.bmp" for k in range(images)]
            write_images(root, names, modality != "Visible")
        for trial in range(1, trials + 1):
            for split, first in (("train", trial), ("test", trial + 3)):
                lines = [
                    f"{modality}/{(identity - 1) % 6 + 1}/m_front_{modality[0].lower()}_{k}.bmp {n}"
                    for n, identity in enumerate(range(first, first + 3))
                    for k in range(images)
                ]
                save(root / "idx" / f"{split}_{modality.lower()}_{trial}.txt", "\n".join(lines))


def llcm(root: Path) -> None:
    """LLCM: cameras 1 to 3, two images of each test identity and camera."""
    save(root / "idx" / "test_id.txt", ",".join(map(str, LLCM_TEST_IDS)))
    for folder, cameras in (("vis", (1, 2, 3)), ("nir", (1, 2))):
        for camera in cameras:
            for identity in LLCM_TEST_IDS:
                names = [f"test_{folder}/cam{camera}/{identity:04d}/{k}.jpg" for k in range(2)]
                write_images(root, names, folder == "nir")
        names = [
            f"{folder}/{n:04d}/{n:04d}_c0{n}_s{k}_{folder}.jpg" for n in (1, 2) for k in (5, 6)
        ]
        write_images(root, names, folder == "nir")
        lines = [f"{name} {int(name.split('/')[1]) - 1}" for name in names]
        save(root / "idx" / f"train_{folder}.txt", "\n".join(lines))


def pairs(root: Path, identities: int = 8, visible: str = "visible", nir: str = "infrared") -> None:
    """Two images of each identity and modality; 0 of one and 0 of the other are of one moment."""
    for modality in (visible, nir):
        for identity in range(identities):
            names = [f"{modality}/cow{identity}/IMG_{k}_{modality}.png" for k in range(2)]
            write_images(root, names, modality == nir)
