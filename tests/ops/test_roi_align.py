"""RoIAlign by hand and against torchvision's, in values and gradients, on all platforms' paths."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from tests.ops.make_roi_align import FILE, SETTINGS, SIZE, STRIDE, inputs
from tinyjax.ops import roi_align as module
from tinyjax.ops.roi_align import roi_align

settings = pytest.mark.parametrize(("samples", "aligned"), SETTINGS)


def platform_form(features, boxes, stride, size, samples, aligned):
    """What other platforms than CPU compute."""
    options = {"stride": stride, "size": size, "samples": samples, "aligned": aligned}
    return module._matrix_products(features, boxes, **options)


def value_and_gradient(function, features, boxes, dy):
    y, vjp = jax.vjp(lambda x: function(x, boxes), features)
    return y, vjp(dy)[0]


@pytest.mark.parametrize(
    ("aligned", "expected"), [(False, [[4, 5.5], [8, 9.5]]), (True, [[1.5, 3], [5.5, 7]])]
)
@pytest.mark.parametrize("samples", [1, 2])
def test_by_hand(samples, aligned, expected):
    features = jnp.arange(16.0).reshape(1, 4, 4, 1)
    boxes = jnp.array([[[1.0, 1, 13, 9]]])
    actual = roi_align(features, boxes, 4, 2, samples, aligned)
    np.testing.assert_allclose(actual[0, 0, ..., 0], expected, rtol=1e-6)


@settings
@pytest.mark.parametrize("form", [roi_align, platform_form])
def test_equals_torchvision(form, samples, aligned):
    with jax.enable_x64(True):
        features, boxes, dy = map(jnp.asarray, inputs())
        pool = partial(form, stride=STRIDE, size=SIZE, samples=samples, aligned=aligned)
        actual = jax.jit(partial(value_and_gradient, lambda x, b: pool(x, b)))(features, boxes, dy)
        assert actual[0].dtype == jnp.float64
    reference = np.load(FILE)
    for name, array in zip(("value", "gradient"), actual, strict=True):
        np.testing.assert_allclose(
            array, reference[f"{samples}.{aligned}.{name}"], rtol=1e-10, atol=1e-12
        )


def test_members():
    """The vmap of gradients, the gradient of a vmap, and members that share their images."""
    features, boxes, dy = map(jnp.asarray, inputs())
    features, boxes, dy = (
        jnp.stack([x, 2 * x[::-1]]).astype(jnp.float32) for x in (features, boxes, dy)
    )
    single = partial(value_and_gradient, lambda x, b: roi_align(x, b, STRIDE, SIZE))

    @jax.jit
    def all_ways(features, boxes, dy):
        of_vmap = value_and_gradient(
            jax.vmap(lambda x, b: roi_align(x, b, STRIDE, SIZE)), features, boxes, dy
        )
        shared = jax.vmap(single, (None, 0, 0))(features[0], boxes, dy)
        return jax.vmap(single)(features, boxes, dy), of_vmap, shared

    vmapped, of_vmap, shared = all_ways(features, boxes, dy)
    for member in range(2):
        for results, images in ((vmapped, member), (of_vmap, member), (shared, 0)):
            expected = single(features[images], boxes[member], dy[member])
            for actual, array in zip(results, expected, strict=True):
                np.testing.assert_allclose(actual[member], array, rtol=1e-5, atol=1e-5)


def test_gradient_equals_finite_differences_and_boxes_have_none():
    with jax.enable_x64(True):
        features, boxes, _ = map(jnp.asarray, inputs())
        pool = jax.jit(lambda x: roi_align(x, boxes, STRIDE, SIZE))
        check_grads(pool, (features,), order=1, modes=["rev"], rtol=1e-6)
        gradient = jax.grad(lambda b: roi_align(features, b, STRIDE, SIZE).sum())(boxes)
    np.testing.assert_array_equal(gradient, 0)


def test_zero_channels_stay_zero():
    features, boxes, dy = (jnp.asarray(x, jnp.float32) for x in inputs())
    padding = [(0, 0)] * 3 + [(0, 3)]
    y, gradient = value_and_gradient(
        lambda x, b: roi_align(x, b, STRIDE, SIZE),
        jnp.pad(features, padding), boxes, jnp.pad(dy, [(0, 0), *padding]),
    )  # fmt: skip
    np.testing.assert_array_equal(y[..., 2:], 0)
    np.testing.assert_array_equal(gradient[..., 2:], 0)
    np.testing.assert_array_equal(y[..., :2], roi_align(features, boxes, STRIDE, SIZE))


def test_bfloat16():
    features, boxes, _ = (jnp.asarray(x, jnp.float32) for x in inputs())
    actual = roi_align(features.astype(jnp.bfloat16), boxes, STRIDE, SIZE)
    assert actual.dtype == jnp.bfloat16
    expected = roi_align(features, boxes, STRIDE, SIZE)
    np.testing.assert_allclose(actual.astype(jnp.float32), expected, rtol=0.02, atol=0.02)
