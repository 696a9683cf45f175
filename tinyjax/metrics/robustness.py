"""What is said about robustness in one number. Definitions and sources: docs/robustness.md."""

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from tinyjax.errors import UserError, shorten

BINS = 15  # of confidence, as in Guo et al. 2017
LEAST_BOXES = 50  # that a slice must hold to be called the worst


def gap(inside: np.ndarray, shifted: np.ndarray) -> np.ndarray:
    """How much of a score is lost under the shift, in points of the score; any shapes."""
    return np.asarray(inside) - shifted


def relative_drop(inside: np.ndarray, shifted: np.ndarray) -> np.ndarray:
    """The part of the score that is lost under the shift; NaN where there was none to lose."""
    return ratio(gap(inside, shifted), inside)


def mpc(scores: Mapping[tuple[str, int], np.ndarray]) -> np.ndarray:
    """Mean performance under corruption, mPC (Michaelis et al. 2019): mean over severities, then
    over kinds.

    scores: (kind, severity) -> score, of any one shape; severity 0, the clean set, is not among
    them. A score that is NaN makes the result NaN. Raises `UserError` if a kind lacks a severity
    that another has: what is mild would then weigh more in one than in the other.
    """
    kinds, severities = ({key[i] for key in scores} for i in (0, 1))
    absent = sorted({(kind, s) for kind in kinds for s in severities} - {*scores})
    if absent:
        names = shorten(f"{kind} {severity}" for kind, severity in absent)
        raise UserError(f"mPC: no score of {names}; every kind needs the same severities")
    if 0 in severities or not scores:
        raise UserError("mPC: wants scores of corrupted sets, severity 1 or more")
    by_kind = defaultdict(list)
    for (kind, _), value in scores.items():
        by_kind[kind].append(np.asarray(value, np.float64))
    return np.mean([np.mean(values, 0) for values in by_kind.values()], 0)


def rpc(corrupted: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Relative performance under corruption, rPC = mPC / P (Michaelis et al. 2019); NaN where
    the clean score is 0.
    """
    return ratio(corrupted, clean)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """float64; NaN where `whole` is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, np.float64), whole)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole != 0)[()]


def worst_slice(
    scores: Mapping[str, float], boxes: Mapping[str, int], least: int = LEAST_BOXES
) -> tuple[str, float]:
    """The slice of lowest score and its score, among those of `least` objects or more whose score
    is a number; of equal ones the first. ("", NaN) if there is none.
    """
    known = {k: v for k, v in scores.items() if boxes[k] >= least and not np.isnan(v)}
    if not known:
        return "", float("nan")
    name = min(known, key=known.__getitem__)
    return name, float(known[name])


def calibration_error(confidence: np.ndarray, hit: np.ndarray, threshold: float = 0.0) -> float:
    """Expected calibration error: mean distance of confidence and precision over BINS bins of equal
    width, weighted by what is in them.

    confidence: float [D], 0 to 1. hit: bool [D]. Of a classifier (ECE, Guo et al. 2017) these
    are the probability of the class an image is taken for, and whether it is right; of a
    detector (D-ECE, Kueppers et al. 2020, by confidence alone) the detections' scores and whether
    they find an object, those left out that lie in a don't-care region. Only what has a confidence
    of `threshold` or more counts; NaN if nothing has.
    """
    confidence = np.asarray(confidence, np.float64)
    passes = confidence >= threshold
    confidence, right = confidence[passes], np.asarray(hit)[passes]
    if not len(confidence):
        return float("nan")
    # A bin holds its upper edge, as Guo's do; 0 is in the first.
    place = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)
    # n |mean confidence - precision| of a bin is |sum of (confidence - hit)|.
    return float(np.abs(np.bincount(place, confidence - right)).sum() / len(confidence))
