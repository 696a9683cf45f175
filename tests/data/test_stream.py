import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax.data.stream import batch_indices, gather


def indices(seed, steps, batch, n):
    draw = jax.jit(lambda step: batch_indices(jnp.uint32(seed), step, batch, n))
    return np.concatenate([draw(jnp.int32(step)) for step in range(steps)])


@pytest.mark.parametrize(("batch", "n"), [(4, 12), (4, 10), (5, 7), (7, 7), (1, 3)])
def test_every_epoch_sees_every_sample_once(batch, n):
    epochs = 5
    seen = indices(0, -(-epochs * n // batch), batch, n)[: epochs * n].reshape(epochs, n)
    np.testing.assert_array_equal(np.sort(seen, 1), np.tile(np.arange(n), (epochs, 1)))
    if n > 5:
        assert len({tuple(epoch) for epoch in seen.tolist()}) == epochs


def test_a_member_may_use_a_part():
    """The order of the whole set, with the others left out; all of it is no part."""
    used = jnp.arange(10) % 3 > 0  # 6 of 10
    part = [batch_indices(jnp.uint32(5), jnp.int32(step), 4, 10, used) for step in range(6)]
    whole = [batch_indices(jnp.uint32(5), jnp.int32(step), 10, 10) for step in range(4)]
    wanted = [i for epoch in whole for i in epoch.tolist() if i % 3]
    assert np.concatenate(part).tolist() == wanted
    every = batch_indices(jnp.uint32(5), jnp.int32(7), 4, 10, jnp.ones(10, bool))
    np.testing.assert_array_equal(every, batch_indices(jnp.uint32(5), jnp.int32(7), 4, 10))


def test_a_function_of_seed_and_step():
    again = batch_indices(jnp.uint32(3), jnp.int32(17), 4, 10)
    np.testing.assert_array_equal(indices(3, 18, 4, 10)[-4:], again)
    assert (indices(3, 5, 4, 100) != indices(4, 5, 4, 100)).any()


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(ValueError, match="at most 3"):
        batch_indices(0, 0, 4, 3)


def test_gather():
    out = gather({"a": jnp.arange(5) * 10}, jnp.array([3, 0]))
    np.testing.assert_array_equal(out["a"], [30, 0])
