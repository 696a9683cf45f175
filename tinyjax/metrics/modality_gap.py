"""How far the embeddings of visible and infrared images are apart, beyond identity.

The choices here are ours: papers on visible-infrared re-identification show histograms of
distances, without a common definition of the numbers.

- mAP within a modality and across: with a small gap, both are similar.
- Domain probe: accuracy of a linear classifier of the modality, trained on half of the identities
  and tested on the others. Chance, 0.5, means that no direction separates the modalities.
- Distances of positive (one identity) and negative pairs, within and across modalities.
"""

from typing import NamedTuple

import numpy as np

from tinyjax.data.records import RecognitionSplit, RetrievalProtocol, Trial
from tinyjax.metrics.retrieval import MAX_PAIRS, normalize, rank_queries, summarize

MODALITIES = ("visible", "infrared")  # 0 and 1 in a split's inputs
NUM_PAIRS = 100_000  # in a histogram
NUM_BINS = 50
# Fraction of the mean variance of a dimension that is added to each. Less overfits the few training
# identities; more hides a gap along a direction in which the embeddings vary little.
RIDGE = 0.01
_PAIR_CHUNK = 4096


class ModalityGap(NamedTuple):
    """Differences between visible and infrared embeddings."""

    # "mAP visible", "mAP infrared", "mAP visible to infrared", "mAP infrared to visible": 0 to 1,
    # NaN without matches. "probe accuracy": see `probe_accuracy`.
    scores: dict[str, float]
    edges: np.ndarray  # float64 [NUM_BINS + 1], cosine distance, 0 to 2
    # "visible positive", "infrared negative", "across positive", ...: int64 [NUM_BINS], number of
    # pairs; of a large split, a sample of all pairs
    distances: dict[str, np.ndarray]


def measure(
    embedding: np.ndarray, split: RecognitionSplit, max_pairs: int = MAX_PAIRS
) -> ModalityGap:
    """Measure the gap on all images of a split, regardless of its protocols.

    Images of one capture, and an image and itself, are not compared; images of one camera are.

    Args:
        embedding: float [N, D], need not be normalized.
        max_pairs: bounds the memory, see `retrieval.MAX_PAIRS`; the result does not depend on it.

    Raises UserError as `retrieval.normalize` does.
    """
    unit = normalize(embedding, split)
    samples = [np.flatnonzero(split.inputs["modality"] == m) for m in range(len(MODALITIES))]
    scores = {}
    for name, query, gallery in _directions(samples):
        trial = Trial(query, gallery)
        queries = rank_queries(unit, split, trial, RetrievalProtocol((trial,)), max_pairs)
        scores[f"mAP {name}"] = summarize(queries, len(gallery))["mAP"]
    scores["probe accuracy"] = probe_accuracy(unit, split)

    edges = np.linspace(0, 2, NUM_BINS + 1)
    distances = {}
    sides = {"visible": (0, 0), "infrared": (1, 1), "across": (0, 1)}
    for name, (first, second) in sides.items():
        for sign, positive in (("positive", True), ("negative", False)):
            pairs = draw_pairs(split, samples[first], samples[second], positive)
            values = np.clip(_pair_distances(unit, *pairs), 0, 2)
            distances[f"{name} {sign}"] = np.histogram(values, edges)[0]
    return ModalityGap(scores, edges, distances)


def _directions(samples: list[np.ndarray]) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Names, queries and galleries of the comparisons within a modality and across."""
    visible, infrared = samples
    return [
        ("visible", visible, visible),
        ("infrared", infrared, infrared),
        ("visible to infrared", visible, infrared),
        ("infrared to visible", infrared, visible),
    ]


def probe_accuracy(unit: np.ndarray, split: RecognitionSplit) -> float:
    """Return the accuracy of a linear classifier of the modality on unseen identities.

    It is ridge regression to -1 (visible) and 1 (infrared), with equal total weights for both
    modalities, trained on every second identity of the split; the test accuracy is the mean of both
    modalities' accuracies. A value on the boundary is wrong.

    unit: float64 [N, D], see `retrieval.normalize`.

    Returns NaN if a half lacks a modality, or if an embedding is not finite.
    """
    modality = split.inputs["modality"].astype(np.int64)
    train = np.unique(split.labels, return_inverse=True)[1] % 2 == 0
    counts = [np.bincount(modality[rows], minlength=2) for rows in (train, ~train)]
    if not np.min(counts) or not np.isfinite(unit).all():
        return float("nan")
    weights = 0.5 / counts[0][modality[train]]  # sum: 1
    features, targets = unit[train], 2.0 * modality[train] - 1
    mean = weights @ features
    centered = features - mean
    covariance = (centered * weights[:, None]).T @ centered
    ridge = RIDGE * np.trace(covariance) / len(covariance) + np.finfo(np.float64).tiny
    direction = np.linalg.solve(
        covariance + ridge * np.eye(len(covariance)), centered.T @ (weights * targets)
    )
    correct = (unit[~train] - mean) @ direction * (2 * modality[~train] - 1) > 0
    return float(np.mean([correct[modality[~train] == m].mean() for m in (0, 1)]))


def draw_pairs(
    split: RecognitionSplit,
    first: np.ndarray,
    second: np.ndarray,
    positive: bool,
    max_pairs: int = NUM_PAIRS,
) -> tuple[np.ndarray, np.ndarray]:
    """Draw pairs (a sample of `first`, a sample of `second`) with one identity, or with two.

    The candidates are all pairs if there are at most `max_pairs`, otherwise that many draws, always
    the same, without the repeated ones. Pairs of one capture are left out.

    first, second: int, indices of samples.

    Returns int [P], [P].
    """
    labels = split.labels if positive else np.zeros_like(split.labels)  # one block: all pairs
    first, second = (rows[np.argsort(labels[rows], kind="stable")] for rows in (first, second))
    num_blocks = int(labels.max(initial=0)) + 1
    heights, widths = (np.bincount(labels[rows], minlength=num_blocks) for rows in (first, second))
    ends = np.cumsum(heights * widths)
    total = int(ends[-1])
    if total > max_pairs:
        pairs = np.unique(np.random.default_rng(0).integers(total, size=max_pairs))
    else:
        pairs = np.arange(total)
    block = np.searchsorted(ends, pairs, side="right")
    row, column = np.divmod(pairs - (ends - heights * widths)[block], widths[block])
    a = first[(np.cumsum(heights) - heights)[block] + row]
    b = second[(np.cumsum(widths) - widths)[block] + column]
    kept = split.captures[a] != split.captures[b]
    if not positive:
        kept &= split.labels[a] != split.labels[b]
    return a[kept], b[kept]


def _pair_distances(unit: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return float64 [P]: cosine distances of the pairs (a[i], b[i])."""
    distances = np.empty(len(a))
    for start in range(0, len(a), _PAIR_CHUNK):
        rows = slice(start, start + _PAIR_CHUNK)
        distances[rows] = 1 - (unit[a[rows]] * unit[b[rows]]).sum(1)
    return distances
