"""build, init and apply."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinyjax import models
from tinyjax.errors import UserError
from tinyjax.models import flops, scaling
from tinyjax.models.layers import ConvBN

# Compiled in half the time; these networks run once.
quick = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize(
    "name", ["efficientnet/b-6", "efficientnet/b-7", "mobilenetv3/s-5", "mobilenetv3/s-6"]
)
def test_every_parameter_has_a_gradient_and_every_statistic_moves(name):
    model = models.build(name, classes=7)
    params, stats = quick(lambda: models.init(model, 0, (1, 64, 64, 1)))()
    x = np.random.default_rng(0).standard_normal((4, 64, 64, 1)).astype(np.float32)

    def loss(params):
        (logits, _), moved = models.apply(model, params, stats, x, train=True)
        return -nn.log_softmax(logits)[jnp.arange(4), jnp.arange(4)].sum(), moved

    gradient, moved = quick(jax.grad(loss, has_aux=True))(params)
    assert gradient.keys() == params.keys()
    assert [path for path, g in gradient.items() if not np.abs(g).max() > 0] == []
    assert all(np.isfinite(g).all() for g in gradient.values())
    assert moved.keys() == stats.keys()
    assert [path for path in stats if np.array_equal(moved[path], stats[path])] == []


def test_seeds_may_be_mapped():
    model, shape = ConvBN(40, size=3), (1, 8, 8, 4)
    many, _ = jax.vmap(lambda seed: models.init(model, seed, shape))(jnp.arange(2, 4))
    one, _ = models.init(model, 3, shape)
    assert all(np.array_equal(one[path], many[path][1]) for path in one)
    assert not np.array_equal(one["kernel"], many["kernel"][0])


class Detector(nn.Module):
    """A backbone inside a larger module."""

    backbone: nn.Module

    @nn.compact
    def __call__(self, x, train):
        _, features = self.backbone(x, train)
        return ConvBN(3, name="neck")(features[8], train)


def test_a_backbone_serves_inside_a_larger_module():
    backbone = models.build("mobilenetv3/s-6")
    model, shape = Detector(backbone), (1, 32, 64, 1)
    params, stats = jax.eval_shape(lambda: models.init(model, 0, shape))
    alone, _ = jax.eval_shape(lambda: models.init(backbone, 0, shape))
    assert params.keys() == {f"backbone/{path}" for path in alone} | {
        "neck/kernel", "neck/bn/scale", "neck/bn/bias",
    }  # fmt: skip
    y, moved = jax.eval_shape(
        lambda p, s: models.apply(model, p, s, jnp.ones(shape), train=True), params, stats
    )
    assert y.shape == (1, 4, 8, 3)
    assert moved.keys() == stats.keys()
    neck = 4 * 8 * 8 * 3
    assert flops.multiply_adds(model, shape) == flops.multiply_adds(backbone, shape) + neck


@pytest.mark.parametrize("name", ["efficientnet/b-7", "mobilenetv3/s-6"])
def test_bfloat16_computes_in_bfloat16_and_keeps_float32(name):
    model, shape = models.build(name, 5, dtype=jnp.bfloat16), (2, 64, 64, 3)

    def run():
        params, stats = models.init(model, 0, shape)
        return params, *models.apply(model, params, stats, jnp.ones(shape), train=True)

    params, (logits, features), moved = jax.eval_shape(run)
    assert {f.dtype for f in features.values()} == {jnp.dtype(jnp.bfloat16)}
    assert {v.dtype for v in (logits, *params.values(), *moved.values())} == {
        jnp.dtype(jnp.float32)
    }


def test_multipliers_build_networks_off_the_ladders():
    model = models.build("efficientnet/b0", width=0.5, depth=0.6)
    assert model.arch == scaling.efficientnet(0.5, 0.6)
    assert models.build("mobilenetv3/large", width=0.5).arch == scaling.mobilenetv3_large(0.5)


@pytest.mark.parametrize(
    ("name", "multipliers", "message"),
    [
        ("efficientnet/b-9", {}, r"'efficientnet/b-9' is unknown; did you mean 'efficientnet/b-"),
        ("mobilenetv2/s-3", {}, r"mobilenetv3/s-3'\? known: efficientnet/b0, .*mobilenetv3/s-6"),
        ("efficientnet", {}, "'efficientnet' is unknown"),
        ("efficientnet/b-3", {"width": 0.5}, "'efficientnet/b-3' is already scaled"),
        ("mobilenetv3/small", {"depth": 0.5}, "no multiplier 'depth'; .*known: width"),
        ("efficientnet/b0", {"depth": 0}, "depth=0: .* positive"),
        ("mobilenetv3/small", {"width": float("nan")}, "width=nan: .* positive"),
    ],
)
def test_user_errors(name, multipliers, message):
    with pytest.raises(UserError, match=message):
        models.build(name, **multipliers)
