"""Average precision of classes grouped by the number of their training examples."""

from collections.abc import Mapping

import numpy as np

from tinyjax.data.records import DetectionSplit

# Ranges of a class's number of training images: rare, common and frequent classes as in LVIS (arXiv
# 1908.03195).
GROUPS = {"APr": (0, 10), "APc": (10, 100), "APf": (100, np.inf)}

ClassCounts = Mapping[str, tuple[int, int]]  # class -> number of training images and objects


def class_counts(split: DetectionSplit, mask: np.ndarray) -> dict[str, tuple[int, int]]:
    """Return the number of images and objects of each class.

    mask: bool [N], the images to count.
    """
    image, slot = np.nonzero(split.valid & mask[:, None])
    labels, count = split.labels[image, slot], len(split.classes)
    objects = np.bincount(labels, minlength=count)
    images = np.bincount(np.unique(image * count + labels) % count, minlength=count)
    return dict(
        zip(split.classes, zip(images.tolist(), objects.tolist(), strict=True), strict=True)
    )


def scores_by_frequency(class_counts: ClassCounts, scores: Mapping[str, float]) -> dict[str, float]:
    """Return the mean AP of rare, common and frequent classes; NaN for a group without classes.

    Classes without objects in the suite are ignored. scores: see `detection.score`.
    """
    result = {}
    for group, (min_images, max_images) in GROUPS.items():
        values = np.array(
            [
                scores[f"AP/{name}"]
                for name, (images, _) in class_counts.items()
                if min_images <= images < max_images
            ]
        )
        valid = values[~np.isnan(values)]
        result[group] = float(np.mean(valid)) if len(valid) else float("nan")
    return result
