"""FDR: pooling to stripes and resizing as in torch, alternatives, initial values, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.recognition.make_references import FILE, STRIPES, draw
from tinyjax import models
from tinyjax.errors import UserError
from tinyjax.models.flops import count_parameters
from tinyjax.recognition.fdr import Fdr, FdrConfig, Rebuild, stripe_means

SHAPE = (2, 4, 3, 16)


@pytest.mark.parametrize("name", STRIPES)
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_stripes_are_pooled_and_resized_as_in_torch(name, mode):
    size, stripes = STRIPES[name]

    def apply(x):
        means = stripe_means(x.mean(2), stripes, mode == "bilinear")
        return jnp.broadcast_to(means[:, :, None], x.shape)

    shape = (2, size, 4, 3)
    with jax.enable_x64(True), np.load(FILE) as reference:
        y, vjp = jax.vjp(apply, jnp.asarray(draw("x", shape)))
        (dx,) = vjp(jnp.asarray(draw("dy", shape)))
        np.testing.assert_allclose(y, reference[f"{name}.{mode}.y"], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(dx, reference[f"{name}.{mode}.dx"], rtol=1e-12, atol=1e-14)


def rebuild(x, **settings):
    params = {"context": {"kernel": draw("context", (x.shape[-1], 1)), "bias": np.zeros(1)}}
    return Rebuild(FdrConfig(**settings)).apply({"params": params}, jnp.asarray(x, jnp.float32))


def test_both_kinds_of_stripes():
    x = np.arange(12.0).reshape(1, 4, 3, 1)  # rows 0 1 2, 3 4 5, 6 7 8, 9 10 11
    y = rebuild(x, horizontal=2, vertical=3, upsample=False)
    np.testing.assert_allclose(y[0, :, 0, 0], [2.5, 2.5, 8.5, 8.5])
    np.testing.assert_allclose(y[0, 0, :, 1], [4.5, 5.5, 6.5])
    assert y.shape == (1, 4, 3, 2)
    np.testing.assert_allclose(rebuild(x, horizontal=0, vertical=3), y[..., 1:])
    # Centers of stripes are at rows 0.5 and 2.5.
    y = rebuild(x, horizontal=2, vertical=0)
    np.testing.assert_allclose(y[0, :, 1, 0], [2.5, 4, 7, 8.5])


def test_alternatives():
    x = draw("x", SHAPE)
    rows, mean = x.mean(2, keepdims=True), x.mean((1, 2), keepdims=True)
    np.testing.assert_allclose(rebuild(x, pooling="gap"), mean + 0 * x, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(rebuild(x, pooling="hap"), rows + 0 * x, rtol=1e-4, atol=1e-6)
    weights = np.exp(x @ draw("context", (16, 1)))
    context = (weights * x).sum((1, 2)) / weights.sum((1, 2))
    y = rebuild(x, pooling="context")
    np.testing.assert_allclose(y[:, 2, 1], context, rtol=1e-4, atol=1e-6)
    assert np.ptp(y, axis=(1, 2)).max() == 0


@pytest.mark.parametrize(
    ("settings", "parameters"),
    [
        # attention, BatchNorm, projection
        ({}, 3 * 32 // 8 + 2 * 32 + 32 * 16),
        ({"vertical": 0}, 3 * 16 // 8 + 2 * 16 + 16 * 16),
        ({"pooling": "context"}, 17 + 3 * 16 // 8 + 2 * 16 + 16 * 16),
        ({"attention": "se"}, (32 * 2 + 2 + 2 * 32 + 32) + 2 * 32 + 32 * 16),
    ],
)
def test_fdr_changes_nothing_at_first_but_learns(settings, parameters):
    model = Fdr(FdrConfig(**settings))
    params, stats = models.init(model, 0, SHAPE)
    assert count_parameters(params) == parameters
    x = draw("x", SHAPE).astype(np.float32)

    def loss(params):
        y, _ = models.apply(model, params, stats, x, train=True)
        return (y * draw("dy", SHAPE)).sum(), y

    gradient, y = jax.jit(jax.grad(loss, has_aux=True))(params)
    np.testing.assert_array_equal(y, x)
    assert np.abs(gradient["project/kernel"]).min() > 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pooling": "gapp"}, "fdr.pooling = 'gapp': did you mean 'gap'"),
        ({"horizontal": -1}, "fdr.horizontal = -1, fdr.vertical = 3: give numbers of stripes"),
        ({"horizontal": 0, "vertical": 0}, "at least one above 0"),
        ({"groups": 5}, "groups = 5: shuffle attention splits 32 channels"),
    ],
)
def test_invalid_settings(settings, message):
    with pytest.raises(UserError, match=message):
        Fdr(FdrConfig(**settings)).init(jax.random.key(0), jnp.zeros(SHAPE), train=False)
