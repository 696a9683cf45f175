"""Convolutions of several members at once, and the forms of them that a TPU computes faster."""

import jax
import numpy as np
import pytest
from jax import lax

from tinyjax.ops.block_conv import block_conv, fold_rows


def normal(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def conv(x, kernel, strides, padding):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=dimensions)


def test_members_do_not_mix():
    x, kernel = normal(2, 3, 6, 5, 2), normal(2, 3, 3, 2, 4)
    expected = jax.vmap(lambda x, kernel: conv(x, kernel, (2, 2), ((1, 1), (1, 1))))(x, kernel)
    wide = np.moveaxis(x, 0, 3).reshape(3, 6, 5, 4)  # m b h w c -> b h w (m c)
    actual = block_conv(wide, kernel, (2, 2), ((1, 1), (1, 1))).reshape(3, 3, 3, 2, 4)
    np.testing.assert_allclose(np.moveaxis(actual, 3, 0), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("height", "size", "stride", "padding"),
    [(8, 3, 2, (1, 1)), (7, 3, 2, (1, 1)), (8, 5, 2, (2, 2)), (9, 3, 3, (1, 2)), (8, 2, 2, (0, 0))],
)
def test_folded_rows(height, size, stride, padding):
    x, kernel = normal(2, height, 6, 3), normal(size, size, 3, 4)
    paddings = padding, (1, 1)
    expected = conv(x, kernel, (stride, 2), paddings)
    x, kernel, paddings = fold_rows(x, kernel, stride, paddings)
    assert x.shape == (2, -(-height // stride), 6, 3 * stride)
    actual = conv(x, kernel, (1, 2), paddings)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
