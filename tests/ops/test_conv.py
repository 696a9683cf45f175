"""`conv2d` against the library call, in values and both gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from tinyjax.ops.conv import conv2d

CASES = [  # height, width, channels in, out, kernel, stride, groups
    (8, 8, 4, 4, 3, 1, 4),
    (9, 7, 4, 4, 3, 2, 4),
    (8, 10, 3, 3, 5, 1, 3),
    (7, 8, 3, 3, 5, 2, 3),
    (6, 6, 2, 2, 7, 2, 2),
    (3, 2, 2, 2, 5, 2, 2),  # smaller than the kernel
    (6, 7, 5, 3, 1, 1, 1),
    (6, 7, 5, 3, 1, 2, 1),
    (8, 9, 3, 4, 3, 1, 1),
    (9, 8, 1, 4, 3, 2, 1),
    (8, 8, 1, 1, 3, 1, 1),
    (6, 6, 4, 6, 3, 1, 2),
]


def library(x, kernel, stride, groups):
    half = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(half, half)] * 2,
        feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


@pytest.mark.parametrize(("h", "w", "c", "d", "k", "stride", "groups"), CASES)
def test_values_and_gradients(h, w, c, d, k, stride, groups):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, h, w, c)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(k, k, c // groups, d)), jnp.float32)
    ours, back = jax.vjp(lambda x, kernel: conv2d(x, kernel, stride, groups), x, kernel)
    theirs, reference = jax.vjp(lambda x, kernel: library(x, kernel, stride, groups), x, kernel)
    assert ours.shape == (2, -(-h // stride), -(-w // stride), d)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    dy = jnp.asarray(rng.normal(size=ours.shape), jnp.float32)
    for got, wanted in zip(back(dy), reference(dy), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_bfloat16_stays_bfloat16():
    x, kernel = jnp.ones((1, 8, 8, 4), jnp.bfloat16), jnp.ones((3, 3, 1, 4), jnp.bfloat16)
    y, back = jax.vjp(lambda x, kernel: conv2d(x, kernel, 1, 4), x, kernel)
    assert [y.dtype, *(g.dtype for g in back(y))] == [jnp.bfloat16] * 3
    assert float(y[0, 4, 4, 0]) == 9


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_is_not_a_convolution_of_the_library_on_cpu(stride):
    """The point of the module: XLA:CPU's grouped convolution is the slow path."""
    x, kernel = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 1, 4))
    slopes = jax.grad(lambda x, kernel: conv2d(x, kernel, stride, 4).sum(), (0, 1))
    text = jax.jit(slopes).lower(x, kernel).compile().as_text()
    assert "convolution(" not in text
    assert (
        "convolution("
        in jax.jit(lambda x, k: library(x, k, stride, 4)).lower(x, kernel).compile().as_text()
    )
