"""BatchNorm, convolution and initial weights, against their definitions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny_backbones import TINY_SHALLOW
from tinyjax import models
from tinyjax.models import initializers
from tinyjax.models.layers import BatchNorm, ConvBN, LayerNorm, PatchEmbedding, SqueezeExcite

EPS, MOMENTUM = 1e-3, 0.3


@pytest.fixture
def batch_norm():
    rng = np.random.default_rng(0)
    x = (2 + 3 * rng.standard_normal((3, 4, 5, 2))).astype(np.float32)
    params = {"scale": np.float32([0.5, 2]), "bias": np.float32([1, -1])}
    stats = {"mean": np.float32([0.2, -0.4]), "var": np.float32([0.7, 1.5])}
    return BatchNorm(EPS, MOMENTUM), params, stats, x


def test_batch_norm_in_training(batch_norm):
    model, params, stats, x = batch_norm
    y, new = models.apply(model, params, stats, x, train=True)
    mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    expected = (x - mean) / np.sqrt(var + EPS) * params["scale"] + params["bias"]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    # As in torch: momentum is the weight of the new value, the running variance is unbiased.
    unbiased = x.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(new["mean"], 0.7 * stats["mean"] + 0.3 * mean, rtol=1e-5)
    np.testing.assert_allclose(new["var"], 0.7 * stats["var"] + 0.3 * unbiased, rtol=1e-5)


def test_batch_norm_in_evaluation(batch_norm):
    model, params, stats, x = batch_norm
    y, new = models.apply(model, params, stats, x, train=False)
    expected = (x - stats["mean"]) / np.sqrt(stats["var"] + EPS) * params["scale"] + params["bias"]
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
    assert new is stats


def test_batch_norm_statistics_are_float32_in_bfloat16(batch_norm):
    model, params, stats, x = batch_norm
    x = jnp.asarray(x + 100, jnp.bfloat16)
    y, new = models.apply(model, params, stats, x, train=True)
    assert y.dtype == jnp.bfloat16
    assert new["mean"].dtype == new["var"].dtype == jnp.float32
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(
        new["mean"], 0.7 * stats["mean"] + 0.3 * exact.mean((0, 1, 2)), rtol=1e-5
    )
    unbiased = exact.var((0, 1, 2), ddof=1)
    np.testing.assert_allclose(new["var"], 0.7 * stats["var"] + 0.3 * unbiased, rtol=1e-3)


def test_batch_norm_gradient_includes_the_batch_statistics(batch_norm):
    model, params, stats, x = batch_norm
    weights = np.random.default_rng(1).standard_normal(x.shape)

    def loss(x):
        return (models.apply(model, params, stats, x, train=True)[0] * weights).sum()

    # Normalization removes shift and scale of a channel, so the gradient is orthogonal to both.
    gradient = jax.grad(loss)(x)
    assert np.abs(gradient).max() > 0.1
    np.testing.assert_allclose(gradient.sum((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose((gradient * x).sum((0, 1, 2)), 0, atol=2e-2)


def test_conv_bn_paths_and_padding():
    model = ConvBN(1, size=3, stride=2)
    params, stats = models.init(model, 0, (1, 4, 4, 1))
    assert params.keys() == {"kernel", "bn/scale", "bn/bias"}
    assert stats.keys() == {"bn/mean", "bn/var"}
    # Symmetric padding: the first window is centered on the first pixel, as in torch; "SAME" would
    # center it on the second.
    kernel = jnp.arange(9.0).reshape(3, 3, 1, 1)
    x = jnp.zeros((1, 4, 4, 1)).at[0, 0, 0, 0].set(1)
    y, _ = models.apply(model, params | {"kernel": kernel}, stats, x, train=False)
    np.testing.assert_allclose(y[0, :, :, 0], [[4, 0], [0, 0]], rtol=1e-4)


def test_squeeze_excite():
    model = SqueezeExcite(1, act="relu", gate="hard_sigmoid")
    params = {
        "reduce": {"kernel": np.float32([[1], [2]]), "bias": np.float32([0.5])},
        "expand": {"kernel": np.float32([[0.6, -3]]), "bias": np.float32([0, 1])},
    }
    x = np.float32([[[[0, 1], [1, 0]]]])  # channel means 0.5, 0.5; squeezed 2; gates 0.7, 0
    y = model.apply({"params": params}, x)
    np.testing.assert_allclose(y, [[[[0, 0], [0.7, 0]]]], atol=1e-6)


def test_layer_norm_of_each_position():
    x = (100 + np.random.default_rng(0).standard_normal((2, 3, 8))).astype(np.float32)
    params = {"scale": np.arange(8.0, dtype=np.float32), "bias": np.ones(8, np.float32)}
    y = LayerNorm(1e-3).apply({"params": params}, x)
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    expected = (x - mean) / np.sqrt(var + 1e-3) * params["scale"] + params["bias"]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-4)


def test_layer_norm_statistics_are_float32_in_bfloat16():
    x = jnp.asarray(30 + np.random.default_rng(0).standard_normal((4, 256)), jnp.bfloat16)
    params = {"scale": np.ones(256, np.float32), "bias": np.zeros(256, np.float32)}
    y = LayerNorm(1e-6).apply({"params": params}, x)
    assert y.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64)
    expected = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
    # bfloat16 has 8 bits; the mean of 30 alone would be off by up to 0.06
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=2**-8, atol=1e-3)


class Embedding(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return PatchEmbedding(5, 4, norm_eps=1e-6, name="stem")(x)


def test_patch_embedding_in_a_network_without_statistics():
    shape = (2, 6, 9, 3)
    params, stats = models.init(Embedding(), 0, shape)
    assert stats == {}
    assert {path: leaf.shape for path, leaf in params.items()} == {
        "stem/kernel": (4, 4, 3, 5),
        "stem/bias": (5,),
        "stem/norm/scale": (5,),
        "stem/norm/bias": (5,),
    }
    x = jax.random.normal(jax.random.key(0), shape)
    for train in (False, True):
        y, updated = models.apply(Embedding(), params, stats, x, train=train)
        assert y.shape == (2, 2, 3, 5)
        np.testing.assert_allclose(y.mean(-1), 0, atol=1e-5)
        np.testing.assert_allclose(y.std(-1), 1, rtol=1e-3)
        assert updated == {}


def he_initializers(**shapes):
    return {path: initializers.he_fan_out(None, shape) for path, shape in shapes.items()}


def test_initial_weights_depend_on_seed_and_path_only():
    key = jax.random.key(3)
    weights = initializers.draw_params(
        key, he_initializers(a=(3, 3, 7, 8), b=(1, 1, 8, 8), c=(5, 20))
    )
    alone = initializers.draw_params(key, he_initializers(b=(1, 1, 8, 8)))
    assert np.array_equal(alone["b"], weights["b"])
    other = initializers.draw_params(jax.random.key(4), he_initializers(b=(1, 1, 8, 8)))
    assert not np.intersect1d(other["b"], weights["b"]).size
    numbers = np.concatenate([w.ravel() / w.std() for w in weights.values()])
    assert len(np.unique(numbers)) == len(numbers), "two weights share random numbers"


def test_reestimated_statistics_are_the_mean_over_batches():
    """With momentum 1 / (batches so far), as in torch's `update_bn`."""
    model = models.build(TINY_SHALLOW)
    params, stats = models.init(model, 0, (2, 32, 32, 1))
    batches = jax.random.normal(jax.random.key(0), (3, 2, 32, 32, 1))
    run = jax.jit(
        lambda stats, x, momentum: models.apply(
            model, params, stats, x, train=True, momentum=momentum
        )[1]
    )
    updated = stats
    for k, x in enumerate(batches):
        updated = run(updated, x, 1 / (k + 1))
    per_batch = [run(stats, x, 1.0) for x in batches]
    default_momentum = jax.jit(lambda s, x: models.apply(model, params, s, x, train=True)[1])(
        stats, batches[0]
    )
    for path in stats:
        mean = np.mean([one[path] for one in per_batch], axis=0)
        np.testing.assert_allclose(updated[path], mean, rtol=1e-4, atol=1e-5)
        expected = 0.9 * stats[path] + 0.1 * per_batch[0][path]  # the family's momentum is 0.1
        np.testing.assert_allclose(default_momentum[path], expected, rtol=1e-4, atol=1e-5)


DEPTHWISE, POINTWISE = (5, 5, 1, 512), (1, 1, 256, 512)


@pytest.mark.parametrize(
    ("initializer", "shape", "groups", "std"),
    [
        (initializers.he_fan_out, DEPTHWISE, 512, np.sqrt(2 / (25 * 512))),
        (initializers.he_fan_out, POINTWISE, 1, np.sqrt(2 / 512)),
        (initializers.he_group_fan_out, DEPTHWISE, 512, np.sqrt(2 / 25)),
        (initializers.he_group_fan_out, POINTWISE, 1, np.sqrt(2 / 512)),
    ],
)
def test_initial_weights_of_convolutions(initializer, shape, groups, std):
    weights = initializers.draw_params(jax.random.key(0), {"a": initializer(None, shape, groups)})[
        "a"
    ]
    assert weights.shape == shape
    assert abs(weights.mean()) < 4 * std / np.sqrt(weights.size)
    assert weights.std() == pytest.approx(std, rel=0.03)
    assert np.abs(weights).max() > 3 * std  # not uniform


def test_initial_weights_of_linear_layers():
    shape = (200, 400)
    weights = initializers.draw_params(
        jax.random.key(0),
        {
            "a": initializers.uniform_fan_out(None, shape),
            "b": initializers.small_normal(None, shape),
            "c": initializers.transformer_normal(None, shape),
        },
    )
    assert np.abs(weights["a"]).max() == pytest.approx(0.05, rel=1e-3)
    assert weights["a"].std() == pytest.approx(0.05 / np.sqrt(3), rel=0.01)
    assert weights["b"].std() == pytest.approx(0.01, rel=0.01)
    assert weights["c"].std() == pytest.approx(0.02, rel=0.01)
