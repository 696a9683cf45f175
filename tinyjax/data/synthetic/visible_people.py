"""Synthetic people as classes, seen only by visible cameras: images to pretrain recognition on."""

import numpy as np

from tinyjax.data.modality import VISIBLE
from tinyjax.data.records import ClassificationSplit
from tinyjax.data.synthetic import identities
from tinyjax.data.synthetic.identities import CAMERA_MODALITIES, STRENGTHS
from tinyjax.errors import UserError, suggest

__all__ = ["SPLITS", "STRENGTHS", "load"]

SPLITS = ("train", "test")  # other images of the same people
TEST_FRACTION = 0.25  # of a camera's images of a person, at least one


def load(
    n: int,
    split: str = "train",
    per_camera: int = 8,
    size: tuple[int, int] = (64, 32),
    seed: int = 0,
    **strengths: float,
) -> ClassificationSplit:
    """Generate the visible images of people 0..n-1, each a class, uint8 [N, H, W, 3].

    They are the identities of the split "pretrain" of `identities.load` with the same seed: no
    split for recognition has them.

    Args:
        n: number of people.
        split: of SPLITS; "test" has the last quarter of each camera's images.
        per_camera: images of a person by each of the four visible cameras in both splits, at
            least 2.
        size, strengths: see `identities.load`.

    Raises UserError for an unknown split, a number out of range, and as `identities.load` does.
    """
    if split not in SPLITS:
        raise UserError(f"synthetic people: no split {split!r}; {suggest(split, SPLITS)}")
    if per_camera < 2:
        raise UserError(
            f"synthetic people: per_camera = {per_camera}; give 2 or more, images of both splits"
        )
    people = identities.load(n, "pretrain", (per_camera, 0), size, seed, **strengths)
    cameras = CAMERA_MODALITIES.count(VISIBLE)
    number = np.tile(np.arange(per_camera), n * cameras)  # of an image among those of its camera
    is_test = number >= per_camera - max(1, round(TEST_FRACTION * per_camera))
    rows = np.flatnonzero(is_test == (split == "test"))
    return ClassificationSplit(
        inputs={"image": people.inputs["image"][rows]},
        labels=people.labels[rows],
        names=tuple(people.names[i] for i in rows),
        classes=people.classes,
    )
