"""Scores of a classifier, on the host."""

import numpy as np

from tinyjax.metrics.robustness import calibration_error


def score(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracies, 0 to 1. An image whose true logit is tied with another, or NaN, counts as wrong.

    logits: float32 [N, classes]. labels: int32 [N].

    Returns "mean_class" (accuracy per class, averaged over the classes that have images, so that a
    large class does not dominate), "top1", "top5" (1 with five classes or fewer) and "images".
    """
    true_logit = logits[np.arange(len(labels)), labels]
    # "Not below" instead of "above": ties and NaN rank before the truth, so that a network with
    # constant or NaN outputs is wrong.
    rank = (~(logits < true_logit[:, None])).sum(1) - 1
    return {
        "mean_class": float(np.nanmean(per_class_accuracy(logits, labels))),
        "top1": float((rank < 1).mean()),
        "top5": float((rank < 5).mean()),
        "images": float(len(labels)),
    }


def per_class_accuracy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 [classes]: fraction of each class's images predicted right; NaN without images."""
    counts = confusion_matrix(logits, labels)
    total = counts.sum(1)
    return np.where(total > 0, np.diag(counts) / np.maximum(total, 1), np.nan)


def resampled_scores(logits: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean per-class accuracy on resampled images, float32 [B].

    counts: int [B, N], how often each resample contains each image. A class without images in a
    resample does not count there.
    """
    correct = predicted_classes(logits, labels) == labels
    one_hot = labels[:, None] == np.arange(logits.shape[1])  # image class
    total = counts @ one_hot
    num_correct = counts @ (one_hot & correct[:, None])
    known = total > 0
    accuracy = np.where(known, num_correct / np.maximum(total, 1), 0)
    return (accuracy.sum(1) / np.maximum(known.sum(1), 1)).astype(np.float32)


def calibration(logits: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error over images with finite logits, see `calibration_error`."""
    finite = np.isfinite(logits).all(1)
    logits, labels = logits[finite].astype(np.float64), labels[finite]
    weights = np.exp(logits - logits.max(1, keepdims=True, initial=-np.inf))
    confidence = weights.max(1, initial=0) / weights.sum(1)
    return calibration_error(confidence, predicted_classes(logits, labels) == labels)


def confusion_matrix(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """int64 [classes, classes]: number of images of class i (row) predicted as class j."""
    classes = logits.shape[1]
    pairs = labels.astype(np.int64) * classes + predicted_classes(logits, labels)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def predicted_classes(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """int [N]: class with the highest logit.

    In a tie with the true class, the other class is predicted; NaN counts as the highest logit.
    """
    rows = np.arange(len(labels))
    others = np.maximum(logits, np.finfo(logits.dtype).min)  # above the removed -inf
    others[rows, labels] = -np.inf
    correct = logits[rows, labels] > others.max(1)
    return np.where(correct, labels, others.argmax(1))
