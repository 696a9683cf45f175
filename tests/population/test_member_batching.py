"""One member's function, batched over members."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax.population.member_batching import batch_members


@pytest.mark.parametrize(
    ("method", "chunk_size"), [("vmap", 0), ("map", 0), ("chunks", 2), ("chunks", 5)]
)
def test_batched_results_equal_single_results(method, chunk_size):
    """Five members, a number that chunks of two do not divide."""

    def function(member, shared):
        return {"sum": jnp.tanh(member["w"] @ shared).sum(), "w": member["w"] * member["scale"]}

    rng = np.random.default_rng(0)
    members = {"w": rng.normal(size=(5, 3, 4)), "scale": rng.normal(size=5)}
    shared = rng.normal(size=(4, 2))
    batched = jax.jit(batch_members(function, method, chunk_size))(members, shared)
    for i in range(5):
        single = function({name: leaf[i] for name, leaf in members.items()}, shared)
        for name, leaf in single.items():
            np.testing.assert_allclose(batched[name][i], leaf, rtol=1e-5)


def test_method_none_returns_the_function_itself():
    function = lambda member, shared: member  # noqa: E731
    assert batch_members(function, "none") is function
