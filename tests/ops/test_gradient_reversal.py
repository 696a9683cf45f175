"""Gradient reversal: the identity, whose gradient has the opposite sign."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax.ops.gradient_reversal import gradient_reversal, reversal_strength


def test_value_is_kept_and_gradient_is_reversed():
    """Against a finite difference of the function without reversal."""
    x, direction = jnp.array([0.3, -1.2, 2.0]), jnp.array([0.5, 1.0, -0.25])

    def function(x):
        return jnp.sin(x).sum()

    np.testing.assert_array_equal(gradient_reversal(x, 0.7), x)
    step = 1e-2 * direction
    slope = (function(x + step) - function(x - step)) / 2e-2
    for strength in (0.0, 0.7, 2.0):
        gradient = jax.grad(lambda x, s=strength: function(gradient_reversal(x, s)))(x)
        expected = pytest.approx(-strength * float(slope), rel=1e-3, abs=1e-6)
        assert float(gradient @ direction) == expected


def test_members_with_different_strengths():
    x, strengths = jnp.ones((2, 3), jnp.bfloat16), jnp.array([0.0, 0.5])
    gradient = jax.vmap(jax.grad(lambda x, s: gradient_reversal(x, s).sum()))(x, strengths)
    assert gradient.dtype == jnp.bfloat16
    np.testing.assert_array_equal(gradient.astype(float), [[0] * 3, [-0.5] * 3])


def test_ramp():
    """2 / (1 + exp(-10 p)) - 1 of the paper, constant after the last step."""
    p = np.array([0, 0.1, 0.5, 1, 1])
    expected = 2 / (1 + np.exp(-10 * p)) - 1
    steps = np.array([0, 20, 100, 200, 500])
    np.testing.assert_allclose(reversal_strength(steps, 200), expected, atol=1e-6)
