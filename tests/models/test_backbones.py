"""`models.build`, `init` and `apply`."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny_backbones import MICRO_CONVNEXT, MICRO_SWIN, TINY
from tinyjax import models
from tinyjax.errors import UserError
from tinyjax.models import flops, scaling
from tinyjax.models.layers import ConvBN

# Compiles in half the time; these networks run once.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize(
    "name",
    [
        TINY,
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "efficientnet/b-6", "efficientnet/b-7", "mobilenetv3/s-5", "mobilenetv3/s-6",
                MICRO_CONVNEXT, MICRO_SWIN,
            )
        ),
    ],
)  # fmt: skip
def test_parameters_have_gradients_and_statistics_are_updated(name):
    model = models.build(name, classes=7)
    params, stats = quick_jit(lambda: models.init(model, 0, (1, 64, 64, 1)))()
    x = np.random.default_rng(0).standard_normal((4, 64, 64, 1)).astype(np.float32)

    def loss(params):
        (logits, _), updated = models.apply(model, params, stats, x, train=True)
        return -nn.log_softmax(logits)[jnp.arange(4), jnp.arange(4)].sum(), updated

    gradient, updated = quick_jit(jax.grad(loss, has_aux=True))(params)
    assert gradient.keys() == params.keys()
    assert [path for path, g in gradient.items() if not np.abs(g).max() > 0] == []
    assert all(np.isfinite(g).all() for g in gradient.values())
    assert updated.keys() == stats.keys()
    assert [path for path in stats if np.array_equal(updated[path], stats[path])] == []


def test_init_can_be_vmapped_over_seeds():
    model, shape = ConvBN(40, size=3), (1, 8, 8, 4)
    batch, _ = jax.vmap(lambda seed: models.init(model, seed, shape))(jnp.arange(2, 4))
    single, _ = models.init(model, 3, shape)
    assert all(np.array_equal(single[path], batch[path][1]) for path in single)
    assert not np.array_equal(single["kernel"], batch["kernel"][0])


class Detector(nn.Module):
    """A backbone inside a larger module."""

    backbone: nn.Module

    @nn.compact
    def __call__(self, x, train):
        _, features = self.backbone(x, train)
        return ConvBN(3, name="neck")(features[8], train)


def test_backbone_inside_a_larger_module():
    backbone = models.build(TINY)
    model, shape = Detector(backbone), (1, 32, 64, 1)
    params, stats = jax.eval_shape(lambda: models.init(model, 0, shape))
    backbone_params, _ = jax.eval_shape(lambda: models.init(backbone, 0, shape))
    assert params.keys() == {f"backbone/{path}" for path in backbone_params} | {
        "neck/kernel", "neck/bn/scale", "neck/bn/bias",
    }  # fmt: skip
    y, updated = jax.eval_shape(
        lambda p, s: models.apply(model, p, s, jnp.ones(shape), train=True), params, stats
    )
    assert y.shape == (1, 4, 8, 3)
    assert updated.keys() == stats.keys()
    neck_adds = 4 * 8 * 8 * 3
    assert (
        flops.count_multiply_adds(model, shape)
        == flops.count_multiply_adds(backbone, shape) + neck_adds
    )


@pytest.mark.parametrize(
    "name",
    [
        *("mobilenetv3/s-6", "vit/tiny"),
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("efficientnet/b-7", "convnext/tiny", "swin/tiny", "lightcnn/9")
        ),
    ],
)
def test_bfloat16_features_with_float32_parameters_and_logits(name):
    model, shape = models.build(name, 5, dtype=jnp.bfloat16), (2, 64, 64, 3)

    def run():
        params, stats = models.init(model, 0, shape)
        return params, *models.apply(model, params, stats, jnp.ones(shape), train=True)

    params, (logits, features), updated = jax.eval_shape(run)
    assert {f.dtype for f in features.values()} == {jnp.dtype(jnp.bfloat16)}
    assert {v.dtype for v in (logits, *params.values(), *updated.values())} == {
        jnp.dtype(jnp.float32)
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("efficientnet/b0@w0.5d0.6", scaling.efficientnet(0.5, 0.6)),
        ("mobilenetv3/large@w.5", scaling.mobilenetv3_large(0.5)),
        ("resnet/18@w0.25", scaling.resnet18(0.25)),
        ("resnet/50@d0.5", scaling.resnet50(depth=0.5)),
        ("shufflenetv2/1.0@w0.5", scaling.shufflenetv2(0.5)),
        ("ghostnet/1.0@w0.5", scaling.ghostnet(0.5)),
    ],
)
def test_multipliers_scale_a_network(name, expected):
    assert models.build(name).arch == models.architecture(name) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("efficientnet/b-9", r"'efficientnet/b-9' is unknown; did you mean 'efficientnet/b-"),
        ("mobilenetv2/s-3", r"mobilenetv3/s-3'\? known: efficientnet/b0, .*mobilenetv3/s-6"),
        ("efficientnet", "'efficientnet' is unknown"),
        ("resnet/19@w0.5", r"'resnet/19' is unknown; did you mean .*\? known: resnet/18, .*/101$"),
        ("efficientnet/b-3@w0.5", "efficientnet/b-3 has no multipliers; .*efficientnet/b0, "),
        ("mobilenetv3/small@d0.5", "mobilenetv3/small has no multiplier of its depth"),
        ("efficientnet/b0@d0", "'efficientnet/b0@d0': depth = 0: give a multiplier above 0"),
        ("shufflenetv2/1.0@w0", "'shufflenetv2/1.0@w0': width = 0: give a multiplier above 0"),
        ("ghostnet/1.0@w0", "'ghostnet/1.0@w0': width = 0: give a multiplier above 0"),
        ("mobilenetv3/small@w25", "width = 25: give a multiplier above 0 and of at most 10"),
        ("resnet/18@w0.5d1000000", r"depth = 1e\+06: give a multiplier .* of at most 10"),
        ("shufflenetv2/0.5@w0.5", "shufflenetv2/0.5 has no multipliers"),
        ("mobilenetv3/small@0.5", "give multipliers as in mobilenetv3/small@w0.5"),
        ("mobilenetv3/small@", "give multipliers as in mobilenetv3/small@w0.5"),
    ],
)
def test_invalid_names_and_multipliers_are_rejected(name, message):
    with pytest.raises(UserError, match=message):
        models.build(name)
