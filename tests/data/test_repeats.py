"""Repeat factor sampling: factors by hand, and how often an epoch has each image."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax.data.repeats import RepeatedSource, draw_repeats, repeat_factors, repeat_indices
from tinyjax.data.sampling import batch_indices


def images(*labels):
    return [np.array(image_labels, int) for image_labels in labels]


def test_factors_by_hand():
    # Of 2000 images, one has class 0, 20 have class 1, all others have class 2.
    labels = images([0, 0, 1, 2], *([1, 1, 2] for _ in range(19)), *([2] for _ in range(1980)))
    factors = repeat_factors(labels, 0.001)
    np.testing.assert_allclose(factors, [np.sqrt(2), *[1] * 1999])
    np.testing.assert_allclose(repeat_factors(labels, 0.04), [np.sqrt(80), *[2] * 19, *[1] * 1980])


def test_images_without_objects_are_not_repeated():
    np.testing.assert_allclose(repeat_factors(images([], [3], [], []), 1.0), [1, 2, 1, 1])
    np.testing.assert_allclose(repeat_factors(images([], []), 1.0), [1, 1])


@pytest.mark.parametrize(
    ("offset", "expected"),
    # Cumulative sums 1.4, 2.4, 4.9
    [(0.0, [0, 1, 2, 2]), (0.3, [0, 1, 2, 2, 2]), (0.7, [0, 0, 1, 2, 2])],
)
def test_repeats_by_hand(offset, expected):
    assert repeat_indices(np.array([1.4, 1.0, 2.5]), offset).tolist() == expected


def test_mean_over_offsets_is_the_factor():
    factors = np.random.default_rng(0).uniform(1, 4, 30)
    factors[::3] = 1
    epochs = [repeat_indices(factors, offset) for offset in (np.arange(2000) + 0.5) / 2000]
    counts = np.array([np.bincount(epoch, minlength=30) for epoch in epochs])
    np.testing.assert_allclose(counts.mean(0), factors, atol=0.002)
    assert (counts >= np.floor(factors)).all()
    assert (counts <= np.ceil(factors)).all()
    assert (abs(counts.sum(1) - factors.sum()) < 1).all()


def test_offsets_of_seeds_are_uniform():
    """Image 0 has factor 1.5: half of the seeds repeat it, within 5 standard deviations."""
    labels = images([0], *([1] for _ in range(8)))
    threshold = 1.5**2 / 9
    np.testing.assert_allclose(repeat_factors(labels, threshold)[0], 1.5)
    lengths = np.array([len(draw_repeats(labels, seed, threshold)) for seed in range(1000)])
    assert set(lengths.tolist()) == {9, 10}
    assert abs((lengths == 10).mean() - 0.5) < 5 * np.sqrt(0.25 / 1000)
    np.testing.assert_array_equal(
        draw_repeats(labels, 3, threshold), draw_repeats(labels, 3, threshold)
    )
    assert draw_repeats(labels, 3, 0.0).tolist() == [*range(9)]


def test_each_epoch_has_all_repeats_once():
    samples = jnp.array([1, 2, 2, 2, 4, 4, -1])
    draw = jax.jit(partial(batch_indices, batch_size=3, n=5, subset=samples))
    batches = [draw(jnp.uint32(0), step) for step in range(6)]
    epochs = np.concatenate(batches).reshape(3, 6)
    np.testing.assert_array_equal(np.sort(epochs, 1), np.tile(samples[:6], (3, 1)))
    assert len({tuple(epoch) for epoch in epochs.tolist()}) > 1


def test_streamed_samples_are_repeated():
    source = RepeatedSource(lambda i, rng: {"image": i}, np.array([5, 7, 7]))
    rng = np.random.default_rng(0)
    assert [source(i, rng)["image"] for i in range(3)] == [5, 7, 7]
