"""Retrieval scores, compared with published evaluation code and with values computed by hand."""

import tracemalloc

import numpy as np
import pytest

from tests.metrics.make_retrieval_references import FILE, SEEDS, draw
from tests.metrics.recognition_case import make_split
from tinyjax.data.records import RetrievalProtocol, Trial
from tinyjax.errors import UserError
from tinyjax.metrics import bootstrap
from tinyjax.metrics.retrieval import (
    MAX_PAIRS,
    NEVER,
    RANKS,
    ProtocolResult,
    QueryScores,
    cmc,
    normalize,
    rank_lists,
    rank_queries,
    resampled_scores,
    score,
    summarize,
)
from tinyjax.metrics.slices import resample_counts

SYSU = {"skipped_cameras": frozenset({(3, 2)}), "identity_ranks": True}


def angles(degrees):
    """Embeddings on a circle: similarity to the first one falls with the angle."""
    radians = np.radians(degrees)
    return np.stack([np.cos(radians), np.sin(radians)], 1).astype(np.float32)


def rank_one(labels, cameras=None, captures=None, degrees=None, **protocol):
    """Rank samples 1.. for the query 0, sorted unless other angles are given."""
    trial = Trial(np.array([0]), np.arange(1, len(labels)))
    split = make_split(labels, cameras, captures)
    embedding = angles(np.arange(len(labels)) * 5 if degrees is None else degrees)
    return rank_queries(
        normalize(embedding, split), split, trial, RetrievalProtocol((trial,), **protocol)
    )


def random_case(protocol, seed):
    embedding, labels, cameras, query, gallery = draw(protocol, seed)
    trial = Trial(query, gallery)
    options = SYSU if protocol == "sysu" else {"identity_ranks": protocol == "llcm"}
    # LLCM does not compare images of one identity from one camera.
    captures = labels * 10 + cameras if protocol == "llcm" else None
    return embedding, make_split(
        labels, cameras, captures, case=RetrievalProtocol((trial,), **options)
    )


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("protocol", ["sysu", "regdb", "llcm"])
def test_published_evaluation_code(protocol, seed):
    with np.load(FILE) as references:
        *cmc, mean_precision, mean_penalty = references[f"{protocol} {seed}"]
    embedding, split = random_case(protocol, seed)
    result = score(embedding, split)["case"]
    (queries,) = result.queries
    scored = queries.matches > 0
    assert 0 < (~scored).sum() == result.scores["unmatched queries"] < len(scored)
    # The reference is a float32: the number of hits is exact.
    hits = [np.rint(value * scored.sum()) for value in cmc]
    ranks = queries.rank[scored]
    assert [(ranks <= k).sum() for k in range(1, 21)] == hits
    for k in RANKS:
        assert result.scores[f"R{k}"] == pytest.approx(hits[k - 1] / scored.sum(), abs=1e-12)
    assert result.scores["mAP"] == pytest.approx(mean_precision, abs=1e-9)
    assert result.scores["mINP"] == pytest.approx(mean_penalty, abs=1e-9)


# the query, then the gallery from near to far
LABELS = [0, 1, 1, 0, 2, 3, 0, 4, 0]
CAMERAS = [3, 1, 4, 2, 2, 5, 1, 1, 4]


def test_camera_3_skips_camera_2_for_all_identities():
    """Kept: 1 1 3 0 4 0, that is matches at 4 and 6, after identities 1 and 3."""
    result = rank_one(LABELS, CAMERAS, **SYSU)
    assert (result.rank, result.matches) == (3, 2)
    assert result.average_precision == pytest.approx((1 / 4 + 2 / 6) / 2)
    assert result.inverse_negative_penalty == pytest.approx(2 / 6)
    by_image = rank_one(LABELS, CAMERAS, skipped_cameras=SYSU["skipped_cameras"])
    assert by_image.rank == 4
    assert by_image.average_precision == result.average_precision


def test_camera_6_skips_nothing():
    result = rank_one(LABELS, [6, *CAMERAS[1:]], **SYSU)
    assert (result.rank, result.matches) == (2, 3)
    assert result.average_precision == pytest.approx((1 / 3 + 2 / 6 + 3 / 8) / 3)
    assert result.inverse_negative_penalty == pytest.approx(3 / 8)
    assert rank_one(LABELS, [6, *CAMERAS[1:]]).rank == 3


def test_images_of_the_same_capture_are_not_compared():
    result = rank_one([0, 0, 1, 0], captures=[7, 7, 8, 9])
    assert (result.rank, result.matches) == (2, 1)
    assert result.average_precision == 0.5
    # within one set: an image does not find itself
    split = make_split([0, 0, 1])
    trial = Trial(np.arange(3), np.arange(3))
    unit = normalize(angles([0, 10, 5]), split)
    result = rank_queries(unit, split, trial, RetrievalProtocol((trial,)))
    assert result.rank.tolist() == [2, 2, -1]


def test_a_query_without_a_match_is_counted_and_not_scored():
    split = make_split([0, 5, 1, 0])
    trial = Trial(np.array([0, 1]), np.array([2, 3]))
    result = rank_queries(
        normalize(angles([0, 1, 2, 3]), split), split, trial, RetrievalProtocol((trial,))
    )
    assert result.rank.tolist() == [2, -1]
    assert result.matches.tolist() == [1, 0]
    assert np.isnan(result.average_precision[1])
    assert np.isnan(result.inverse_negative_penalty[1])
    scores = summarize(result, 2)
    assert scores == {
        **{"R1": 0, "R5": 1, "R10": 1, "R20": 1, "mAP": 0.5, "mINP": 0.5},
        **{"queries": 2, "unmatched queries": 1, "gallery": 2},
    }


def test_an_identity_without_gallery_images_changes_nothing():
    embedding, split = random_case("sysu", 0)
    protocol = split.protocols["case"]
    (trial,) = protocol.trials
    matched = score(embedding, split)["case"].queries[0].matches > 0
    fewer = protocol._replace(trials=(trial._replace(query=trial.query[matched]),))
    full, reduced = (
        score(embedding, split._replace(protocols={"case": p}))["case"].scores
        for p in (protocol, fewer)
    )
    assert full.pop("queries") > reduced.pop("queries")
    assert full.pop("unmatched queries") > reduced.pop("unmatched queries") == 0
    assert full == reduced


def test_no_match_at_all_is_an_error():
    split = make_split([0, 0, 1, 2], case=RetrievalProtocol((Trial([0, 1], [2, 3]),)))
    message = r"protocol 'case', trial 1: none of 2 queries .* \(1 and 2 identities, 0 in both\)"
    with pytest.raises(UserError, match=message):
        score(angles(range(4)), split)
    with pytest.raises(UserError, match=r"shape \(3, 2\); the split has 4 images"):
        score(angles(range(3)), split)


def test_equal_similarities_keep_the_order_of_the_gallery():
    assert rank_one([0, 1, 0, 2], degrees=[0, 30, 30, 30]).rank == 2
    assert rank_one([0, 0, 1, 2], degrees=[0, 30, 30, 30]).rank == 1
    result = rank_one([0, 1, 0, 2, 0], degrees=[0, 0, 0, 0, 0])
    assert result.average_precision == pytest.approx((1 / 2 + 2 / 4) / 2)
    # numpy sorts short rows by insertion, which is always stable; here 249 equal ones come first
    result = rank_one([0, *range(500, 1, -1), 0, 1], degrees=[0] + [20, 10] * 250 + [10])
    assert result.rank == 250
    # equal directions of other lengths are ties, too
    split = make_split([0, 1, 0])
    trial = Trial(np.array([0]), np.array([1, 2]))
    embedding = np.array([[1, 2, 3], [1, 2, 3], [64, 128, 192]], np.float32)
    unit = normalize(embedding, split)
    assert rank_queries(unit, split, trial, RetrievalProtocol((trial,))).rank == 2


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("identity_ranks", [False, True])
def test_embeddings_that_are_not_finite_are_wrong(value, identity_ranks):
    trial = Trial(np.array([0, 1]), np.array([2, 3, 4]))
    protocol = RetrievalProtocol((trial,), identity_ranks=identity_ranks)
    split = make_split([0, 1, 0, 1, 2], case=protocol)
    embedding = angles([0, 90, 0, 90, 45])
    embedding[0, 1] = value  # a query
    embedding[3] = value  # the match of the other query
    (queries,) = score(embedding, split)["case"].queries
    assert queries.rank.tolist() == [NEVER, 3]
    assert queries.average_precision == pytest.approx([0, 1 / 3])
    scores = score(np.full_like(embedding, value), split)["case"].scores
    assert scores["R20"] == scores["mAP"] == scores["mINP"] == 0


def test_similarities_are_exact():
    """Equal to integer arithmetic, and within 1e-7 of the cosine."""
    embedding, split = random_case("sysu", 0)
    unit = normalize(embedding, split)
    integers = np.rint(unit * 2**26).astype(np.int64)
    np.testing.assert_array_equal(integers / 2**26, unit)
    np.testing.assert_array_equal((unit @ unit.T) * 2.0**52, integers @ integers.T)
    wide = embedding.astype(np.float64)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    np.testing.assert_allclose(unit @ unit.T, wide @ wide.T, rtol=0, atol=1e-7)


@pytest.mark.parametrize("max_pairs", [1, 700, 3001])
def test_the_chunk_size_changes_nothing(max_pairs):
    embedding, split = random_case("sysu", 1)
    embedding = np.round(embedding)  # with ties
    unchunked, chunked = (
        score(embedding, split, pairs)["case"] for pairs in (MAX_PAIRS, max_pairs)
    )
    assert unchunked.scores == chunked.scores
    for first, second in zip(unchunked.queries[0], chunked.queries[0], strict=True):
        np.testing.assert_array_equal(first, second)


def test_memory_is_bounded():
    """One float64 for each of a million pairs would take 8 MB."""
    labels = np.arange(2000) % 50
    trial = Trial(np.arange(1000), np.arange(1000, 2000))
    split = make_split(labels, case=RetrievalProtocol((trial,), identity_ranks=True))
    embedding = np.random.RandomState(0).standard_normal((2000, 4)).astype(np.float32)
    tracemalloc.start()
    score(embedding, split, max_pairs=2**14)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6, peak


def two_trials():
    trials = (Trial([0, 1, 2], [3, 4, 5]), Trial([0, 1, 2], [6, 7]))
    labels = [0, 1, 1, 0, 1, 2, 0, 1]
    degrees = [0, 20, 50, 2, 40, 5, 0, 25]
    protocol = RetrievalProtocol(trials)
    return angles(degrees), make_split(labels, case=protocol, all=RetrievalProtocol(trials[:1]))


def test_scores_are_means_over_trials_by_hand():
    """Trial 1: queries at 0, 20, 50 degrees, gallery 0 (2), 1 (40), 2 (5): ranks 1, 3, 1.

    Trial 2: gallery 0 (0), 1 (25): ranks 1, 1, 1.
    """
    results = score(*two_trials())
    result = results["case"]
    assert [q.rank.tolist() for q in result.queries] == [[1, 3, 1], [1, 1, 1]]
    assert [t["R1"] for t in result.trials] == pytest.approx([2 / 3, 1])
    assert result.scores["R1"] == pytest.approx(5 / 6)
    assert result.scores["mAP"] == pytest.approx(((1 + 1 / 3 + 1) / 3 + 1) / 2)
    assert (result.scores["queries"], result.scores["gallery"]) == (3, 2.5)
    assert results["all"].scores == result.trials[0]


def test_resampled_identities_by_hand():
    """Identity 0 has one query, identity 1 has two, identity 2 none."""
    result = score(*two_trials())["case"]
    counts = np.array([[1, 1, 1], [3, 0, 0], [1, 2, 0], [0, 0, 3]])
    replicates = resampled_scores(result, counts)
    assert set(replicates) == {"R1", "R5", "R10", "R20", "mAP", "mINP"}
    np.testing.assert_allclose(
        replicates["R1"], [(2 / 3 + 1) / 2, 1, (3 / 5 + 1) / 2, np.nan], rtol=1e-6
    )
    assert replicates["mAP"].dtype == np.float32
    assert replicates["mAP"][0] == pytest.approx(result.scores["mAP"])


def test_unmatched_queries_have_no_weight_in_resamples():
    unmatched = QueryScores(
        labels=np.array([0, 1, 2], np.int32),
        matches=np.array([1, 0, 1]),
        rank=np.array([1, -1, 2]),
        average_precision=np.array([1, np.nan, 0.5]),
        inverse_negative_penalty=np.array([1, np.nan, 0.5]),
    )
    result = score(*two_trials())["case"]._replace(queries=(unmatched,))
    replicates = resampled_scores(result, np.array([[1, 5, 1]]))
    assert replicates["R1"] == 0.5
    assert replicates["mAP"] == 0.75


def test_paired_models_share_the_resamples():
    """Model 2 finds the same identities difficult: the interval of the difference is narrow."""
    embedding, split = random_case("regdb", 0)
    noise = np.random.RandomState(1).standard_normal(embedding.shape)
    models = [embedding, (embedding + 0.02 * noise).astype(np.float32)]
    counts = resample_counts(len(split.classes))
    results = [score(model, split)["case"] for model in models]
    points = np.array([r.scores["mAP"] for r in results])
    replicates = np.stack([resampled_scores(r, counts)["mAP"] for r in results])
    single = bootstrap.interval(points[:1], replicates[:1])
    assert single.low < points[0] < single.high
    difference = bootstrap.interval(points[1:] - points[:1], replicates[1:] - replicates[:1])
    assert difference.high - difference.low < 0.3 * (single.high - single.low)
    assert difference.low < points[1] - points[0] < difference.high


def lists_of(split, degrees, trial, length, max_pairs=MAX_PAIRS, **protocol):
    unit = normalize(angles(degrees), split)
    protocol = RetrievalProtocol((trial,), **protocol)
    return rank_lists(unit, split, trial, protocol, length, max_pairs)


def test_rank_lists_leave_out_pairs_that_are_not_compared():
    """From camera 3, the images 2 and 3 of camera 2 are skipped, from all, those of its capture."""
    split = make_split([0, 0, 1, 0, 1, 2], [3, 1, 2, 2, 1, 4], [7, 7, 8, 9, 10, 11])
    trial = Trial(np.array([0, 4]), np.array([1, 2, 3, 4, 5]))
    lists = lists_of(split, [0, 1, 2, 3, 8, 20], trial, 3, skipped_cameras=frozenset({(3, 2)}))
    assert lists.query.tolist() == [0, 4]
    assert lists.gallery.tolist() == [[4, 5, -1], [3, 2, 1]]
    expected = np.cos(np.radians([[8, 20, np.nan], [5, 6, 7]]))
    np.testing.assert_allclose(lists.similarity, expected, rtol=1e-6)


def test_rank_lists_of_ties_and_of_embeddings_that_are_not_finite():
    """Ties keep the order of the gallery; its image 4, which is not a number, comes last."""
    split = make_split([0, 1, 2, 3, 4, 0])
    degrees = [0, 10, 10, 5, np.nan, 10]
    lists = lists_of(split, degrees, Trial(np.array([0]), np.array([4, 5, 1, 2, 3])), 8)
    assert lists.gallery.tolist() == [[3, 5, 1, 2, 4, -1, -1, -1]]
    np.testing.assert_array_equal(np.isnan(lists.similarity), [[0] * 4 + [1] * 4])


@pytest.mark.parametrize("protocol", ["sysu", "llcm"])
def test_rank_lists_contain_the_first_match_at_its_rank(protocol):
    embedding, split = random_case(protocol, SEEDS[0])
    ((trial,), skipped, _) = split.protocols["case"]
    by_image = RetrievalProtocol((trial,), skipped)
    unit = normalize(embedding, split)
    rank = rank_queries(unit, split, trial, by_image).rank
    lists = rank_lists(unit, split, trial, by_image, len(trial.gallery))
    match = (lists.gallery >= 0) & (split.labels[lists.gallery] == split.labels[lists.query, None])
    np.testing.assert_array_equal(np.where(match.any(1), match.argmax(1) + 1, -1), rank)
    for same, chunked in zip(
        lists, rank_lists(unit, split, trial, by_image, 10**3, max_pairs=7), strict=True
    ):
        np.testing.assert_array_equal(same, chunked[..., : same.shape[-1]])


def test_cmc_is_the_mean_of_the_trials_over_queries_with_a_match():
    unknown = np.zeros(4)
    trials = tuple(
        QueryScores(np.zeros(4, int), np.array(matches), np.array(rank), unknown, unknown)
        for matches, rank in (([1, 2, 0, 1], [1, 3, -1, 30]), ([1, 1, 0, 0], [2, NEVER, -1, -1]))
    )
    curve = cmc(ProtocolResult({}, (), trials), 4)
    np.testing.assert_allclose(
        curve, np.mean([[1 / 3, 1 / 3, 2 / 3, 2 / 3], [0, 0.5, 0.5, 0.5]], 0)
    )
