"""A network padded to a supernet trains as it does without padding: 20 steps in float64."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny_backbones import TINY_GHOSTNET, TINY_GHOSTNET_WIDE, TINY_SHUFFLENETV2
from tinyjax import models, step
from tinyjax.core import ModelFunctions, Variables
from tinyjax.detectors.grid import make_grid
from tinyjax.detectors.losses import detection_loss
from tinyjax.detectors.necks import NeckConfig
from tinyjax.detectors.point import PointDetector
from tinyjax.errors import UserError
from tinyjax.models import scaling
from tinyjax.models.classifier import Classifier
from tinyjax.models.ghostnet import GhostBottleneck
from tinyjax.models.layers import (
    NO_EXTRA_LAYERS,
    ConvBN,
    ExtraLayers,
    SqueezeExcite,
    resize_channels,
)
from tinyjax.models.scaling import Architecture, MBConv, Residual
from tinyjax.models.supernet import gate_values, merge_architectures
from tinyjax.population.pad import check_zero_padding, pad, unpad

SIDE, STEPS = 32, 20
HYPER = {"seed": 0, "weight_decay": 0.05, "ema": 0.9}
# A low rate for AdamW: where a gradient is 0 in theory, it divides rounding errors by 1e-8.
LEARNING_RATES = {"adamw": 0.002, "sgd": 0.02}
LOSS = {"class": 1.0, "box": 2.0, "offset": 0.25}


def small_backbone(stem, outs, depths, expand, act, squeeze, head, hidden=0):
    """An architecture of five stages with all features of its family's blocks."""
    stages, inputs = [], stem
    for stage, (out, depth) in enumerate(zip(outs, depths, strict=True)):
        blocks = []
        for i in range(depth):
            stride = 2 if i == 0 and stage else 1
            # In stage 1 a block of width `expand` may have no expansion.
            expanded = expand * inputs if stage else expand
            blocks.append(MBConv(3, stride, expanded, out, squeeze and squeeze + inputs, act))
            inputs = out
        stages.append(tuple(blocks))
    return Architecture(stem, tuple(stages), head, hidden)


def small_resnet(widths, depths, bottleneck):
    """An architecture of four stages; without bottlenecks stage 1 needs no projection."""
    stages = []
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        strides = (2 if stage else 1, *(1,) * (depth - 1))
        out = 2 * width if bottleneck else width
        stages.append(tuple(Residual(stride, width, out, bottleneck) for stride in strides))
    return Architecture(widths[0], tuple(stages), stem_kernel=7, stem_stride=4)


# The narrow backbone has a skip connection and no expansion in stage 1, unlike the wide one, and
# fewer blocks in stage 2; the wide backbone has fewer blocks in stage 3.
ARCHITECTURES = {
    "mobilenetv3/s-1": (
        small_backbone(8, (8, 8, 16, 16, 16), (1, 1, 2, 1, 1), 8, "hard_swish", 2, 24, 8),
        small_backbone(8, (16, 16, 24, 16, 24), (1, 2, 1, 1, 1), 12, "hard_swish", 3, 32, 16),
    ),
    "efficientnet/b-1": (
        small_backbone(8, (8, 8, 16, 16, 16), (1, 1, 2, 1, 1), 8, "silu", 2, 24),
        small_backbone(8, (16, 16, 24, 16, 24), (1, 2, 1, 1, 1), 12, "silu", 3, 32),
    ),
    "resnet/18": (
        small_resnet((4, 8, 8, 8), (1, 2, 1, 1), False),
        small_resnet((8, 8, 12, 16), (1, 1, 2, 1), False),
    ),
    "resnet/50": (
        small_resnet((4, 4, 8, 8), (1, 2, 1, 1), True),
        small_resnet((8, 4, 12, 8), (1, 1, 2, 1), True),
    ),
    "ghostnet/1.0": tuple(map(models.architecture, (TINY_GHOSTNET, TINY_GHOSTNET_WIDE))),
    # Networks of equal stages: only stem and head are padded.
    "shufflenetv2/1.0": (
        models.architecture(TINY_SHUFFLENETV2),
        models.architecture(TINY_SHUFFLENETV2)._replace(stem=8, head=40),
    ),
}


def build_network(name, task, architecture, extra_layers=NO_EXTRA_LAYERS):
    """A classifier of 5 classes, or a detector of 3; with extra layers its neck repeats twice."""
    backbone = models.build(
        name,
        5 if task == "classify" else None,
        jnp.float64,
        supernet=architecture,
        extra_layers=extra_layers,
    )
    if task == "classify":
        return Classifier(backbone)
    repeats = 1 if extra_layers == NO_EXTRA_LAYERS else 2
    return PointDetector(backbone, 3, neck=NeckConfig(repeats=repeats))


def model_functions(model, task):
    """The task's loss without augmentation."""
    grid = make_grid(SIDE, SIDE, (4, 8))

    def init(seed):
        trees = models.init(model, seed, (1, SIDE, SIDE, 3))
        return Variables(*jax.tree.map(lambda leaf: leaf.astype(jnp.float64), trees))

    def loss(variables, frozen_batchnorm, batch, key, hyper):
        out, stats = models.apply(
            model, *variables, batch["image"], train=True, frozen_batchnorm=frozen_batchnorm
        )
        if task == "detect":
            value, _ = detection_loss(*out, batch, LOSS, grid)
        else:
            value = -(batch["targets"] * jax.nn.log_softmax(out)).mean()
        return value, (stats, {})

    return ModelFunctions(init, loss, lambda *_: {})


def make_batches():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 24, (STEPS, 4, 3, 2))
    return [
        {
            "image": jnp.asarray(rng.normal(size=(4, SIDE, SIDE, 3))),
            "targets": jax.nn.one_hot(rng.integers(0, 5, 4), 5, dtype=jnp.float64),
            "boxes": jnp.asarray(np.concatenate([low[i], low[i] + 7], -1)),
            "labels": jnp.asarray(rng.integers(0, 3, (4, 3))),
            "valid": jnp.asarray([[True, True, False]] * 4),
            "ignore": jnp.zeros((4, 3), bool),
        }
        for i in range(STEPS)
    ]


def train(functions, variables, tx, trainable, hyper):
    """The state after STEPS steps, and the loss of each."""
    state = step.init_state(variables, tx, trainable)
    train_step = jax.jit(step.make_step(functions, tx, lambda step: 1.0, trainable))
    losses = []
    for batch in make_batches():
        state, metrics = train_step(state, batch, hyper)
        losses.append(float(metrics["loss"]))
    return state, np.array(losses)


def shapes_of(tree):
    return {path: leaf.shape for path, leaf in tree.items()}


def check_padded_training(
    name, task, architecture, architectures, optimizer, freezing, extra_layers=NO_EXTRA_LAYERS
):
    """Train `architecture` unpadded, and padded to the supernet of `architectures`, and compare.

    freezing: of stage 1: "no", by "structure", or by an "array" of multipliers.
    """
    with jax.enable_x64(True):
        merged = merge_architectures(architectures)
        functions, merged_functions = (
            model_functions(build_network(name, task, a, extra_layers), task)
            for a in (architecture, merged)
        )
        unpadded = functions.init(0)
        params, stats = map(shapes_of, jax.eval_shape(merged_functions.init, 0))
        gates = {
            f"backbone/{path}": np.float64(value)
            for path, value in gate_values(architecture, merged).items()
        }
        padded = Variables(pad(unpadded.params | gates, params), pad(unpadded.stats, stats))
        assert shapes_of(padded.params) != shapes_of(unpadded.params)

        tx = step.make_optimizer(optimizer, 0.9, 0.999, 1.0)
        multipliers = {path: float(path not in gates) for path in (*params, *stats)}
        hyper, frozen_arrays = {**HYPER, "lr": LEARNING_RATES[optimizer]}, {}
        stage1 = {p for p in multipliers if p.startswith("backbone/stage1/")} - gates.keys()
        if freezing == "structure":
            multipliers |= dict.fromkeys(stage1, 0.0)
        if freezing == "array":
            frozen_arrays = dict.fromkeys(stage1, jnp.float64(0))
        results = []
        for model, variables in ((functions, unpadded), (merged_functions, padded)):
            paths = [*variables.params, *variables.stats]
            trainable = step.select_trainable({path: multipliers[path] for path in paths})
            multiplier = {path: frozen_arrays[path] for path in paths if path in frozen_arrays}
            values = {**hyper, "multiplier": multiplier} if multiplier else hyper
            results.append(train(model, variables, tx, trainable, values))
        (state, losses), (padded_state, padded_losses) = results
        np.testing.assert_allclose(padded_losses, losses, rtol=1e-9)
        assert losses[-1] != losses[0]
        max_update = STEPS * LEARNING_RATES[optimizer]  # the reach of AdamW's updates
        for weights_of in (lambda s: s.weights, lambda s: s.ema):
            expected, actual = (s.variables(weights_of(s)) for s in (state, padded_state))
            for tree, padded_tree in zip(expected, actual, strict=True):
                unpadded_tree = unpad(padded_tree, shapes_of(tree))
                for path, leaf in tree.items():
                    atol = 1e-9 * max(np.abs(leaf).max(), max_update)
                    np.testing.assert_allclose(unpadded_tree[path], leaf, rtol=0, atol=atol)
                # The padding is still exactly 0: padding again gives the same arrays.
                padded_again = pad(unpadded_tree, shapes_of(padded_tree))
                for path, leaf in padded_tree.items():
                    if path not in gates:
                        np.testing.assert_array_equal(leaf, padded_again[path])
        trained = state.variables(state.weights).params
        # Kernels only: the gradient of a bias before BatchNorm may be exactly 0.
        kernels = [path for path in trained if path.endswith("/kernel")]
        unchanged = [p for p in kernels if np.array_equal(trained[p], unpadded.params[p])]
        assert all(path.startswith("backbone/stage1/") for path in unchanged)
        assert bool(unchanged) == (freezing != "no")


@pytest.mark.parametrize(
    ("name", "task", "optimizer", "freezing", "index"),
    [
        # Extra layers and frozen arrays are combined below, in the test that is not slow.
        pytest.param("mobilenetv3/s-1", "classify", "adamw", "array", 0, marks=pytest.mark.slow),
        pytest.param("efficientnet/b-1", "classify", "sgd", "structure", 1, marks=pytest.mark.slow),
        pytest.param("mobilenetv3/s-1", "detect", "adamw", "no", 0, marks=pytest.mark.slow),
        pytest.param("efficientnet/b-1", "detect", "sgd", "array", 0, marks=pytest.mark.slow),
        pytest.param("mobilenetv3/s-1", "detect", "sgd", "structure", 1, marks=pytest.mark.slow),
        pytest.param("resnet/18", "classify", "sgd", "no", 0, marks=pytest.mark.slow),
        pytest.param("ghostnet/1.0", "classify", "adamw", "no", 0, marks=pytest.mark.slow),
        pytest.param("resnet/18", "classify", "adamw", "array", 1, marks=pytest.mark.slow),
        pytest.param("resnet/50", "detect", "sgd", "structure", 0, marks=pytest.mark.slow),
        pytest.param("ghostnet/1.0", "detect", "sgd", "array", 0, marks=pytest.mark.slow),
        pytest.param("shufflenetv2/1.0", "classify", "adamw", "array", 0, marks=pytest.mark.slow),
        pytest.param("shufflenetv2/1.0", "detect", "sgd", "no", 0, marks=pytest.mark.slow),
    ],
)
def test_padded_training_equals_unpadded_training(name, task, optimizer, freezing, index):
    architectures = ARCHITECTURES[name]
    check_padded_training(name, task, architectures[index], architectures, optimizer, freezing)


def test_padded_channels_of_a_ghost_bottleneck_are_the_last_ones():
    """Outputs of a narrow block, and of the same block padded to a wide one."""
    excite = partial(SqueezeExcite, act="relu", gate="hard_sigmoid")
    narrow, wide = (
        GhostBottleneck(scaling.GhostBottleneck(3, 2, 2 * width, width, width), ConvBN, excite)
        for width in (8, 12)
    )
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
    trees = models.init(narrow, 0, x.shape)
    wide_x = resize_channels(x, 6)
    wide_shapes = map(shapes_of, jax.eval_shape(lambda: models.init(wide, 0, wide_x.shape)))
    padded = [pad(tree, shapes) for tree, shapes in zip(trees, wide_shapes, strict=True)]
    run = jax.jit(partial(models.apply, train=True), static_argnums=0)
    (y, stats), (wide_y, wide_stats) = run(narrow, *trees, x), run(wide, *padded, wide_x)
    np.testing.assert_allclose(wide_y[..., :8], y, rtol=1e-5, atol=1e-6)
    assert (y != 0).all()
    assert not wide_y[..., 8:].any()
    for path, leaf in pad(stats, shapes_of(wide_stats)).items():
        np.testing.assert_allclose(wide_stats[path], leaf, rtol=1e-5, atol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    ("name", "task", "freezing", "excite", "index"),
    [
        pytest.param("mobilenetv3/s-1", "classify", "array", "authors", 0, marks=pytest.mark.slow),
        pytest.param("mobilenetv3/s-1", "detect", "no", "identity", 0, marks=pytest.mark.slow),
        pytest.param("efficientnet/b-1", "classify", "no", "identity", 1, marks=pytest.mark.slow),
        pytest.param("resnet/18", "classify", "no", "authors", 0, marks=pytest.mark.slow),
        pytest.param("resnet/18", "classify", "array", "identity", 1, marks=pytest.mark.slow),
        pytest.param("resnet/50", "classify", "no", "authors", 0, marks=pytest.mark.slow),
        pytest.param("resnet/50", "classify", "no", "identity", 1, marks=pytest.mark.slow),
        pytest.param("ghostnet/1.0", "classify", "no", "authors", 0, marks=pytest.mark.slow),
        pytest.param("shufflenetv2/1.0", "classify", "no", "identity", 0, marks=pytest.mark.slow),
    ],
)
def test_padded_training_with_extra_layers(name, task, freezing, excite, index):
    architectures, extra_layers = ARCHITECTURES[name], ExtraLayers(adapters=True, excite=excite)
    check_padded_training(
        name, task, architectures[index], architectures, "adamw", freezing, extra_layers
    )


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("task", ["classify", "detect"])
@pytest.mark.parametrize(
    ("family", "variants"),
    [
        ("mobilenetv3", [f"s-{k}" for k in range(1, 7)]),
        ("efficientnet", [f"b-{k}" for k in range(2, 8)]),
    ],
)
def test_padded_training_of_a_familys_smallest_variant(family, variants, task, optimizer):
    architectures = [models.architecture(f"{family}/{variant}") for variant in variants]
    name = f"{family}/{variants[0]}"
    check_padded_training(name, task, architectures[-1], architectures, optimizer, "array")


def test_unpad_inverts_pad():
    tree = {"a": np.arange(6.0).reshape(2, 3), "b": np.float32(3)}
    shapes = {"a": (4, 3), "b": (), "c": (2, 2)}
    padded = pad(tree, shapes)
    assert {path: x.shape for path, x in padded.items()} == shapes
    assert padded["a"].sum() == tree["a"].sum()
    assert not padded["c"].any()
    restored = unpad(padded, {path: np.shape(x) for path, x in tree.items()})
    assert restored.keys() == tree.keys()
    np.testing.assert_array_equal(restored["a"], tree["a"])


def test_pad_of_an_empty_tree():
    assert pad({}, {}) == {}
    assert pad({}, {"a": (2,)})["a"].dtype == np.float32


def test_pad_rejects_unknown_paths_and_smaller_shapes():
    with pytest.raises(ValueError, match="no shape to pad b to"):
        pad({"b": np.zeros(2)}, {"a": (2,)})
    with pytest.raises(ValueError, match=r"a: \(3,\) does not fit into \(2,\)"):
        pad({"a": np.zeros(3)}, {"a": (2,)})


class LayerNormOnly(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return nn.LayerNorm(name="norm")(x)


def test_zero_padding_rejects_modules_that_mix_channels():
    for name in ARCHITECTURES:
        for task, extra_layers in (
            ("detect", NO_EXTRA_LAYERS),
            ("classify", ExtraLayers(True, "identity")),
        ):
            model = build_network(name, task, ARCHITECTURES[name][0], extra_layers)
            with jax.enable_x64(True):
                check_zero_padding(model, (1, SIDE, SIDE, 3))
    with pytest.raises(UserError, match="layers_0/norm: LayerNorm is not known to keep"):
        check_zero_padding(nn.Sequential([LayerNormOnly()]), (1, SIDE, SIDE, 3))
