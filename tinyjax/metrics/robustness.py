"""Robustness summarized in single numbers. Definitions and sources: docs/robustness.md."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from tinyjax.errors import UserError, shorten

NUM_BINS = 15  # of confidence, as in Guo et al. 2017
MIN_OBJECTS = 50  # in a slice that may be called the worst one


def gap(in_domain: np.ndarray, shifted: np.ndarray) -> np.ndarray:
    """Score lost under the shift, in points of the score; any shapes."""
    return np.asarray(in_domain) - shifted


def relative_drop(in_domain: np.ndarray, shifted: np.ndarray) -> np.ndarray:
    """Fraction of the score lost under the shift; NaN where the in-domain score is 0."""
    return _ratio(gap(in_domain, shifted), in_domain)


def mpc(scores: Mapping[tuple[str, int], np.ndarray]) -> np.ndarray:
    """Mean performance under corruption, mPC (Michaelis et al. 2019).

    It is the mean over severities, then over corruptions. A NaN score makes the result NaN.

    scores: (corruption, severity) -> scores of one common shape; without severity 0, the clean set.

    Raises UserError if a corruption lacks a severity that another one has: the severities would
    then have different weights.
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
    """Relative performance under corruption, rPC = mPC / P (Michaelis et al. 2019).

    NaN where the clean score is 0.
    """
    return _ratio(corrupted, clean)


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """float64; NaN where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, np.float64), denominator)
    result = np.full(numerator.shape, np.nan)
    return np.divide(numerator, denominator, out=result, where=denominator != 0)[()]


def worst_slice(
    scores: Mapping[str, float], sizes: Mapping[str, int], min_size: int = MIN_OBJECTS
) -> tuple[str, float]:
    """Name and score of the slice with the lowest score; the first one in a tie.

    Slices with fewer than `min_size` objects or with a NaN score do not count. Returns ("", NaN) if
    none is left.
    """
    known = {k: v for k, v in scores.items() if sizes[k] >= min_size and not np.isnan(v)}
    if not known:
        return "", float("nan")
    name = min(known, key=known.__getitem__)
    return name, float(known[name])


def calibration_error(confidence: np.ndarray, correct: np.ndarray, threshold: float = 0.0) -> float:
    """Expected calibration error: mean distance between confidence and precision.

    The mean is over NUM_BINS bins of equal width, weighted by the number of predictions in them.
    For a classifier (ECE, Guo et al. 2017) the predictions are its images: the probability of the
    predicted class, and whether it is right. For a detector (D-ECE, Kueppers et al. 2020, by
    confidence alone) they are its detections outside ignored regions: the score, and whether the
    detection matches an object.

    confidence: float [D], 0 to 1. correct: bool [D]. Predictions with a confidence below
    `threshold` do not count; NaN if none is left.
    """
    confidence = np.asarray(confidence, np.float64)
    passes = confidence >= threshold
    confidence, correct = confidence[passes], np.asarray(correct)[passes]
    if not len(confidence):
        return float("nan")
    # A bin contains its upper edge, as Guo's do; 0 is in the first bin.
    bins = np.searchsorted(np.linspace(0, 1, NUM_BINS + 1)[1:-1], confidence)
    # n |mean confidence - precision| of a bin is |sum of (confidence - correct)|.
    return float(np.abs(np.bincount(bins, confidence - correct)).sum() / len(confidence))
