"""Scores of a classifier, computed on the host."""

import numpy as np

from tinyjax.metrics.robustness import calibration_error


def score(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return accuracies, 0 to 1. Ties and NaN count against the true class.

    logits: float32 [N, classes]. labels: int32 [N].

    Returns "mean_class" (accuracy per class, averaged over the classes that have images, so that a
    large class does not dominate), "top1", "top5" (1 with five classes or fewer) and "images".
    """
    true_logit = logits[np.arange(len(labels)), labels]
    # "Not below", unlike "above", ranks tied and NaN logits before the true class: constant or NaN
    # outputs are wrong.
    rank = (~(logits < true_logit[:, None])).sum(1) - 1
    return {
        "mean_class": float(np.nanmean(per_class_accuracy(logits, labels))),
        "top1": float((rank < 1).mean()),
        "top5": float((rank < 5).mean()),
        "images": float(len(labels)),
    }


def per_class_accuracy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return float64 [classes]: accuracy on each class's images; NaN for a class without images."""
    counts = confusion_matrix(logits, labels)
    total = counts.sum(1)
    return np.where(total > 0, np.diag(counts) / np.maximum(total, 1), np.nan)


def resampled_scores(logits: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean per-class accuracy on resampled images, float32 [B].

    counts: int [B, N], how often each resample contains each image. A resample's mean is over the
    classes that have images in it.
    """
    correct = predicted_classes(logits, labels) == labels
    one_hot = labels[:, None] == np.arange(logits.shape[1])  # image class
    total = counts @ one_hot
    num_correct = counts @ (one_hot & correct[:, None])
    has_images = total > 0
    accuracy = np.where(has_images, num_correct / np.maximum(total, 1), 0)
    return (accuracy.sum(1) / np.maximum(has_images.sum(1), 1)).astype(np.float32)


def classifier_calibration_error(logits: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error on images with finite logits."""
    finite = np.isfinite(logits).all(1)
    logits, labels = logits[finite].astype(np.float64), labels[finite]
    exp = np.exp(logits - logits.max(1, keepdims=True, initial=-np.inf))
    confidence = exp.max(1, initial=0) / exp.sum(1)  # softmax
    return calibration_error(confidence, predicted_classes(logits, labels) == labels)


def confusion_matrix(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return int64 [classes, classes]: number of images of class i (row) predicted as class j."""
    classes = logits.shape[1]
    pairs = labels.astype(np.int64) * classes + predicted_classes(logits, labels)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def predicted_classes(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return int [N]: the class with the highest logit.

    In a tie with the true class, the other class is predicted. NaN counts as the highest logit.
    """
    rows = np.arange(len(labels))
    others = np.maximum(logits, np.finfo(logits.dtype).min)  # above the -inf of the true class
    others[rows, labels] = -np.inf
    correct = logits[rows, labels] > others.max(1)
    return np.where(correct, labels, others.argmax(1))
