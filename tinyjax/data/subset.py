"""A part of a training set, as a function of seed: for members that learn from less."""

from collections.abc import Sequence

import numpy as np


def subset(labels: Sequence[np.ndarray], seed: int, fraction: float, shots: int) -> np.ndarray:
    """Which images of a set are used: bool [N].

    With the same seed a smaller fraction is part of a larger one, and fewer shots of more.

    Args:
        labels: of each image the classes it shows, an entry for each object.
        seed: of the order in which images are taken.
        fraction: of the images, above 0 to 1; at least one is taken.
        shots: an image is then passed over if the ones before it show every class that is in it so
            many times already; 0: none is.
    """
    order = np.random.Generator(np.random.Philox(key=seed)).permutation(len(labels))
    order = order[: max(1, round(fraction * len(labels)))]
    if shots:
        count: dict[int, int] = {}
        taken = []
        for i in order:
            if any(count.get(label, 0) < shots for label in labels[i].tolist()):
                taken.append(i)
                for label in labels[i].tolist():
                    count[label] = count.get(label, 0) + 1
        order = np.array(taken, int)
    used = np.zeros(len(labels), bool)
    used[order] = True
    return used
