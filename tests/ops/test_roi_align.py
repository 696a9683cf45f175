"""RoIAlign by hand and against torchvision's, in values and gradients, on all platforms' paths."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
    pool = jax.jit(lambda x, b: roi_align(x, b, 4, 2, samples, aligned))
    actual = pool(features, boxes)
    np.testing.assert_allclose(actual[0, 0, ..., 0], expected, rtol=1e-6)


@settings
@pytest.mark.parametrize("form", [roi_align, platform_form])
def test_equals_torchvision(form, samples, aligned):
    with jax.enable_x64(True):
        features, boxes, dy = map(jnp.asarray, inputs())
        pool = partial(form, stride=STRIDE, size=SIZE, samples=samples, aligned=aligned)
        actual = jax.jit(partial(value_and_gradient, pool))(features, boxes, dy)
        assert actual[0].dtype == jnp.float64
    reference = np.load(FILE)
    for name, array in zip(("value", "gradient"), actual, strict=True):
        np.testing.assert_allclose(
            array, reference[f"{samples}.{aligned}.{name}"], rtol=1e-10, atol=1e-12
        )


def test_members():
    """The vmap of gradients, the gradient of a vmap, and members that share their images."""
    arrays = (jnp.asarray(x, jnp.float32) for x in inputs())
    features, boxes, dy = (jnp.stack([x, 2 * x[::-1]]) for x in arrays)
    pool = partial(roi_align, stride=STRIDE, size=SIZE)
    single = partial(value_and_gradient, pool)

    @jax.jit
    def all_ways(features, boxes, dy):
        return (
            jax.vmap(single)(features, boxes, dy),
            value_and_gradient(jax.vmap(pool), features, boxes, dy),
            jax.vmap(single, (None, 0, 0))(features[0], boxes, dy),
        )

    results, single = all_ways(features, boxes, dy), jax.jit(single)
    for member in range(2):
        for result, images in zip(results, (member, member, 0), strict=True):
            expected = single(features[images], boxes[member], dy[member])
            for actual, array in zip(result, expected, strict=True):
                np.testing.assert_allclose(actual[member], array, rtol=1e-5, atol=1e-5)


def test_gradient_equals_finite_differences_and_boxes_have_none():
    with jax.enable_x64(True):
        features, boxes, dy = map(jnp.asarray, inputs())

        @jax.jit
        def derivatives(direction):
            def total(features, boxes):
                return (dy * roi_align(features, boxes, STRIDE, SIZE)).sum()

            gradients = jax.grad(total, (0, 1))(features, boxes)
            change = total(features + direction, boxes) - total(features - direction, boxes)
            return gradients, change / 2

        direction = jnp.cos(jnp.arange(features.size)).reshape(features.shape)
        (gradient, of_boxes), change = derivatives(direction)
        np.testing.assert_allclose((gradient * direction).sum(), change, rtol=1e-10)
        np.testing.assert_array_equal(of_boxes, 0)


def test_zero_channels_stay_zero():
    features, boxes, dy = (jnp.asarray(x, jnp.float32) for x in inputs())
    pool = partial(roi_align, stride=STRIDE, size=SIZE)
    padded = (jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, 3)]) for x in (features, dy))
    run = jax.jit(partial(value_and_gradient, pool))
    expected = run(features, boxes, dy)
    features, dy = padded
    for actual, array in zip(run(features, boxes, dy), expected, strict=True):
        np.testing.assert_array_equal(actual[..., 2:], 0)
        np.testing.assert_allclose(actual[..., :2], array, rtol=1e-6, atol=1e-6)


def test_bfloat16():
    features, boxes, _ = (jnp.asarray(x, jnp.float32) for x in inputs())
    pool = jax.jit(partial(roi_align, stride=STRIDE, size=SIZE))
    actual = pool(features.astype(jnp.bfloat16), boxes)
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        actual.astype(jnp.float32), pool(features, boxes), rtol=0.02, atol=0.02
    )
