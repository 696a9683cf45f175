"""`conv2d` against XLA's convolution, in values and both gradients, single and vmapped."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from tinyjax.ops.conv import conv2d, patch_conv


def xla_conv(x, kernel, stride, groups):
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
    form = draw(st.sampled_from(("dense", "depthwise", "grouped")))
    if form == "depthwise":
        c = draw(st.integers(1, 6))
        return h, w, c, c, k, stride, c
    groups = draw(st.integers(2, 3)) if form == "grouped" else 1
    c, d = draw(st.tuples(st.integers(1, 6), st.integers(1, 4)))
    return h, w, c * groups, d * groups, k, stride, groups


def value_and_gradients(conv, x, kernel, dy):
    y, vjp = jax.vjp(conv, x, kernel)
    return y, *vjp(dy)


def in_all_ways(conv, x, kernel, dy):
    """A convolution and both its gradients, in all ways that a step evaluates them.

    For a single member; for two members with different kernels, as the vmap of gradients and as
    the gradient of a vmap; and for two members that share their images.
    """
    single = partial(value_and_gradients, conv)
    return (
        single(x[0], kernel[0], dy[0]),
        jax.vmap(single)(x, kernel, dy),
        value_and_gradients(jax.vmap(conv), x, kernel, dy),
        jax.vmap(single, (None, 0, 0))(x[0], kernel, dy),
    )


def check_values_and_gradients(size, dtype):
    """They match float64 up to rounding, which is relative to the sum of magnitudes."""
    h, w, c, d, k, stride, groups = size
    rng = np.random.default_rng(0)
    shapes = (2, h, w, c), (k, k, c // groups, d), (2, -(-h // stride), -(-w // stride), d)
    arrays = [jnp.asarray(rng.normal(size=(2, *shape)), dtype) for shape in shapes]
    conv = partial(conv2d, stride=stride, groups=groups)
    actual = jax.jit(partial(in_all_ways, conv))(*arrays)
    with jax.enable_x64(True):
        xla = partial(xla_conv, stride=stride, groups=groups)
        single = jax.jit(partial(value_and_gradients, xla))

        def reference(x, kernel, dy):
            first, second, shared = (
                jax.device_get(single(x[i], kernel[j], dy[j])) for i, j in ((0, 0), (1, 1), (0, 1))
            )
            members, sharing = (
                [np.stack(pair) for pair in zip(first, other, strict=True)]
                for other in (second, shared)
            )
            return first, members, members, sharing

        arrays64 = [np.asarray(array, np.float64) for array in arrays]
        expected, magnitudes = reference(*arrays64), reference(*map(np.abs, arrays64))
    leaves = map(jax.tree.leaves, (actual, expected, magnitudes))
    for value, expected_value, magnitude in zip(*leaves, strict=True):
        assert value.shape == expected_value.shape
        assert value.dtype == dtype
        tolerance = 8 * float(jnp.finfo(dtype).eps) * np.maximum(magnitude, 1e-3)
        assert np.all(np.abs(np.asarray(value, np.float64) - expected_value) <= tolerance)


@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        pytest.param((8, 8, 4, 4, 3, 1, 4), "float32", id="depthwise"),
        pytest.param((9, 7, 4, 4, 3, 2, 4), "float32", id="depthwise-stride-2"),
        pytest.param((9, 7, 4, 4, 3, 2, 4), "bfloat16", id="depthwise-bfloat16"),
        pytest.param((3, 2, 2, 2, 5, 2, 2), "float32", id="input-smaller-than-kernel"),
        pytest.param((6, 7, 5, 3, 1, 2, 1), "float32", id="pointwise"),
        pytest.param((8, 9, 5, 4, 3, 1, 1), "float32", id="dense"),
        pytest.param((9, 8, 5, 4, 3, 2, 1), "float32", id="dense-stride-2"),
        pytest.param((9, 8, 1, 4, 3, 2, 1), "float32", id="one-channel-image"),
        pytest.param((9, 8, 3, 32, 7, 2, 1), "float32", id="resnet-stem"),
        pytest.param((6, 6, 4, 6, 3, 1, 2), "float32", id="grouped"),
    ],
)
def test_values_and_gradients(size, dtype):
    check_values_and_gradients(size, dtype)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, derandomize=True)
@given(sizes(), st.sampled_from(("float32", "bfloat16")))
def test_values_and_gradients_of_random_sizes(size, dtype):
    check_values_and_gradients(size, dtype)


@pytest.mark.parametrize("batch", [1, 8, 11])
def test_depthwise_kernel_gradient_of_any_batch(batch):
    rng = np.random.default_rng(0)
    x, dy = (jnp.asarray(rng.normal(size=(batch, 5, 6, 3)), jnp.float32) for _ in range(2))
    kernel = jnp.zeros((3, 3, 1, 3))
    actual, expected = (
        jax.jit(lambda kernel, conv=conv: jax.vjp(lambda k: conv(x, k, 1, 3), kernel)[1](dy))(
            kernel
        )
        for conv in (conv2d, xla_conv)
    )
    np.testing.assert_allclose(actual[0], expected[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_depthwise_is_not_lowered_to_an_xla_convolution_on_cpu(stride):
    x, kernel = jnp.ones((1, 8, 8, 4)), jnp.ones((3, 3, 1, 4))

    def compiled_text(function):
        return jax.jit(function).lower(x, kernel).compile().as_text()

    gradients = jax.grad(lambda x, kernel: conv2d(x, kernel, stride, 4).sum(), (0, 1))
    assert "convolution(" not in compiled_text(gradients)
    assert "convolution(" in compiled_text(lambda x, kernel: xla_conv(x, kernel, stride, 4))


@pytest.mark.parametrize(("shape", "k"), [((8, 12, 3), 4), ((5, 7, 2), 2), ((1, 3, 3), 4)])
def test_patch_conv_pads_at_the_bottom_and_right(shape, k):
    x = jax.random.normal(jax.random.key(0), (2, *shape))
    kernel = jax.random.normal(jax.random.key(1), (k, k, shape[-1], 5))
    missing = [(0, -side % k) for side in shape[:2]]
    expected = lax.conv_general_dilated(
        x, kernel, (k, k), missing, dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest"
    )
    np.testing.assert_allclose(patch_conv(x, kernel), expected, rtol=1e-4, atol=1e-5)
