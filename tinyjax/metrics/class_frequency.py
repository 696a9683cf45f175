"""The long tail: how a class's average precision goes with the number of its training examples."""

from collections.abc import Mapping

import numpy as np

from tinyjax.data.records import Split

# By images of training that show the class: rare, common and frequent of LVIS (arXiv 1908.03195).
GROUPS = {"APr": (0, 10), "APc": (10, 100), "APf": (100, np.inf)}

Counts = Mapping[str, tuple[int, int]]  # class -> images and objects of training


def counts(split: Split, used: np.ndarray) -> dict[str, tuple[int, int]]:
    """Of each class the images and the objects in a training set. used: bool [N], its images."""
    found = {}
    for k, name in enumerate(split.classes):
        objects = ((split.labels == k) & split.valid)[used].sum(1)
        found[name] = int((objects > 0).sum()), int(objects.sum())
    return found


def groups(training: Counts, scores: Mapping[str, float]) -> dict[str, float]:
    """Mean AP of the rare, common and frequent classes; NaN of none. Classes that a suite has no
    object of do not count.

    scores: what `score` returns.
    """
    found = {}
    for group, (least, most) in GROUPS.items():
        own = [scores[f"AP/{name}"] for name, (n, _) in training.items() if least <= n < most]
        there = [value for value in own if not np.isnan(value)]
        found[group] = float(np.mean(there)) if there else float("nan")
    return found
