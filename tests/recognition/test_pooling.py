"""Generalized mean pooling."""

import jax
import jax.numpy as jnp
import numpy as np

from tinyjax.recognition.pooling import gem


def test_value_by_hand():
    x = np.zeros((1, 2, 2, 1))
    x[0, 0] = [[1], [3]]  # (1 + 27) / 4 = 7
    np.testing.assert_allclose(gem(x), 7 ** (1 / 3), rtol=1e-6)


def test_zero_and_negative_channels_are_exactly_zero():
    x = jnp.stack([jnp.zeros((2, 3)), -jnp.ones((2, 3)), jnp.full((2, 3), 1e-7)], -1)[None]
    gradient = jax.grad(lambda x: gem(x).sum())(x)
    assert np.array_equal(gem(x), np.zeros((1, 3)))
    assert np.array_equal(gradient, np.zeros_like(gradient))


def test_gradient_is_finite_and_that_of_finite_differences():
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.RandomState(0).standard_normal((1, 3, 2, 4)))
        x = x.at[..., 0].set(jnp.abs(x[..., 0]) * 1e-5)  # near the floor
        gradient = jax.grad(lambda x: gem(x).sum())(x)
        for i in (0, 1):
            step = jnp.zeros_like(x).at[0, 1, 1, i].set(1e-9)
            difference = (gem(x + step) - gem(x - step)).sum() / 2e-9
            np.testing.assert_allclose(gradient[0, 1, 1, i], difference, rtol=1e-4, atol=1e-6)
        assert np.isfinite(gradient).all()
