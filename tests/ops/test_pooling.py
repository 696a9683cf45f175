"""Pooling against its definition, window by window."""

import jax
import numpy as np
import pytest

from tinyjax.ops.pooling import max_pool, mean_pool


def pool_by_window(x, size, stride, padding, reduce):
    """Reduce each window [B, h, w, C] of the pixels inside the image."""
    height, width = (-(-side // stride) for side in x.shape[1:3])
    out = np.empty((x.shape[0], height, width, x.shape[3]), x.dtype)
    for i in range(height):
        for j in range(width):
            top, left = i * stride - padding, j * stride - padding
            window = x[:, max(top, 0) : top + size, max(left, 0) : left + size]
            out[:, i, j] = reduce(window, axis=(1, 2))
    return out


@pytest.mark.parametrize("shape", [(8, 6), (5, 7), (1, 2)])
@pytest.mark.parametrize(("size", "padding"), [(3, 1), (2, 0)])
def test_max_pool(shape, size, padding):
    x = np.random.default_rng(0).standard_normal((2, *shape, 3)).astype(np.float32) - 3
    expected = pool_by_window(x, size, 2, padding, np.max)
    np.testing.assert_array_equal(max_pool(x, size, 2), expected)


@pytest.mark.parametrize("shape", [(8, 6), (5, 7), (1, 2)])
def test_mean_pool(shape):
    x = np.random.default_rng(0).standard_normal((2, *shape, 3)).astype(np.float32)
    expected = pool_by_window(x, 2, 2, 0, np.mean)
    np.testing.assert_allclose(mean_pool(x), expected, rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda x: mean_pool(x).sum())(x)
    np.testing.assert_allclose(gradient.sum(), expected.size, rtol=1e-5)
