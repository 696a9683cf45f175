"""The order of samples: complete epochs, random and reproducible."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax.data.sampling import batch_indices, gather, permute


@partial(jax.jit, static_argnames=("batch", "n"))
def draw(seed, step, *, batch, n, subset=None):
    return batch_indices(jnp.uint32(seed), step, batch, n, subset)


def indices(seed, steps, batch, n):
    return np.concatenate([draw(seed, step, batch=batch, n=n) for step in range(steps)])


@pytest.mark.parametrize(("batch", "n"), [(4, 12), (4, 10), (5, 7), (7, 7), (1, 3)])
def test_each_epoch_has_each_sample_once(batch, n):
    epochs = 5
    seen = indices(0, -(-epochs * n // batch), batch, n)[: epochs * n].reshape(epochs, n)
    np.testing.assert_array_equal(np.sort(seen, 1), np.tile(np.arange(n), (epochs, 1)))
    if n > 5:
        assert len({tuple(epoch) for epoch in seen.tolist()}) == epochs


def test_member_subset_is_sampled_once_per_epoch():
    """Each sample of the subset occurs once per epoch; the full subset equals no subset."""
    subset = jnp.array([1, 2, 4, 5, 7, 8, -1, -1, -1, -1])
    batches = [draw(5, step, batch=4, n=10, subset=subset) for step in range(6)]
    epochs = np.concatenate(batches).reshape(4, 6)
    np.testing.assert_array_equal(np.sort(epochs, 1), np.tile(subset[:6], (4, 1)))
    full = draw(5, 7, batch=4, n=10, subset=jnp.arange(10))
    np.testing.assert_array_equal(full, draw(5, 7, batch=4, n=10))


@pytest.mark.parametrize("n", [1, 2, 4, 5, 17, 1000, 5784])
def test_permutation_is_complete_and_uncorrelated(n):
    keys = jnp.broadcast_to(jax.random.key(7), n)
    order = jax.jit(lambda: permute(keys, jnp.arange(n), n))()
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    if n > 100:  # no trend, and no correlation of neighbors
        line = np.arange(n)
        assert abs(np.corrcoef(line, order)[0, 1]) < 5 / np.sqrt(n)
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 5 / np.sqrt(n)


def test_all_permutations_are_equally_likely():
    """Chi squared of 24 orders in 24,000 permutations: expected 23 +- 7; at most 5 sigma."""
    keys = jax.random.split(jax.random.key(0), 24_000)
    orders = jax.jit(jax.vmap(lambda key: permute(jnp.stack([key] * 4), jnp.arange(4), 4)))(keys)
    _, count = np.unique(np.asarray(orders) @ [64, 16, 4, 1], return_counts=True)
    assert len(count) == 24
    assert ((count - 1000) ** 2 / 1000).sum() < 23 + 5 * np.sqrt(2 * 23)


def test_batch_depends_on_seed_and_step():
    batch = draw(3, 17, batch=4, n=10)
    np.testing.assert_array_equal(indices(3, 18, 4, 10)[-4:], batch)
    assert (indices(3, 5, 4, 100) != indices(4, 5, 4, 100)).any()


def test_batch_larger_than_the_set_is_an_error():
    with pytest.raises(ValueError, match="at most 3"):
        batch_indices(0, 0, 4, 3)


def test_gather():
    out = gather({"a": jnp.arange(5) * 10}, jnp.array([3, 0]))
    np.testing.assert_array_equal(out["a"], [30, 0])
