"""Random subsets of a training set, for members that train on less data."""

from collections.abc import Sequence

import numpy as np


def draw_subset(labels: Sequence[np.ndarray], seed: int, fraction: float, shots: int) -> np.ndarray:
    """Draw the images to train on: bool [N].

    With the same seed, the subset of a smaller fraction, or of fewer shots, is contained in that of
    a larger one.

    Args:
        labels: for each image the classes of its objects, one entry per object.
        seed: of the random order in which images are taken.
        fraction: of the images, in (0, 1]; at least one image is taken.
        shots: skip an image if each of its classes already has this many objects in earlier
            images; 0: skip none.
    """
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(labels))
    order = order[: max(1, round(fraction * len(labels)))]
    if shots:
        counts: dict[int, int] = {}
        taken = []
        for i in order:
            if any(counts.get(label, 0) < shots for label in labels[i].tolist()):
                taken.append(i)
                for label in labels[i].tolist():
                    counts[label] = counts.get(label, 0) + 1
        order = np.array(taken, int)
    mask = np.zeros(len(labels), bool)
    mask[order] = True
    return mask
