"""Modality gap: embeddings whose gap is known."""

import numpy as np
import pytest

from tests.metrics.recognition_case import make_split
from tinyjax.metrics import modality_gap
from tinyjax.metrics.modality_gap import draw_pairs, measure, probe_accuracy
from tinyjax.metrics.retrieval import normalize


def make_case(identities=16, images=4, dim=64, shift=0.0, infrared_images=None):
    """Random identities; infrared embeddings are shifted along one direction."""
    random = np.random.RandomState(0)
    counts = (images, infrared_images or images)
    labels = np.concatenate([np.repeat(np.arange(identities), n) for n in counts])
    modality = np.repeat([0, 1], [identities * n for n in counts])
    embedding = random.standard_normal((identities, dim))[labels]
    embedding += 0.3 * random.standard_normal(embedding.shape)
    embedding += shift * modality[:, None] * random.standard_normal(dim)
    return embedding.astype(np.float32), make_split(labels, modality=modality)


def test_without_a_gap():
    gap = measure(*make_case())
    for name in ("visible", "infrared", "visible to infrared", "infrared to visible"):
        assert gap.scores[f"mAP {name}"] == 1
    assert 0.3 < gap.scores["probe accuracy"] < 0.7


def test_with_a_gap():
    """Within each modality the identities stay separate; across, they are less so."""
    gap = measure(*make_case(identities=40, dim=16, shift=4.0))
    assert gap.scores["mAP visible"] == gap.scores["mAP infrared"] == 1
    assert gap.scores["mAP infrared to visible"] < 0.95
    assert gap.scores["probe accuracy"] > 0.9
    centers = (gap.edges[:-1] + gap.edges[1:]) / 2
    mean = {name: counts @ centers / counts.sum() for name, counts in gap.distances.items()}
    assert mean["across positive"] > mean["infrared negative"]
    assert mean["visible positive"] < 0.2 < 0.8 < mean["visible negative"]


def test_a_modality_without_shared_identities():
    """Hand case: visible 0 0, infrared 1; nothing across has a match."""
    embedding = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    gap = measure(embedding, make_split([0, 0, 1], modality=[0, 0, 1]))
    assert gap.scores.pop("mAP visible") == 1
    assert np.isnan([*gap.scores.values()]).all()
    assert gap.distances["visible positive"].sum() == 2  # both orders
    assert gap.distances["visible positive"][25] == 2  # distance 1
    assert gap.distances["across negative"][int((1 - 0.5**0.5) / 0.04)] == 2
    assert sum(counts.sum() for counts in gap.distances.values()) == 4


def test_captures_are_not_compared():
    embedding, split = make_case(identities=4)
    twins = split._replace(captures=np.tile(np.arange(16), 2).astype(np.int32))
    for data, pairs in ((split, 4 * 16), (twins, 4 * 12)):
        assert measure(embedding, data).distances["across positive"].sum() == pairs
    # all images of an identity are one capture: no matches
    gap = measure(embedding, split._replace(captures=split.labels))
    assert np.isnan(gap.scores["mAP visible"])
    assert gap.distances["across positive"].sum() == 0
    assert gap.distances["across negative"].sum() == 16 * 12


def test_probe_is_balanced_over_modalities():
    """19 times as many visible images; with equal weights of images, the second value is 0.76."""
    for shift, low, high in ((0, 0.35, 0.65), (1, 0.85, 1)):
        embedding, split = make_case(40, 38, dim=16, shift=shift, infrared_images=2)
        assert low < probe_accuracy(normalize(embedding, split), split) < high


def test_probe_tests_unseen_identities():
    """Identities are seen in one modality: the probe must not recognize them."""
    random = np.random.RandomState(0)
    labels = np.repeat(np.arange(80), 10)
    modality = labels // 2 % 2  # both halves have both
    embedding = random.standard_normal((80, 256))[labels].astype(np.float32)
    split = make_split(labels, modality=modality)
    assert 0.3 < probe_accuracy(normalize(embedding, split), split) < 0.7


def test_probe_of_unusable_embeddings():
    embedding, split = make_case()
    constant = normalize(np.ones_like(embedding), split)
    assert probe_accuracy(constant, split) == 0
    embedding[3, 2] = np.nan
    assert np.isnan(probe_accuracy(normalize(embedding, split), split))
    visible = split._replace(inputs={"modality": np.zeros(len(split.labels), np.uint8)})
    assert np.isnan(probe_accuracy(normalize(make_case()[0], split), visible))


@pytest.mark.parametrize("positive", [False, True])
def test_all_pairs_of_a_small_split(positive):
    _, split = make_case(identities=3, images=2, infrared_images=3)
    visible, infrared = np.arange(6), np.arange(6, 15)
    a, b = draw_pairs(split, visible, infrared, positive)
    pairs = {*zip(a.tolist(), b.tolist(), strict=True)}
    expected = {
        (a, b)
        for a in range(6)
        for b in range(6, 15)
        if (split.labels[a] == split.labels[b]) == positive
    }
    assert pairs == expected
    within = draw_pairs(split, visible, visible, positive)
    assert len(within[0]) == (6 if positive else 24)
    assert (within[0] != within[1]).all()


def test_the_number_of_pairs_is_bounded():
    _, split = make_case(identities=20, images=10)
    visible = np.arange(200)
    a, b = draw_pairs(split, visible, visible, positive=True, max_pairs=500)
    assert 300 < len(a) <= 500
    assert (split.labels[a] == split.labels[b]).all()
    assert len({*split.labels[a].tolist()}) == 20
    again = draw_pairs(split, visible, visible, positive=True, max_pairs=500)
    np.testing.assert_array_equal(a, again[0])
    np.testing.assert_array_equal(b, again[1])


def test_the_chunk_size_changes_nothing(monkeypatch):
    embedding, split = make_case(shift=1.0)
    unchunked = measure(embedding, split)
    monkeypatch.setattr(modality_gap, "_PAIR_CHUNK", 7)
    chunked = measure(embedding, split, max_pairs=50)
    assert unchunked.scores == chunked.scores
    for name, counts in unchunked.distances.items():
        np.testing.assert_array_equal(counts, chunked.distances[name])
