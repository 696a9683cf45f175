"""`conv2d` against the library call, in values and both gradients, alone and mapped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jax import lax

from tinyjax.ops.conv import conv2d


def library(x, kernel, stride, groups):
    half = kernel.shape[0] // 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), [(half, half)] * 2,
        feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


@st.composite
def sizes(draw):
    """Height, width, channels in and out, kernel, stride, groups."""
    h, w = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    k, stride = draw(st.tuples(st.sampled_from((1, 3, 5, 7)), st.sampled_from((1, 2))))
    kind = draw(st.sampled_from(("dense", "depthwise", "grouped")))
    if kind == "depthwise":
        c = draw(st.integers(1, 6))
        return h, w, c, c, k, stride, c
    groups = draw(st.integers(2, 3)) if kind == "grouped" else 1
    c, d = draw(st.tuples(st.integers(1, 6), st.integers(1, 4)))
    return h, w, c * groups, d * groups, k, stride, groups


def everything(conv):
    """Values and both gradients: alone; of two members, each with its own kernel, as the gradient
    of a map and as a map of gradients; and of two that share their images.
    """

    def alone(x, kernel, dy):
        y, back = jax.vjp(conv, x, kernel)
        return y, *back(dy)

    def all_ways(x, kernel, dy):
        of_map, back = jax.vjp(jax.vmap(conv), x, kernel)
        shared = jax.vmap(alone, (None, 0, 0))(x[0], kernel, dy)
        return alone(x[0], kernel[0], dy[0]), jax.vmap(alone)(x, kernel, dy), (
            of_map, *back(dy),
        ), shared  # fmt: skip

    return jax.jit(all_ways)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(sizes(), st.sampled_from(("float32", "bfloat16")))
@example((8, 8, 4, 4, 3, 1, 4), "float32")
@example((9, 7, 4, 4, 3, 2, 4), "float32")
@example((3, 2, 2, 2, 5, 2, 2), "float32")  # smaller than the kernel
@example((6, 7, 5, 3, 1, 2, 1), "float32")
@example((8, 9, 5, 4, 3, 1, 1), "float32")
@example((9, 8, 1, 4, 3, 2, 1), "float32")
@example((6, 6, 4, 6, 3, 1, 2), "float32")
def test_values_and_gradients(size, dtype):
    """Within rounding of float64's, alone and mapped; rounding is of the sum of magnitudes."""
    h, w, c, d, k, stride, groups = size
    rng = np.random.default_rng(0)
    shapes = (2, h, w, c), (k, k, c // groups, d), (2, -(-h // stride), -(-w // stride), d)
    arrays = [jnp.asarray(rng.normal(size=(2, *shape)), dtype) for shape in shapes]
    got = everything(lambda x, kernel: conv2d(x, kernel, stride, groups))(*arrays)
    with jax.enable_x64(True):
        wide = [np.asarray(array, np.float64) for array in arrays]
        reference = everything(lambda x, kernel: library(x, kernel, stride, groups))
        wanted = jax.device_get(reference(*wide))
        magnitudes = jax.device_get(reference(*map(np.abs, wide)))
    for ours, theirs, scale in zip(*map(jax.tree.leaves, (got, wanted, magnitudes)), strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == dtype
        slack = 8 * float(jnp.finfo(dtype).eps) * np.maximum(scale, 1e-3)
        assert np.all(np.abs(np.asarray(ours, np.float64) - theirs) <= slack)


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
