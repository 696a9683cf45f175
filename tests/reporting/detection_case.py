"""A small detection split with predictions whose errors are known."""

import numpy as np

from tinyjax.data.records import Objects, build_split
from tinyjax.metrics import detection_errors


def make_case(classes, images=3, seed=0, value=None):
    """A split with two objects of each class per image, and predictions for it.

    The first object of each class is detected, the second is missed; its prediction is false.
    value: score of all predictions.
    """
    rng = np.random.default_rng(seed)
    pixels = [rng.integers(0, 255, (64, 96, 1), np.uint8) for _ in range(images)]
    infos = [{"file_name": f"{i}.png", "width": 96, "height": 64} for i in range(images)]
    n = len(classes)
    corner = rng.uniform(0, 40, (images, 2 * n, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(6, 20, (images, 2 * n, 2))], -1)
    label = np.repeat(np.arange(n), 2)
    area = np.prod(boxes[..., 2:] - boxes[..., :2], -1)
    objects = [Objects(boxes[i], label, np.zeros(2 * n, bool), area[i]) for i in range(images)]
    split = build_split(
        pixels, objects, infos, classes, np.ones((images, 2)), np.zeros((images, 2))
    )
    guess = boxes.copy()
    guess[:, 1::2] += 500
    scores = np.tile(np.where(label % 2, 0.6, 0.4) + np.tile([0.2, -0.1], n), (images, 1))
    scores = scores if value is None else np.full_like(scores, value)
    predictions = {"boxes": guess, "scores": scores, "labels": np.tile(label, (images, 1))}
    return split, predictions


def make_matched_case(classes=("person", "car")):
    """A split, its predictions, and their matches."""
    split, predictions = make_case(classes)
    return split, predictions, detection_errors.match(predictions, split.truth)
