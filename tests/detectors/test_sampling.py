"""Balanced samples: exact counts, and equal probabilities."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax.detectors.sampling import balanced_sample

sample = jax.jit(balanced_sample, static_argnames=("size", "max_positives"))


def make_candidates(num_positives, num_negatives, n=40):
    """Masks of positives and negatives in random order; the other candidates are neither."""
    order = np.random.default_rng(0).permutation(n)
    positive, negative = np.zeros((2, n), bool)
    positive[order[:num_positives]] = True
    negative[order[num_positives : num_positives + num_negatives]] = True
    return jnp.asarray(positive), jnp.asarray(negative)


@pytest.mark.parametrize(
    ("positives", "negatives", "expected"),
    [
        (3, 30, (3, 13)),  # negatives fill the other slots
        (20, 20, (8, 8)),
        (20, 2, (8, 2)),  # empty slots remain, as in torchvision
        (0, 5, (0, 5)),
        (0, 0, (0, 0)),
    ],
)
def test_counts_are_exact(positives, negatives, expected):
    positive, negative = make_candidates(positives, negatives)
    index, is_positive, is_valid = sample(jax.random.key(0), positive, negative, 16, 8)
    assert index.shape == (16,)
    assert (int(is_positive.sum()), int((is_valid & ~is_positive).sum())) == expected
    chosen = np.asarray(index)[np.asarray(is_valid)]
    assert len(set(chosen.tolist())) == len(chosen)
    assert positive[index[is_positive]].all()
    assert negative[index[is_valid & ~is_positive]].all()


def test_more_slots_than_candidates():
    positive, negative = make_candidates(2, 3, n=5)
    index, is_positive, is_valid = sample(jax.random.key(0), positive, negative, 16, 8)
    assert (int(is_positive.sum()), int(is_valid.sum())) == (2, 5)
    assert sorted(index[is_valid].tolist()) == [0, 1, 2, 3, 4]
    assert ((index >= 0) & (index < 5)).all()


def test_all_candidates_are_equally_likely():
    positive, negative = make_candidates(10, 20)
    draws = 4000
    keys = jax.random.split(jax.random.key(0), draws)
    drawn = jax.vmap(partial(sample, size=8, max_positives=4), (0, None, None))(
        keys, positive, negative
    )
    counts = np.bincount(np.asarray(drawn.indices).reshape(-1), minlength=40)
    for candidates, share in ((positive, 4 / 10), (negative, 4 / 20)):
        deviation = np.sqrt(draws * share * (1 - share))
        assert np.abs(counts[np.asarray(candidates)] - draws * share).max() < 4 * deviation
    assert counts.sum() == 8 * draws
