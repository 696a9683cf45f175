"""Pooling against its definition, window by window, and against XLA's reduce_window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tinyjax.ops.pooling import max_pool, max_pool_2x2, mean_pool_2x2, spatial_max

shapes = pytest.mark.parametrize("shape", [(8, 6), (7, 9), (1, 2)])


def pool_by_window(x, size, padding, reduce):
    """Reduce each window [B, h, w, C], with a stride of 2, of the pixels inside the image."""
    height, width = (-(-side // 2) for side in x.shape[1:3])
    out = np.empty((x.shape[0], height, width, x.shape[3]), x.dtype)
    for i in range(height):
        for j in range(width):
            top, left = 2 * i - padding, 2 * j - padding
            window = x[:, max(top, 0) : top + size, max(left, 0) : left + size]
            out[:, i, j] = reduce(window, axis=(1, 2))
    return out


@shapes
def test_maxima(shape):
    x = np.random.default_rng(0).standard_normal((2, *shape, 3)).astype(np.float32) - 3
    np.testing.assert_array_equal(max_pool(x), pool_by_window(x, 3, 1, np.max))
    np.testing.assert_array_equal(max_pool_2x2(x), pool_by_window(x, 2, 0, np.max))
    np.testing.assert_array_equal(spatial_max(x), x.max((1, 2), keepdims=True))


def test_the_first_of_equal_maxima_receives_the_gradient():
    """Also where the maximum is not a number, which must not be hidden."""
    x = jnp.array([[1.0, 3.0, 0.0, 0.0], [3.0, 2.0, 0.0, 0.0], [3.0, jnp.nan, 1.0, 2.0]])
    x = x[None, :, :, None]
    pooled, pull_back = jax.vjp(max_pool_2x2, x)
    np.testing.assert_array_equal(pooled[0, ..., 0], [[3, 0], [jnp.nan, 2]])
    (gradient,) = pull_back(jnp.array([[1.0, 2.0], [3.0, 4.0]])[None, :, :, None])
    expected = [[0, 1, 2, 0], [0, 0, 0, 0], [0, 3, 0, 4]]
    np.testing.assert_array_equal(gradient[0, ..., 0], expected)
    assert jnp.isnan(spatial_max(x)).all()
    gradient = jax.grad(lambda x: spatial_max(x).sum())(x[:, :2])
    np.testing.assert_array_equal(gradient[0, ..., 0], [[0, 1, 0, 0], [0, 0, 0, 0]])


@shapes
def test_means(shape):
    x = np.random.default_rng(0).standard_normal((2, *shape, 3)).astype(np.float32)
    expected = pool_by_window(x, 2, 0, np.mean)
    np.testing.assert_allclose(mean_pool_2x2(x), expected, rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda x: mean_pool_2x2(x).sum())(x)
    np.testing.assert_allclose(gradient.sum(), expected.size, rtol=1e-5)


def xla_max_pool(x):
    padding = [(0, 0), (1, 1), (1, 1), (0, 0)]
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)


@shapes
def test_gradient_of_equal_maxima(shape):
    """Both give the gradient of equal values to the first of a window, as torch does."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.integers(0, 3, (2, *shape, 4)), jnp.float32)
    dy = jnp.asarray(rng.normal(size=xla_max_pool(x).shape), jnp.float32)

    def gradient(pool, x, dy):
        return jax.vjp(pool, x)[1](dy)[0]

    dx = gradient(max_pool, x, dy)
    np.testing.assert_allclose(dx, gradient(xla_max_pool, x, dy), rtol=1e-6, atol=1e-6)
    of_members = jax.vmap(lambda x, dy: gradient(max_pool, x, dy))
    stacked = of_members(jnp.stack([x, -x]), jnp.stack([dy, dy]))
    np.testing.assert_array_equal(stacked[0], dx)
