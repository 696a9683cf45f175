"""Scores of a classifier, on the host."""

import numpy as np

from tinyjax.metrics.robustness import calibration_error


def score(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracies, 0 to 1.

    logits: float32 [N, classes]. labels: int32 [N]. Returns "mean_class", the mean over the classes
    that are there of the part that is found of each (which a large class does not decide), "top1",
    "top5" (of five classes or fewer that is 1) and "images". A tie with the truth counts as wrong,
    and so does NaN.
    """
    own = logits[np.arange(len(labels)), labels]
    # What is not below the truth stands before it: a network that says nothing, or NaN, is wrong.
    rank = (~(logits < own[:, None])).sum(1) - 1
    return {
        "mean_class": float(np.nanmean(per_class(logits, labels))),
        "top1": float((rank < 1).mean()),
        "top5": float((rank < 5).mean()),
        "images": float(len(labels)),
    }


def per_class(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """float64 [classes]: of each class the part that is found; NaN for one without an image."""
    counts = confusion(logits, labels)
    total = counts.sum(1)
    return np.where(total > 0, np.diag(counts) / np.maximum(total, 1), np.nan)


def resampled(logits: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean per-class accuracy, float32 [B], where images are there as often as `counts` [B, N]
    has them; a class that is not there does not count.
    """
    right = taken_for(logits, labels) == labels
    of_class = labels[:, None] == np.arange(logits.shape[1])  # image class
    total = counts @ of_class
    found = counts @ (of_class & right[:, None])
    known = total > 0
    part = np.where(known, found / np.maximum(total, 1), 0)
    return (part.sum(1) / np.maximum(known.sum(1), 1)).astype(np.float32)


def calibration(logits: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error, see `calibration_error`, over images of finite logits."""
    finite = np.isfinite(logits).all(1)
    logits, labels = logits[finite].astype(np.float64), labels[finite]
    weights = np.exp(logits - logits.max(1, keepdims=True, initial=-np.inf))
    confidence = weights.max(1, initial=0) / weights.sum(1)
    return calibration_error(confidence, taken_for(logits, labels) == labels)


def confusion(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """int64 [classes, classes]: images of class i (row) that are taken for class j."""
    classes = logits.shape[1]
    pairs = labels.astype(np.int64) * classes + taken_for(logits, labels)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def taken_for(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """int [N]: the class that images are taken for, the true one only if its logit is above all
    others; else the highest of these, NaN counting as that.
    """
    rows = np.arange(len(labels))
    others = np.maximum(logits, np.finfo(logits.dtype).min)  # above the one that is taken out
    others[rows, labels] = -np.inf
    right = logits[rows, labels] > others.max(1)
    return np.where(right, labels, others.argmax(1))
