"""Summary metrics of robustness. Definitions and sources: docs/robustness.md."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from tinyjax.errors import UserError, shorten

NUM_BINS = 15  # of confidence, as in Guo et al. 2017
MIN_OBJECTS = 50  # smaller slices cannot be the worst slice


def gap(in_domain: np.ndarray, shifted: np.ndarray) -> np.ndarray:
    """Return the drop of the score under the shift; any shapes."""
    return np.asarray(in_domain) - shifted


def relative_drop(in_domain: np.ndarray, shifted: np.ndarray) -> np.ndarray:
    """Return the drop as a fraction of the in-domain score; NaN where that is 0."""
    return _ratio(gap(in_domain, shifted), in_domain)


def mpc(scores: Mapping[tuple[str, int], np.ndarray]) -> np.ndarray:
    """Return the mean performance under corruption, mPC (Michaelis et al. 2019).

    It is the mean over severities, then over corruptions. A NaN score makes the result NaN.

    scores: (corruption, severity) -> scores, all of one shape; without severity 0, the clean set.

    Raises UserError for severity 0, without scores, and if corruptions have different severities:
    the weights of these would then differ.
    """
    corruptions, severities = ({key[i] for key in scores} for i in (0, 1))
    missing = sorted({(c, s) for c in corruptions for s in severities} - {*scores})
    if missing:
        names = shorten(f"{corruption} {severity}" for corruption, severity in missing)
        raise UserError(f"mPC: no score for {names}; every corruption needs the same severities")
    if 0 in severities or not scores:
        raise UserError("mPC: scores of corrupted sets are needed, severity 1 or higher")
    by_corruption = defaultdict(list)
    for (corruption, _), value in scores.items():
        by_corruption[corruption].append(np.asarray(value, np.float64))
    return np.mean([np.mean(values, 0) for values in by_corruption.values()], 0)


def rpc(corrupted: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Return the relative performance under corruption, rPC = mPC / P (Michaelis et al. 2019).

    NaN where the clean score is 0.
    """
    return _ratio(corrupted, clean)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Return the ratio in float64; NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, np.float64), denominator)
    result = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=result, where=denominator != 0)[()]


def worst_slice(
    scores: Mapping[str, float], sizes: Mapping[str, int], min_size: int = MIN_OBJECTS
) -> tuple[str, float]:
    """Return name and score of the slice with the lowest score; the first one in a tie.

    Slices with fewer than `min_size` objects or with a NaN score are ignored. Returns ("", NaN) if
    no slice remains.
    """
    eligible = {k: v for k, v in scores.items() if sizes[k] >= min_size and not np.isnan(v)}
    if not eligible:
        return "", float("nan")
    name = min(eligible, key=eligible.__getitem__)
    return name, float(eligible[name])


def calibration_error(confidence: np.ndarray, correct: np.ndarray, threshold: float = 0.0) -> float:
    """Return the expected calibration error: mean |confidence - precision|.

    The mean is over NUM_BINS bins of equal width, weighted by the number of predictions in them.
    For a classifier (ECE, Guo et al. 2017), there is one prediction per image: the probability of
    the predicted class, and whether that class is correct. For a detector (D-ECE, Kueppers et al.
    2020, binned by confidence alone), the predictions are the detections outside ignored regions:
    the score, and whether the detection matches an object.

    confidence: float [D], 0 to 1. correct: bool [D]. Predictions with a confidence below
    `threshold` are ignored; the result is NaN if none remains.
    """
    confidence = np.asarray(confidence, np.float64)
    passes = confidence >= threshold
    confidence, correct = confidence[passes], np.asarray(correct)[passes]
    if not len(confidence):
        return float("nan")
    # A bin contains its upper edge, as in Guo et al.; 0 is in the first bin.
    bins = np.searchsorted(np.linspace(0, 1, NUM_BINS + 1)[1:-1], confidence)
    # For a bin of n predictions, n |mean confidence - precision| = |sum of confidence - correct|.
    return float(np.abs(np.bincount(bins, confidence - correct)).sum() / len(confidence))
