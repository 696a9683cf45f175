"""One member's function over members."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax.population.member_batching import batch_members


@pytest.mark.parametrize(("how", "chunk"), [("vmap", 0), ("map", 0), ("chunks", 2), ("chunks", 5)])
def test_each_member_is_what_it_is_alone(how, chunk):
    """Five members, which chunks of two do not divide."""

    def one(own, shared):
        return {"sum": jnp.tanh(own["w"] @ shared).sum(), "w": own["w"] * own["rate"]}

    random = np.random.default_rng(0)
    own = {"w": random.normal(size=(5, 3, 4)), "rate": random.normal(size=5)}
    shared = random.normal(size=(4, 2))
    found = jax.jit(batch_members(one, how, chunk))(own, shared)
    for i in range(5):
        alone = one({name: leaf[i] for name, leaf in own.items()}, shared)
        for name, leaf in alone.items():
            np.testing.assert_allclose(found[name][i], leaf, rtol=1e-5)


def test_one_member_is_lifted_by_nothing():
    one = lambda own, shared: own  # noqa: E731
    assert batch_members(one, "none") is one
