"""Divide images into splits. Frames of one sequence, recognized by their names, stay together."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np

from tinyjax.errors import UserError

SPLITS = ("train", "val", "test")
LABEL_STUDIO_PREFIX = re.compile(r"^[0-9a-f]{8}-")  # random; precedes the name of the upload
ROBOFLOW_SUFFIX = re.compile(r"_(jpe?g|png|bmp|tiff?|webp)\.rf\.\w+$", re.IGNORECASE)
FINAL_NUMBER = re.compile(r"\d+$")


class Division(NamedTuple):
    """Splits of some images."""

    splits: np.ndarray  # int [N]: index of each image's split
    num_groups: int
    contiguous: bool  # too few groups: the splits are blocks of consecutive frames


def parse_fractions(text: str) -> tuple[float, ...]:
    """The fractions of train, val and, if there is a third, test.

    Raises UserError unless they are two or three positive numbers with the sum 1.
    """
    try:
        fractions = tuple(float(number) for number in text.split(","))
    except ValueError:
        fractions = ()
    positive = all(fraction > 0 for fraction in fractions)  # not NaN
    if len(fractions) not in (2, 3) or not positive or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(
            f"--split {text}: give the fractions of train, val and, if wanted, test, such as "
            "0.8,0.2; their sum is 1 (--only NAME selects a split)"
        )
    return fractions


def divide(names: Sequence[str], fractions: Sequence[float], seed: int) -> Division:
    """Assign images to splits, independently of the order of `names`.

    A group is in one split: images whose names differ only in their final number, or that Roboflow
    made from one image. Groups are assigned in random order, the largest first, to the split that
    lacks most images. With fewer groups than splits, the images are cut into blocks in order of
    name and number instead.

    Args:
        names: file names with subfolders, such as "a/seq1_0012.jpg".
        fractions: of the images, by split; the sum is 1.
        seed: of the order of the groups.

    Raises UserError if there are fewer images than splits.
    """
    if len(names) < len(fractions):
        raise UserError(f"{len(names)} images cannot be divided into {len(fractions)} splits")
    groups: dict[str, list[tuple[int, str, int]]] = defaultdict(list)
    for index, name in enumerate(names):
        group, number = parse_name(name)
        groups[group].append((number, name, index))
    ordered = [[index for *_, index in sorted(groups[group])] for group in sorted(groups)]
    splits = np.zeros(len(names), int)
    targets = len(names) * np.asarray(fractions)
    if contiguous := len(groups) < len(fractions):
        sequence = np.concatenate(ordered)
        # Each split has an image.
        starts = np.cumsum(targets).round().astype(int)[:-1]
        low = np.arange(1, len(fractions))
        starts = np.clip(starts, low, len(names) - len(fractions) + low)
        for split, block in enumerate(np.split(sequence, starts)):
            splits[block] = split
        return Division(splits, len(groups), contiguous)
    order = np.random.default_rng(seed).permutation(len(ordered))
    counts = np.zeros(len(fractions))
    for position, k in enumerate(sorted(order, key=lambda k: -len(ordered[k]))):
        lacking = targets - counts
        if (counts == 0).sum() >= len(ordered) - position:  # the last groups fill empty splits
            lacking[counts > 0] = -np.inf
        split = int(np.argmax(lacking))
        splits[ordered[k]] = split
        counts[split] += len(ordered[k])
    return Division(splits, len(groups), contiguous)


def parse_name(name: str) -> tuple[str, int]:
    """The group of an image, and its number in it; -1 if the name does not end in a number.

    "a/seq1_0012.jpg" -> ("a/seq1_", 12). What Label Studio and Roboflow add to names is left out.
    """
    path = PurePosixPath(name)
    stem = LABEL_STUDIO_PREFIX.sub("", ROBOFLOW_SUFFIX.sub("", path.stem))
    prefix = FINAL_NUMBER.sub("", stem)
    number = int(stem[len(prefix) :]) if prefix != stem else -1
    return f"{path.parent}/{prefix}", number
