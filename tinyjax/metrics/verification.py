"""Face verification across modalities: rank-1, and verification rates at false acceptance rates.

A pair of a query (probe) and a gallery image is accepted if its cosine similarity reaches a
threshold. The verification rate is the fraction of genuine pairs (one identity) that are accepted,
the false acceptance rate (FAR) that of impostor pairs. All pairs of a trial are in one ROC curve.

The rate at a FAR is read as in michaeltrs/RethinkNIRVIS: at the corner of the ROC curve (a point of
`sklearn.metrics.roc_curve`) with the nearest FAR, of two equally near ones at the higher FAR, of
two with one FAR at the higher rate. There is no interpolation, so the FAR of that corner, which may
be above the target, is reported next to the rate.
"""

from typing import NamedTuple

import numpy as np

from tinyjax.data.records import RecognitionSplit, RetrievalProtocol, Trial
from tinyjax.metrics.retrieval import MAX_PAIRS, compare, normalize, rank_queries, summarize

FALSE_ACCEPTANCE_RATES = (0.01, 0.001)


class Verification(NamedTuple):
    """Verification by one protocol. Scores are means over the trials."""

    scores: dict[str, float]  # see `verify`
    trials: tuple[dict[str, float], ...]
    notices: tuple[str, ...]  # rates that the number of impostor pairs does not support


class Curve(NamedTuple):
    """The ROC curve down to a threshold, as counts at T falling similarities."""

    similarity: np.ndarray  # float64 [T], distinct
    genuine: np.ndarray  # int64 [T], number of genuine pairs with this similarity
    impostors: np.ndarray  # int64 [T]


def score(
    embedding: np.ndarray, split: RecognitionSplit, max_pairs: int = MAX_PAIRS
) -> dict[str, Verification]:
    """Score the embeddings of a split, float [N, D], by all of its protocols.

    max_pairs: pairs compared at a time; the result does not depend on it. The memory also grows
    with the pairs above the thresholds: up to 2 % of the impostor pairs, and the genuine pairs.

    Raises UserError as `retrieval.normalize` does.
    """
    unit = normalize(embedding, split)
    results = {}
    for name, protocol in split.protocols.items():
        trials = tuple(verify(unit, split, t, protocol, max_pairs) for t in protocol.trials)
        means = {key: float(np.mean([values[key] for values in trials])) for key in trials[0]}
        fewest = min(int(values["impostor pairs"]) for values in trials)
        notices = tuple(
            f"{name}: VR@{far:.1%} is not reliable: {fewest} impostor pairs are fewer than 1 / FAR "
            f"= {round(1 / far)}"
            for far in FALSE_ACCEPTANCE_RATES
            if fewest < round(1 / far)
        )
        results[name] = Verification(means, trials, notices)
    return results


def verify(
    unit: np.ndarray,
    split: RecognitionSplit,
    trial: Trial,
    protocol: RetrievalProtocol,
    max_pairs: int = MAX_PAIRS,
) -> dict[str, float]:
    """Return the scores of one trial, 0 to 1, and its numbers of pairs.

    unit: float64 [N, D], see `retrieval.normalize`.

    Returns "R1" (see `retrieval`; a query without a match is not scored), "VR@1.0%", "VR@0.1%",
    the false acceptance rates "FAR@1.0%", "FAR@0.1%" where these were read, "genuine pairs" and
    "impostor pairs". Rates are NaN without genuine or without impostor pairs. Pairs with an
    embedding that is not finite are never accepted.
    """
    queries = rank_queries(unit, split, trial, protocol, max_pairs)
    curve, genuine, impostors = roc(unit, split, trial, protocol, max_pairs)
    scores = {"R1": summarize(queries, len(trial.gallery))["R1"]}
    for far in FALSE_ACCEPTANCE_RATES:
        rate = nearest_rate(curve, genuine, impostors, far)
        scores[f"VR@{far:.1%}"], scores[f"FAR@{far:.1%}"] = rate
    return scores | {"genuine pairs": float(genuine), "impostor pairs": float(impostors)}


def roc(
    unit: np.ndarray,
    split: RecognitionSplit,
    trial: Trial,
    protocol: RetrievalProtocol,
    max_pairs: int = MAX_PAIRS,
) -> tuple[Curve, int, int]:
    """Return the curve, and the numbers of all genuine and all impostor pairs.

    The curve ends at the first point whose FAR is above twice the largest target: (0, 0) is nearer
    to each target than that point.
    """
    curve = Curve(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))
    genuine = impostors = 0
    limit = (
        2 * max(FALSE_ACCEPTANCE_RATES) * _count_impostors(split, trial, protocol, max_pairs) + 1
    )
    for chunk in compare(unit, split, trial, protocol.skipped_cameras, max_pairs):
        same = chunk.same[chunk.compared]
        similarity = np.nan_to_num(chunk.similarity[chunk.compared], nan=-np.inf)
        genuine += int(same.sum())
        impostors += int((~same).sum())
        curve = _add_pairs(curve, similarity, same, limit)
    return curve, genuine, impostors


def _count_impostors(
    split: RecognitionSplit, trial: Trial, protocol: RetrievalProtocol, max_pairs: int
) -> int:
    empty = np.zeros((len(split.labels), 0))  # without features: only the masks are needed
    chunks = compare(empty, split, trial, protocol.skipped_cameras, max_pairs)
    return sum(int((chunk.compared & ~chunk.same).sum()) for chunk in chunks)


def _add_pairs(curve: Curve, similarity: np.ndarray, same: np.ndarray, limit: float) -> Curve:
    """Add pairs to a curve that ends at the first point with more than `limit` impostor pairs.

    similarity: float64 [n]. same: bool [n].
    """
    if curve.impostors.sum() > limit:
        above = similarity >= curve.similarity[-1]
        similarity, same = similarity[above], same[above]
    values, row = np.unique(np.concatenate([-curve.similarity, -similarity]), return_inverse=True)
    genuine, impostors = (
        np.bincount(row, np.concatenate([old, new]), len(values)).astype(np.int64)
        for old, new in ((curve.genuine, same), (curve.impostors, ~same))
    )
    end = int(np.searchsorted(np.cumsum(impostors), limit, side="right")) + 1
    return Curve(-values[:end], genuine[:end], impostors[:end])


def nearest_rate(curve: Curve, genuine: int, impostors: int, target: float) -> tuple[float, float]:
    """Return the verification rate and the FAR at the corner of the curve nearest to a FAR.

    genuine, impostors: numbers of all pairs. A point between two equal steps is no corner.
    """
    if not genuine or not impostors:
        return float("nan"), float("nan")
    steps = np.stack([curve.genuine, curve.impostors])
    corner = np.ones(steps.shape[1], bool)
    corner[1:-1] = (steps[:, 1:-1] != steps[:, 2:]).any(0)
    accepted = np.cumsum(steps, axis=1)[:, corner]
    rate, far = np.append(0, accepted[0]) / genuine, np.append(0, accepted[1]) / impostors
    nearest = len(far) - 1 - int(np.abs(far - target)[::-1].argmin())
    return float(rate[nearest]), float(far[nearest])
