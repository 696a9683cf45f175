"""All necks: sizes, parameters, gradients, populations, selection by the config."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.detectors.pyramids import (
    B2_CHANNELS,
    S1_CHANNELS,
    feature_shapes,
    random_features,
    random_variables,
    variable_shapes,
)
from tests.tiny_backbones import TINY
from tinyjax import models, step
from tinyjax.config.defaults import detector
from tinyjax.core import ModelFunctions, Variables
from tinyjax.detectors import point
from tinyjax.detectors.necks import NeckConfig, build_neck
from tinyjax.errors import UserError
from tinyjax.models import flops
from tinyjax.models.layers import ConvBN, Dense
from tinyjax.population.pad import check_zero_padding, pad, unpad

CONFIGS = {
    "pan": NeckConfig("pan", repeats=2),
    "fpn": NeckConfig("fpn"),
    "fpn-dense": NeckConfig("fpn", separable=False),
    "fpn-p5": NeckConfig("fpn", extra_levels="p5"),
    "fpn-dense-c5": NeckConfig("fpn", separable=False, extra_levels="c5"),
    "nasfpn": NeckConfig("nasfpn", repeats=2),
    "nasfpn-dense": NeckConfig("nasfpn", separable=False),
    "bifpn": NeckConfig("bifpn", repeats=2),
}
each_neck = pytest.mark.parametrize("name", CONFIGS)


# ---- shapes and counts


@pytest.mark.parametrize("size", [pytest.param((320, 256), marks=pytest.mark.slow), (100, 75)])
@each_neck
def test_levels_have_the_sizes_of_the_grid(name, size):
    """Sizes are rounded up at each level, also where they are odd."""
    strides = (4, 8, 16, 32, 64)
    neck = build_neck(CONFIGS[name], strides, 8)
    features = {s: jnp.zeros(shape) for s, shape in feature_shapes(size, S1_CHANNELS).items()}
    levels, _ = jax.eval_shape(
        lambda: neck.init_with_output(jax.random.key(0), features, train=False)
    )
    shapes = {stride: y.shape for stride, y in levels.items()}
    assert shapes == {s: (1, -(-size[0] // s), -(-size[1] // s), 8) for s in strides}


P2_TO_P5, P2_TO_P6, P3_TO_P7 = (4, 8, 16, 32), (4, 8, 16, 32, 64), (8, 16, 32, 64, 128)


@pytest.mark.parametrize(
    ("config", "strides", "width", "parameters", "mega_multiply_adds"),
    [
        (NeckConfig("fpn"), P2_TO_P5, 48, 23_616, 25.5),
        (NeckConfig("fpn"), P2_TO_P5, 64, 35_584, 41),
        (NeckConfig("fpn", separable=False), P2_TO_P5, 48, 95_232, 148),
        (NeckConfig("nasfpn"), P2_TO_P6, 48, 32_112, 33),
        (NeckConfig("nasfpn", 3), P2_TO_P6, 48, 71_760, 84),
        (NeckConfig("nasfpn", 3), P2_TO_P6, 64, 117_184, 141),
        (NeckConfig("nasfpn", 1, False), P2_TO_P6, 48, 158_448, 201),
        (NeckConfig("nasfpn", 3, False), P3_TO_P7, 48, 449_904, 149),
        (NeckConfig("bifpn", 3), P2_TO_P6, 48, 80_313, 77),
        (NeckConfig("bifpn", 3), P3_TO_P7, 48, 79_449, 20),
    ],
)
def test_costs_on_features_of_efficientnet_b2(
    config, strides, width, parameters, mega_multiply_adds
):
    """At 320 x 256; laterals of strides 4 to 32 have 248 width + 2 * 4 width parameters."""
    shapes = feature_shapes((320, 256), B2_CHANNELS)
    shapes = {stride: shape for stride, shape in shapes.items() if stride >= strides[0]}
    neck = build_neck(config, strides, width)
    params, _ = variable_shapes(neck, shapes)
    assert sum(int(np.prod(shape)) for shape in params.values()) == parameters
    cost = flops.count_multiply_adds(neck, shapes) / 1e6
    assert abs(cost - mega_multiply_adds) <= (0.05 if mega_multiply_adds % 1 else 0.5)


@pytest.mark.parametrize("width", [48, 64, 256])
def test_parameters_of_a_repeat_of_nasfpn(width):
    counts = {}
    for repeats, separable in [(1, True), (2, True), (1, False), (2, False)]:
        neck = build_neck(NeckConfig("nasfpn", repeats, separable), P2_TO_P6, width)
        params, _ = variable_shapes(neck, feature_shapes((64, 64), S1_CHANNELS))
        counts[repeats, separable] = sum(int(np.prod(shape)) for shape in params.values())
    assert counts[2, False] - counts[1, False] == 7 * (9 * width**2 + 3 * width)
    assert counts[2, True] - counts[1, True] == 7 * (width**2 + 9 * width + 2 * width)


# ---- gradients, vmap


class PyramidNeck(nn.Module):
    """A neck on the image [B, H, W, C] and its coarser samples, and an output of each level.

    channels: of the features, which are projections of the samples.
    """

    preserves_zeros = True

    neck: NeckConfig
    strides: tuple[int, ...]
    width: int
    channels: int

    @nn.compact
    def __call__(self, x, train):
        features = {
            s: ConvBN(self.channels, act="silu", name=f"feature{s}")(
                x[:, :: s // 4, :: s // 4], train
            )
            for s in (4, 8, 16, 32)
        }
        levels = build_neck(self.neck, self.strides, self.width, name="neck")(features, train)
        out = Dense(2, name="out")
        return jnp.concatenate([out(levels[s]).reshape(len(x), -1, 2) for s in levels], 1)


@pytest.mark.parametrize("strides", [(4, 8), (4, 8, 16, 32, 64)])
@pytest.mark.slow
@each_neck
def test_every_parameter_receives_a_gradient(name, strides):
    model = PyramidNeck(CONFIGS[name], strides, 4, 3)
    x = jax.random.normal(jax.random.key(0), (2, 32, 32, 3))
    params, stats = models.init(model, 0, x.shape)

    def loss(params):
        y, _ = models.apply(model, params, stats, x, train=True)
        return (jnp.cos(jnp.arange(y.size)) * y.ravel()).sum()

    gradients = jax.jit(jax.grad(loss))(params)
    # The gradient of a bias before BatchNorm is a rounding error (NAS-FPN's dense convolutions).
    without = [path for path, gradient in gradients.items() if not (gradient != 0).any()]
    assert [path for path in without if path.startswith("neck/")] == []
    assert all(jnp.isfinite(gradient).all() for gradient in gradients.values())


@pytest.mark.slow
@each_neck
def test_vmap_over_members(name):
    neck = build_neck(CONFIGS[name], (4, 8, 16, 32, 64), 4)
    features = random_features((36, 28), (2, 3, 4, 5))
    variables = [random_variables(neck, features, seed) for seed in (0, 1)]
    with jax.enable_x64(True):

        def apply(variables):
            return models.apply(neck, *variables, features, train=True)[0]

        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *variables)
        levels = jax.jit(jax.vmap(apply))(stacked)
        for i, member in enumerate(variables):
            for stride, expected in jax.jit(apply)(member).items():
                np.testing.assert_allclose(levels[stride][i], expected, rtol=0, atol=1e-10)


# ---- zero padding

STEPS, LEARNING_RATE = 20, 2e-3
HYPER = {"seed": 0, "lr": LEARNING_RATE, "weight_decay": 0.05, "ema": 0.9}
SHAPE = (4, 32, 32, 3)  # of the images


def train(model, variables):
    """The variables after `STEPS` steps of AdamW, and the loss of each step."""
    random = np.random.default_rng(0)

    def loss(variables, frozen_batchnorm, batch, key, hyper):
        y, stats = models.apply(model, *variables, batch["image"], train=True)
        return ((y - jnp.cos(jnp.arange(y.size)).reshape(y.shape)) ** 2).mean(), (stats, {})

    tx = step.make_optimizer("adamw", 0.9, 0.999, 1.0)
    trainable = step.select_trainable(dict.fromkeys((*variables.params, *variables.stats), 1.0))
    state = step.init_state(variables, tx, trainable)
    functions = ModelFunctions(lambda _: variables, loss, lambda *_: {})
    train_step = jax.jit(step.make_step(functions, tx, lambda _: 1.0, trainable))
    losses = []
    for _ in range(STEPS):
        state, metrics = train_step(state, {"image": jnp.asarray(random.normal(size=SHAPE))}, HYPER)
        losses.append(float(metrics["loss"]))
    return state.variables(state.weights), losses


def shapes_of(tree):
    return {path: leaf.shape for path, leaf in tree.items()}


@pytest.mark.slow
@each_neck
def test_a_padded_neck_trains_as_without_padding(name):
    """In float64, with the features and the neck of a wider network."""
    narrow, wide = (
        partial(PyramidNeck, CONFIGS[name], (4, 8, 16, 32, 64))(*c) for c in ((3, 2), (5, 4))
    )
    check_zero_padding(wide, SHAPE)
    with jax.enable_x64(True):
        trees = models.init(narrow, 0, SHAPE)
        unpadded = Variables(*jax.tree.map(lambda leaf: leaf.astype(jnp.float64), trees))
        wide_shapes = [*map(shapes_of, jax.eval_shape(lambda: models.init(wide, 0, SHAPE)))]
        padded = Variables(*map(pad, unpadded, wide_shapes))
        expected, losses = train(narrow, unpadded)
        actual, padded_losses = train(wide, padded)
    np.testing.assert_allclose(padded_losses, losses, rtol=1e-9)
    assert np.isfinite(losses).all()
    for before, tree, padded_tree in zip(unpadded, expected, actual, strict=True):
        unpadded_tree = unpad(padded_tree, shapes_of(tree))
        padded_again = pad(unpadded_tree, shapes_of(padded_tree))
        for path, leaf in tree.items():
            # A weight near 0 is compared relative to the reach of AdamW's updates.
            atol = 1e-9 * max(np.abs(leaf).max(), STEPS * LEARNING_RATE)
            if "_cell" in path and path.endswith("conv/bias"):
                atol = (
                    1e-9  # before BatchNorm: its gradient is 0, and AdamW enlarges rounding errors
                )
            np.testing.assert_allclose(unpadded_tree[path], leaf, rtol=0, atol=atol)
            np.testing.assert_array_equal(padded_tree[path], padded_again[path])
            if path.endswith(("kernel", "weights")):
                assert not np.array_equal(leaf, before[path])


# ---- selection by the config


def build_detector(**fields):
    config = detector("point")
    config.model.update(fields)
    return point.build(models.build(TINY), config, 3)


def test_the_default_neck_keeps_its_parameter_paths():
    """Runs of earlier versions can be loaded."""
    params, _ = jax.eval_shape(lambda: models.init(build_detector(), 0, (1, 64, 64, 1)))
    layers = {path.removeprefix("neck/").rpartition("/")[0] for path in params if "neck/" in path}
    convs = {f"lateral{s}" for s in (4, 8, 16, 32)} | {
        f"{name}/{conv}"
        for name in ("smooth4", "smooth8", "smooth16", "smooth32", "down8")
        for conv in ("depthwise", "pointwise")
    }
    assert layers == convs | {f"{conv}/bn" for conv in convs}


@pytest.mark.parametrize("name", ["fpn", "nasfpn", "bifpn"])
def test_the_point_detector_uses_the_selected_neck(name):
    model = build_detector(neck=name, neck_width=8)
    logits, _ = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), jnp.zeros((2, 72, 50, 1)), train=False)
    )[0]
    assert logits.shape == (2, 18 * 13 + 9 * 7, 3)
    assert model != build_detector(neck=name, neck_width=12)


def test_necks_of_different_options_are_different_networks():
    """They do not share a program."""
    models_by_repeats = [build_detector(neck="bifpn", neck_repeats=n) for n in (1, 2)]
    assert models_by_repeats[0] != models_by_repeats[1]
    assert build_detector(neck="fpn") != build_detector(neck="fpn", neck_separable=False)
    assert build_detector(neck="fpn") == build_detector(neck="fpn")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"neck": "bipfn"}, r"model.neck = 'bipfn': .*bifpn"),
        ({"neck": "fpn", "neck_repeats": 3}, "model.neck_repeats = 3: the neck fpn does not have"),
        ({"neck_separable": False}, "model.neck_separable = False: the neck pan does not have"),
    ],
)
def test_invalid_necks(fields, message):
    with pytest.raises(UserError, match=message):
        build_detector(**fields)
