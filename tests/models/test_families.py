"""What must work for the backbones of every family: freezing, layer decay, gradient norms,
adapters, regularizers, averages, and a training step; and which of them share a program.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny_backbones import MINIS
from tinyjax import models, step
from tinyjax.core import ModelFunctions, Variables
from tinyjax.errors import UserError
from tinyjax.models.classifier import Classifier
from tinyjax.models.layers import NO_EXTRA_LAYERS, ExtraLayers
from tinyjax.models.supernet import merge_architectures
from tinyjax.transfer import freezing, regularizers, rgn
from tinyjax.transfer.weight_averaging import weighted_sum

SIDE, CLASSES = 32, 3
BOTH = ExtraLayers(adapters=True, excite="identity")
FAST = ("resnet",)  # training compiles for seconds
trained = pytest.mark.parametrize(
    "name",
    [
        name if family in FAST else pytest.param(name, marks=pytest.mark.slow)
        for family, name in MINIS.items()
    ],
)
every = pytest.mark.parametrize("name", MINIS.values())


def build(name, extra_layers=NO_EXTRA_LAYERS):
    return Classifier(models.build(name, CLASSES, extra_layers=extra_layers))


def init(model, seed=0):
    return Variables(*models.init(model, seed, (1, SIDE, SIDE, 1)))


def paths_of(name, extra_layers=NO_EXTRA_LAYERS):
    """Paths in the order of the layers' creation, parameters first."""
    model = build(name, extra_layers)
    params, stats = jax.eval_shape(lambda: init(model))
    return [*params, *stats]


def blocks_of(paths):
    """The prefixes of the blocks that have parameters, in the order of depth."""
    prefixes = {m[0] for path in paths if (m := re.match(r"backbone/stage\d+/block\d+/", path))}
    return sorted(prefixes, key=lambda prefix: [*map(int, re.findall(r"\d+", prefix))])


def test_every_family_has_a_small_network():
    assert MINIS.keys() == set(models.FAMILIES)


@every
def test_presets_freeze_stem_and_stages(name):
    paths = paths_of(name, BOTH)
    extra = {path for path in paths if re.search("/(adapter|excite)/", path)}
    assert extra
    stages = max(int(n) for path in {*paths} - extra for n in re.findall(r"/stage(\d+)/", path))

    def frozen(preset):
        multipliers = freezing.freeze_multipliers(paths, (preset,))
        return {path for path, multiplier in multipliers.items() if multiplier == 0}

    def trunk(stage):
        prefixes = ["backbone/stem/", *(f"backbone/stage{n}/" for n in range(1, stage + 1))]
        return {path for path in paths if path.startswith(tuple(prefixes))} - extra

    for stage in range(1, stages + 1):
        assert frozen(f"stage<={stage}") == trunk(stage) > trunk(stage - 1)
    assert frozen("stem") == trunk(0) != set()
    assert frozen("backbone") == trunk(stages)
    after_stages = {path for path in paths if "/stage" not in path and "/stem/" not in path}
    assert {path.split("/")[1] for path in after_stages} <= {"head", "hidden", "classifier"}
    assert frozen("all but head") == {p for p in paths if not p.startswith("backbone/classifier/")}


@every
def test_features_have_the_strides_of_the_architecture(name):
    model = models.build(name)
    output, _ = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), jnp.ones((1, 64, 96, 1)), train=False)
    )
    shapes = {stride: feature.shape[1:3] for stride, feature in output[1].items()}
    assert {*model.arch.feature_strides} <= shapes.keys()
    assert all(shape == (64 // stride, 96 // stride) for stride, shape in shapes.items())


@every
def test_preset_for_batchnorm(name):
    paths = paths_of(name)
    statistics = {path for path in paths if path.endswith(("/mean", "/var"))}
    if not statistics:
        with pytest.raises(UserError, match="'batchnorm': this network has no BatchNorm"):
            freezing.freeze_multipliers(paths, ("batchnorm",))
        return
    multipliers = freezing.freeze_multipliers(paths, ("batchnorm",))
    frozen = {path for path, multiplier in multipliers.items() if multiplier == 0}
    assert {path.rpartition("/")[0] for path in frozen} == {
        path.rpartition("/")[0] for path in statistics
    }


SHARED = {  # whether these backbones of a family share a program
    ("efficientnet/b-5", "efficientnet/b-6"): True,
    ("mobilenetv3/s-5", "mobilenetv3/s-6"): True,
    ("resnet/18@w0.125", "resnet/18@w0.25"): True,
    ("resnet/18", "resnet/34"): True,
    ("resnet/50@w0.25d0.5", "resnet/101"): True,
    ("resnet/34", "resnet/50"): False,
    ("ghostnet/0.5", "ghostnet/1.3"): True,
    ("ghostnet/g-1", "ghostnet/g-6"): True,
    ("ghostnet/g-6", "ghostnet/g-7"): False,
    ("shufflenetv2/n-4", "shufflenetv2/n-5"): False,
    ("convnext/micro", "convnext/tiny"): False,
    ("swin/micro", "swin/tiny"): False,
    ("vit/tiny", "vit/small"): False,
    ("lightcnn/9", "lightcnn/29"): False,
    ("lightcnn/29", "lightcnn/29v2"): False,
}


@pytest.mark.parametrize(("names", "shared"), SHARED.items())
def test_what_shares_a_program(names, shared):
    architectures = [*map(models.architecture, names)]
    if shared:
        merged = merge_architectures(architectures)
        assert merged.stem == max(arch.stem for arch in architectures)
    else:
        with pytest.raises(ValueError, match="cannot share a program"):
            merge_architectures(architectures)


@every
def test_layer_decay_grows_from_the_stem_to_the_last_block(name):
    paths = paths_of(name)
    multipliers = freezing.layer_decay_multipliers(paths, 0.5)
    blocks = blocks_of(paths)
    for layer, prefix in enumerate(["backbone/stem/", *blocks]):
        values = {multipliers[path] for path in paths if path.startswith(prefix)}
        assert values == {0.5 ** (len(blocks) + 1 - layer)}, prefix
    rest = [path for path in paths if not path.startswith(("backbone/stem/", *blocks))]
    assert {multipliers[path] for path in rest} == {1.0}


@every
def test_relative_gradient_norm_counts_kernels_in_the_order_of_depth(name):
    paths = paths_of(name)
    counted = sorted(filter(rgn.in_backbone_rgn, paths), key=rgn.depth_key)
    kernels = {p for p in paths if p.startswith(("backbone/stem", "backbone/stage"))}
    assert {*counted} == {p for p in kernels if p.endswith("/kernel") and "/se/" not in p}
    assert counted[0].startswith("backbone/stem/")
    blocks = [tuple(map(int, re.findall(r"(?:stage|block)(\d+)", path))) for path in counted]
    assert blocks == sorted(blocks)
    # Every block has a kernel, and its layers have a place in the order.
    assert len({*blocks}) == 1 + len(blocks_of(paths))
    layers = {path.split("/")[3] for path in counted if "/block" in path}
    assert layers <= {*rgn.BLOCK_LAYERS}


@trained
def test_extra_layers_start_as_the_identity(name):
    plain, extended = build(name), build(name, BOTH)
    extended_variables = init(extended)
    variables = Variables(
        *(
            {path: tree[path] for path in tree if not re.search("/(adapter|excite)/", path)}
            for tree in extended_variables
        )
    )
    x = jax.random.normal(jax.random.key(1), (2, SIDE, SIDE, 1))
    outputs = [
        jax.jit(lambda v, model=model: models.apply(model, *v, x, train=False)[0])(trees)
        for model, trees in ((plain, variables), (extended, extended_variables))
    ]
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)
    assert np.std(outputs[0]) > 0


def model_functions(model):
    def loss(variables, frozen_batchnorm, batch, key, hyper):
        logits, stats = models.apply(
            model, *variables, batch["image"], train=True, frozen_batchnorm=frozen_batchnorm
        )
        log_probabilities = jax.nn.log_softmax(logits)
        value = -jnp.take_along_axis(log_probabilities, batch["label"][:, None], 1).mean()
        return value, (stats, {})

    return ModelFunctions(lambda seed: init(model, seed), loss, lambda *_: {})


@pytest.mark.slow
@trained
def test_training_with_frozen_stem_and_regularizer(name):
    """All that trains receives a gradient and moves; the stem does not; averages of two networks
    are networks.
    """
    model = build(name, BOTH)
    functions = model_functions(model)
    first, second = init(model), init(model, 1)
    paths = [path for tree in first for path in tree]
    multipliers = freezing.freeze_multipliers(paths, ("stem",))
    trainable = step.select_trainable(multipliers)
    tx = step.make_optimizer("adamw", 0.9, 0.999, 1.0)
    state = step.init_state(first, tx, trainable)
    vector = state.weights.params.vector
    is_regularized = np.concatenate(
        [
            np.full(size, regularizers.is_regularized(path), np.float32)
            for (path, _), size in zip(
                state.weights.params.shapes, state.weights.params.sizes, strict=True
            )
        ]
    )
    hyper = {
        "seed": 0, "lr": 3e-3, "weight_decay": 0.05, "ema": 0.5,
        "regularizer": {"strength": 0.1, "start": vector, "importance": is_regularized},
    }  # fmt: skip
    batch = {
        "image": jax.random.normal(jax.random.key(0), (4, SIDE, SIDE, 1)),
        "label": jnp.arange(4) % CLASSES,
    }
    train_step = jax.jit(step.make_step(functions, tx, lambda step: 1.0, trainable))
    losses = []
    for _ in range(4):
        state, metrics = train_step(state, batch, hyper)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]
    assert int(state.diverged_at) == -1
    assert float(metrics["regularizer"]) > 0
    after = state.variables(state.weights)
    unchanged = {
        path
        for before, tree in zip(first, after, strict=True)
        for path in tree
        if np.array_equal(tree[path], before[path])
    }
    assert unchanged == {path for path in paths if path.startswith("backbone/stem/")}

    average = weighted_sum([first, second], [0.5, 0.5])
    predict = jax.jit(
        lambda variables: models.apply(model, *variables, batch["image"], train=False)
    )
    assert np.isfinite(predict(average)[0]).all()
    assert np.array_equal(predict(weighted_sum([first, second], [1, 0]))[0], predict(first)[0])
