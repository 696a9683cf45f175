"""Batches of P identities x K images: epochs of identities and of images, and pairs of rows."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax.data.sampling import shard_row_indices
from tinyjax.errors import UserError
from tinyjax.recognition.sampling import IdentityTables, identity_tables, sample_identities

sample = jax.jit(sample_identities, static_argnames=("identities", "images"))

COUNTS = [(1, 5), (2, 2), (4, 1), (7, 3), (3, 3), (2, 9), (5, 4)]  # visible, infrared images


def make_samples(counts, seed=0):
    """Labels and modality of samples in random order."""
    pairs = [(i, m) for i, both in enumerate(counts) for m in (0, 1) for _ in range(both[m])]
    labels, modality = np.random.default_rng(seed).permutation(pairs).T
    return labels.astype(np.int32), modality.astype(np.uint8)


def make_tables(counts, identities, mask=None):
    labels, modality = make_samples(counts)
    names = [f"id{i}" for i in range(len(counts))]
    return labels, modality, *identity_tables(labels, modality, names, identities, mask)


def test_tables_list_all_images_of_both_modalities():
    labels, modality, tables, left_out = make_tables(COUNTS, 3)
    assert left_out == ()
    np.testing.assert_array_equal(tables.counts, COUNTS)
    for i, both in enumerate(COUNTS):
        for m in (0, 1):
            indices = tables.images[i, m, : both[m]]
            expected = np.flatnonzero((labels == i) & (modality == m))
            np.testing.assert_array_equal(np.sort(indices), expected)


@pytest.mark.parametrize(("identities", "images"), [(7, 2), (3, 4), (4, 1)])
def test_batches_over_epochs(identities, images):
    """Seven identities: each batch has different ones, each epoch all of them. Images of an
    identity differ within a batch if there are K, and all occur within ceil(n / K) epochs.
    """
    labels, modality, tables, _ = make_tables(COUNTS, identities)
    half = identities * images
    steps, epochs = -(-len(COUNTS) // identities), 9
    batches = np.array(
        [
            sample(3, step, tables, identities=identities, images=images)
            for step in range(steps * epochs)
        ]
    )
    assert batches.shape == (steps * epochs, 2 * half)
    assert not modality[batches[:, :half]].any()
    assert modality[batches[:, half:]].all()
    np.testing.assert_array_equal(labels[batches[:, :half]], labels[batches[:, half:]])
    for batch in batches:
        names, occurrences = np.unique(labels[batch[:half]], return_counts=True)
        assert len(names) == identities
        assert set(occurrences) == {images}
        for i in names:
            for m in (0, 1):
                drawn = batch[(labels[batch] == i) & (modality[batch] == m)]
                assert len(set(drawn.tolist())) == min(images, COUNTS[i][m])
    orders = [labels[epoch[:, :half]] for epoch in batches.reshape(epochs, steps, -1)]
    for order in orders:
        occurrences = np.bincount(order.ravel(), minlength=len(COUNTS)) / images
        assert occurrences.min() == 1
        assert occurrences.sum() == steps * identities
        assert occurrences.max() == (1 if len(COUNTS) % identities == 0 else 2)
    assert len({order.tobytes() for order in orders}) == epochs
    for i, both in enumerate(COUNTS):
        for m in (0, 1):
            cycle = -(-both[m] // images) * steps
            for start in range(0, len(batches) - cycle + 1, cycle):
                rows = batches[start : start + cycle]
                drawn = rows[(labels[rows] == i) & (modality[rows] == m)]
                assert len(set(drawn.tolist())) == both[m]


def test_all_identities_and_images_are_equally_likely():
    tables = make_tables([(4, 4)] * 5, 3)[2]
    draw = jax.vmap(partial(sample, identities=3, images=2), (0, None, None))
    batches = np.concatenate([draw(jnp.arange(600), step, tables) for step in range(2)])
    counts = np.bincount(batches.ravel(), minlength=40)
    expected = batches.size / 40
    assert counts.max() < 1.25 * expected
    assert counts.min() > 0.75 * expected


@pytest.mark.parametrize("shards", [2, 4])
def test_shards_have_whole_pairs(shards):
    """Each shard has the same identities in the visible as in the infrared half of its rows."""
    labels, modality, tables, _ = make_tables(COUNTS, 6)
    batch = sample(0, 0, tables, identities=6, images=4)
    for shard in range(shards):
        rows = np.asarray(batch)[shard_row_indices(shard, shards, 48)]
        half = len(rows) // 2
        np.testing.assert_array_equal(modality[rows], [0] * half + [1] * half)
        np.testing.assert_array_equal(np.sort(labels[rows[:half]]), np.sort(labels[rows[half:]]))


def test_incomplete_identities_are_left_out():
    """In the whole set and in a subset, whose tables have the same shape."""
    labels, modality, tables, left_out = make_tables([(2, 2), (3, 0), (0, 1), (1, 4)], 2)
    assert left_out == ("id1", "id2")
    batches = [np.asarray(sample(0, s, tables, identities=2, images=2)) for s in range(4)]
    assert set(labels[np.concatenate(batches)].tolist()) == {0, 3}

    labels, modality = make_samples(COUNTS)
    mask = (labels != 4) & ~((labels == 5) & (modality == 1))
    mask[np.flatnonzero(labels == 6)[0]] = False
    *_, subset, left_out = make_tables(COUNTS, 3, mask)
    assert left_out == ("id4", "id5")
    assert subset.images.shape == make_tables(COUNTS, 3)[2].images.shape
    batches = [np.asarray(sample(0, s, subset, identities=3, images=4)) for s in range(20)]
    assert set(np.concatenate(batches).tolist()) == set(
        np.flatnonzero(mask & (labels != 5)).tolist()
    )


def test_too_few_identities():
    with pytest.raises(
        UserError, match=r"3 identities per batch, but only 2 .*; id1, id2 lack one"
    ):
        make_tables([(2, 2), (3, 0), (0, 1), (1, 4)], 3)


def test_batch_depends_on_seed_and_step_and_members_draw_as_alone():
    """Two members with tables of different subsets."""
    *_, full, _ = make_tables(COUNTS, 3)
    *_, small, _ = make_tables(COUNTS, 3, make_samples(COUNTS)[0] != 2)
    tables = IdentityTables(*(np.stack(pair) for pair in zip(full, small, strict=True)))
    draw = jax.vmap(partial(sample, identities=3, images=2), (0, 0, 0))
    seeds, steps = jnp.array([1, 2]), jnp.array([5, 7])
    for batch, seed, step, table in zip(
        draw(seeds, steps, tables), seeds, steps, (full, small), strict=True
    ):
        np.testing.assert_array_equal(batch, sample(seed, step, table, identities=3, images=2))
        other = sample(seed + 1, step, table, identities=3, images=2)
        assert (batch != other).any()
