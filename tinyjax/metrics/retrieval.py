"""Retrieval across cameras: rank of the first match, average precision, inverse negative penalty.

The similarity of two images is the cosine of their embeddings. A gallery is sorted by falling
similarity; images with equal similarity keep the gallery's order. Pairs of images that are not
compared (of one capture, or of cameras that the protocol skips) are absent from the ranking.

- R-k: fraction of queries whose first match has rank k or less. A rank counts gallery images, or
  identities with `RetrievalProtocol.identity_ranks`: SYSU-MM01 keeps each identity's best image.
  With fewer than k images (or identities) in the gallery, R-k is 1.
- mAP: mean of the average precision, the mean over matches of (number of matches up to this one) /
  (its rank among images), without interpolation.
- mINP: mean of (number of matches) / (rank of the last match among images); Ye et al., Deep
  Learning for Person Re-identification: A Survey and Outlook, 2021.

A query without a match in its gallery is counted and not scored. These are the definitions of
`eval_sysu` and `eval_regdb` in mangye16/Cross-Modal-Re-ID-baseline. Its `argsort` is not stable,
and its CMC is undefined with fewer than 20 identities.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tinyjax.data.records import RecognitionSplit, RetrievalProtocol, Trial
from tinyjax.errors import UserError

RANKS = (1, 5, 10, 20)
MAX_PAIRS = 2**20  # (query, gallery) pairs at a time; ranking takes about 70 bytes for each
LIST_LENGTH = 8  # images of a ranking that pictures show
UNIT_STEP = 2.0**-26
NEVER = np.iinfo(np.int32).max  # rank of the match of a query whose embedding is not finite


class QueryScores(NamedTuple):
    """Scores of Q queries."""

    labels: np.ndarray  # int32 [Q], the identity
    matches: np.ndarray  # int32 [Q], number of matches in the gallery
    rank: np.ndarray  # int32 [Q], of the first match, starts at 1; -1 without a match
    average_precision: np.ndarray  # float64 [Q]; NaN without a match
    inverse_negative_penalty: np.ndarray  # float64 [Q]; NaN without a match


class ProtocolResult(NamedTuple):
    """Scores by one protocol."""

    scores: dict[str, float]  # means over the trials
    trials: tuple[dict[str, float], ...]  # see `summarize`
    queries: tuple[QueryScores, ...]  # of each trial


class RankLists(NamedTuple):
    """Q queries with the first k images of their rankings."""

    query: np.ndarray  # int32 [Q], indices of samples
    # int32 [Q, k], indices of samples, nearest first; -1 where fewer than k images are compared
    gallery: np.ndarray
    similarity: np.ndarray  # float32 [Q, k], cosine; NaN without an image or a finite embedding


def score(
    embedding: np.ndarray, split: RecognitionSplit, max_pairs: int = MAX_PAIRS
) -> dict[str, ProtocolResult]:
    """Score the embeddings of a split by all of its protocols.

    Args:
        embedding: float [N, D], need not be normalized.
        max_pairs: bounds the memory, see `MAX_PAIRS`; the result does not depend on it.

    Raises UserError if no query of a trial has a match, and as `normalize` does.
    """
    unit = normalize(embedding, split)
    results = {}
    for name, protocol in split.protocols.items():
        queries = tuple(
            rank_queries(unit, split, trial, protocol, max_pairs) for trial in protocol.trials
        )
        for number, (trial, scored) in enumerate(zip(protocol.trials, queries, strict=True), 1):
            if not scored.matches.any():
                raise UserError(_no_match_message(name, number, split.labels, trial))
        trials = tuple(
            summarize(scored, len(trial.gallery))
            for trial, scored in zip(protocol.trials, queries, strict=True)
        )
        means = {key: float(np.mean([values[key] for values in trials])) for key in trials[0]}
        results[name] = ProtocolResult(means, trials, queries)
    return results


def summarize(queries: QueryScores, gallery: int) -> dict[str, float]:
    """Return the means over the queries with a match, 0 to 1, and the numbers of images.

    gallery: number of gallery images.

    Returns "R1", "R5", "R10", "R20", "mAP", "mINP", "queries", "unmatched queries" and "gallery".
    The scores are NaN if no query has a match.
    """
    matched = queries.matches > 0
    means = {
        name: float(values[matched].mean()) if matched.any() else float("nan")
        for name, values in query_values(queries).items()
    }
    unmatched = float((~matched).sum())
    counts = {"queries": len(matched), "unmatched queries": unmatched, "gallery": gallery}
    return means | {name: float(count) for name, count in counts.items()}


def query_values(queries: QueryScores) -> dict[str, np.ndarray]:
    """Return float64 [Q] for each score: the values of the queries, NaN for one without a match."""
    hits = {
        f"R{k}": np.where(queries.matches > 0, queries.rank <= k, np.nan).astype(np.float64)
        for k in RANKS
    }
    return hits | {"mAP": queries.average_precision, "mINP": queries.inverse_negative_penalty}


def cmc(result: ProtocolResult, max_rank: int = max(RANKS)) -> np.ndarray:
    """Return float64 [max_rank]: the cumulative matching characteristic, R-k for k = 1..max_rank.

    It is the mean over the trials, NaN if one has no query with a match.
    """
    curves = []
    for queries in result.queries:
        matched = queries.rank[queries.matches > 0]
        hits = np.bincount(np.minimum(matched, max_rank + 1), minlength=max_rank + 2)
        with np.errstate(invalid="ignore"):
            curves.append(np.cumsum(hits)[1:-1] / np.float64(len(matched)))
    return np.mean(curves, 0)


def resampled_scores(result: ProtocolResult, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Return the scores on resampled identities, float32 [B] for each score of `query_values`.

    A resample weights each query by how often it contains the query's identity; the gallery stays
    as it is. Two models are paired by using the same counts for both: the interval of their
    difference is `bootstrap.interval` of the differences of scores and of replicates.

    counts: int [B, identities of the split], see `slices.resample_counts`.

    A resample without any query that has a match is NaN.
    """
    sums: dict[str, list[np.ndarray]] = {}
    for queries in result.queries:
        matched = queries.matches > 0
        labels, identities = queries.labels[matched], counts.shape[1]
        total = counts @ np.bincount(labels, minlength=identities)
        for name, values in query_values(queries).items():
            with np.errstate(invalid="ignore"):
                mean = counts @ np.bincount(labels, values[matched], identities) / total
            sums.setdefault(name, []).append(mean)
    return {name: np.mean(trials, 0).astype(np.float32) for name, trials in sums.items()}


def normalize(embedding: np.ndarray, split: RecognitionSplit) -> np.ndarray:
    """Return float64 [N, D]: rows of unit length, rounded to multiples of 2^-26.

    A product of two such rows is a multiple of 2^-52 below 2, so all sums are exact in float64:
    similarities and ties depend neither on the order of summation nor on the matrix library. The
    rounding error is that of a float32 near 1.

    A row with NaN or infinity is NaN: no match is credited to it. A zero row stays zero.

    Raises UserError if the number of embeddings is not the number of images.
    """
    if embedding.ndim != 2 or len(embedding) != len(split.labels):
        raise UserError(
            f"embedding: shape {embedding.shape}; the split has {len(split.labels)} images, so "
            f"give [{len(split.labels)}, D]"
        )
    unit = np.array(embedding, np.float64)
    finite = np.isfinite(unit).all(1)
    with np.errstate(invalid="ignore"):
        norm = np.sqrt((unit * unit).sum(1, keepdims=True))
        unit /= np.where(norm > 0, norm, 1)
    unit[~finite] = np.nan
    return np.rint(unit / UNIT_STEP) * UNIT_STEP


class Comparison(NamedTuple):
    """Pairs of q queries and G gallery images."""

    query: np.ndarray  # int [q], indices of samples
    similarity: np.ndarray  # float64 [q, G], cosine; NaN if an embedding is not finite
    compared: np.ndarray  # bool [q, G]
    same: np.ndarray  # bool [q, G], same identity


def compare(
    unit: np.ndarray,
    split: RecognitionSplit,
    trial: Trial,
    skipped_cameras: frozenset[tuple[int, int]],
    max_pairs: int = MAX_PAIRS,
) -> Iterator[Comparison]:
    """Compare all queries of a trial with the gallery, in chunks of at most `max_pairs` pairs.

    A chunk has at least one query. unit: see `normalize`.
    """
    gallery = np.asarray(trial.gallery)
    features = unit[gallery].T
    step = max(1, max_pairs // max(len(gallery), 1))
    for start in range(0, len(trial.query), step):
        query = np.asarray(trial.query[start : start + step])
        compared = split.captures[query, None] != split.captures[gallery]
        for query_camera, gallery_camera in skipped_cameras:
            from_query = split.cameras[query, None] == query_camera
            compared &= ~(from_query & (split.cameras[gallery] == gallery_camera))
        same = split.labels[query, None] == split.labels[gallery]
        yield Comparison(query, unit[query] @ features, compared, same)


def rank_queries(
    unit: np.ndarray,
    split: RecognitionSplit,
    trial: Trial,
    protocol: RetrievalProtocol,
    max_pairs: int = MAX_PAIRS,
) -> QueryScores:
    """Rank the gallery of a trial for each query.

    The match of a query whose embedding is not finite has rank `NEVER` and precision 0; a gallery
    image whose embedding is not finite comes last.

    unit: float64 [N, D], see `normalize`. max_pairs: see `compare`.
    """
    gallery_labels = split.labels[np.asarray(trial.gallery)]
    matches = np.zeros(len(trial.query), np.int32)
    rank = np.full(len(trial.query), -1, np.int32)
    precision, penalty = np.full((2, len(trial.query)), np.nan)
    start = 0
    for chunk in compare(unit, split, trial, protocol.skipped_cameras, max_pairs):
        rows = slice(start, start + len(chunk.query))
        start = rows.stop
        order = np.argsort(-chunk.similarity, axis=1, kind="stable")
        kept = np.take_along_axis(chunk.compared, order, 1)
        match = np.take_along_axis(chunk.same, order, 1) & kept
        position = np.cumsum(kept, axis=1, dtype=np.int32)  # rank among the images
        last = np.where(match, position, 0).max(1, initial=0)
        first = np.where(match, position, NEVER).min(1, initial=NEVER)
        if protocol.identity_ranks:
            first = _identity_rank(first, order, np.where(kept, position, NEVER), gallery_labels)
        count = np.cumsum(match, axis=1, dtype=np.int32)
        total = match.sum(1)
        precisions = np.where(match, count / np.maximum(position, 1), 0).sum(1)

        finite = np.isfinite(unit[chunk.query]).all(1)
        matched = total > 0
        matches[rows] = total
        rank[rows] = np.where(matched, np.where(finite, first, NEVER), -1)
        divisor = np.where(matched, total, 1)
        precision[rows] = np.where(matched, finite * precisions / divisor, np.nan)
        penalty[rows] = np.where(matched, finite * total / np.maximum(last, 1), np.nan)
    return QueryScores(split.labels[np.asarray(trial.query)], matches, rank, precision, penalty)


def rank_lists(
    unit: np.ndarray,
    split: RecognitionSplit,
    trial: Trial,
    protocol: RetrievalProtocol,
    length: int,
    max_pairs: int = MAX_PAIRS,
) -> RankLists:
    """Return the first `length` images of the ranking of each query of a trial.

    For some queries only, give a trial with these. The order is that of the scores: images with
    equal similarity in the order of the gallery, those whose embedding is not finite last; pairs
    that are not compared are left out.

    unit: float64 [N, D], see `normalize`. max_pairs: see `compare`.
    """
    samples, shape = np.asarray(trial.gallery), (len(trial.query), length)
    gallery, similarity = np.full(shape, -1, np.int32), np.full(shape, np.nan, np.float32)
    start = 0
    for chunk in compare(unit, split, trial, protocol.skipped_cameras, max_pairs):
        order = np.argsort(-chunk.similarity, axis=1, kind="stable")
        skipped = ~np.take_along_axis(chunk.compared, order, 1)
        first = np.argsort(skipped, axis=1, kind="stable")[:, :length]
        order, skipped = (np.take_along_axis(values, first, 1) for values in (order, skipped))
        values = np.take_along_axis(chunk.similarity, order, 1)
        cells = np.s_[start : start + len(order), : order.shape[1]]
        gallery[cells] = np.where(skipped, -1, samples[order])
        similarity[cells] = np.where(skipped, np.nan, values)
        start += len(order)
    return RankLists(np.asarray(trial.query, np.int32), gallery, similarity)


def first_lists(
    embedding: np.ndarray, split: RecognitionSplit, protocol: RetrievalProtocol
) -> dict[str, np.ndarray]:
    """Return scores and rank lists of the Q queries of a protocol's first trial.

    Returns query int32 [Q] and gallery int32 [Q, LIST_LENGTH], see `RankLists`; rank int32 [Q] and
    average_precision float64 [Q], see `QueryScores`.
    """
    unit, trial = normalize(embedding, split), protocol.trials[0]
    queries = rank_queries(unit, split, trial, protocol)
    lists = rank_lists(unit, split, trial, protocol, LIST_LENGTH)
    return {
        "query": lists.query,
        "gallery": lists.gallery,
        "rank": queries.rank,
        "average_precision": queries.average_precision,
    }


def _identity_rank(
    first: np.ndarray, order: np.ndarray, position: np.ndarray, gallery_labels: np.ndarray
) -> np.ndarray:
    """Return int [q]: number of identities up to the first match.

    first: [q], rank of the first match among the images. order, position: int [q, G], the sorted
    gallery and the ranks of its images; NEVER for an image that is not compared.
    """
    by_image = np.empty_like(position)
    np.put_along_axis(by_image, order, position, 1)
    by_identity = np.argsort(gallery_labels, kind="stable")
    starts = np.unique(gallery_labels[by_identity], return_index=True)[1]
    best = np.minimum.reduceat(by_image[:, by_identity], starts, axis=1)  # [q, identities]
    return (best <= first[:, None]).sum(1)


def _no_match_message(name: str, number: int, labels: np.ndarray, trial: Trial) -> str:
    queried, present = (np.unique(labels[np.asarray(rows, int)]) for rows in trial)
    return (
        f"protocol {name!r}, trial {number}: none of {len(trial.query)} queries has a match among "
        f"{len(trial.gallery)} gallery images ({len(queried)} and {len(present)} identities, "
        f"{len(np.intersect1d(queried, present))} in both); give a gallery with images of the "
        f"queries' identities, of other captures and from cameras that the protocol compares"
    )
