"""LightCNN: sizes, hidden layer, training, weights of its authors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.make_references import FOLDER, draw
from tests.models.test_backbones import quick_jit
from tests.tiny_backbones import lightcnn_architecture
from tests.transfer import torch_files
from tests.transfer.test_pretrained import shapes_of
from tinyjax import models
from tinyjax.models import flops, lightcnn
from tinyjax.models.layers import ExtraLayers
from tinyjax.models.supernet import merge_architectures
from tinyjax.transfer import pretrained
from tinyjax.transfer.freezing import freeze_multipliers, layer_decay_multipliers

# classes of the published weights, parameters, those without the classifier, and million
# multiply-adds at 128 x 128 without the classifier
SIZES = {
    "9": (79077, 25803653, 5480864, 976.7),
    "29": (79077, 32896069, 12573280, 3619.2),
    "29v2": (80013, 30959200, 10475872, 3617.1),
}
INPUT = (1, 128, 128, 1)


@pytest.mark.parametrize("variant", SIZES)
def test_sizes(variant):
    classes, parameters, headless, million = SIZES[variant]
    model = models.build(f"lightcnn/{variant}", classes)
    params, stats = jax.eval_shape(lambda: models.init(model, 0, INPUT))
    assert stats == {}
    assert flops.count_parameters(params) == parameters
    classifier = {path: p for path, p in params.items() if path.startswith("classifier/")}
    assert flops.count_parameters(params) - flops.count_parameters(classifier) == headless
    adds = flops.count_multiply_adds(model, INPUT) - 256 * classes
    assert round(adds / 1e6, 1) == million
    stored = np.load(FOLDER / f"LightCNN.lightcnn.{variant}.npz")["multiply_adds"]
    assert adds == stored[0] - 256 * 1000


@pytest.mark.parametrize("variant", SIZES)
def test_levels_and_parameters_do_not_depend_on_the_image_size(variant):
    shape = (2, 65, 96, 3)
    model = models.build(f"lightcnn/{variant}")
    (logits, features), params = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), jnp.ones(shape), train=False)
    )
    assert logits is None
    assert params["params"].keys() == {"stem", "stage1", "stage2", "stage3", "stage4"}
    assert {stride: f.shape for stride, f in features.items()} == {
        stride: (2, -(-65 // stride), 96 // stride, channels)
        for stride, channels in zip((1, 2, 4, 8, 16), (48, 96, 192, 128, 128), strict=True)
    }
    classifier = models.build(f"lightcnn/{variant}", 5)
    sizes = [
        jax.eval_shape(lambda s=s: models.init(classifier, 0, s)) for s in (INPUT, (1, 64, 80, 1))
    ]
    assert sizes[0] == sizes[1]


def test_hidden_layer_reads_any_map():
    """Bilinear with antialiasing: 4 -> 8 by hand along rows, 16 -> 8 along columns."""
    x = np.zeros((1, 4, 16, 1), np.float32)
    x[0, 1, 5] = 1
    y = lightcnn.resize_for_hidden(x)[0, ..., 0]
    np.testing.assert_allclose(2 * y.sum(1), [0, 0.25, 0.75, 0.75, 0.25, 0, 0, 0], atol=1e-6)
    np.testing.assert_allclose(y.sum(0) / 2, [0, 0, 0.375, 0.125, 0, 0, 0, 0], atol=1e-6)
    same = np.random.default_rng(0).standard_normal((2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(lightcnn.resize_for_hidden(same), same)


@pytest.mark.parametrize("pooling", lightcnn.POOLINGS)
def test_every_parameter_receives_a_gradient(pooling):
    extra_layers = ExtraLayers(adapters=True, excite="authors")
    model = lightcnn.Model(lightcnn_architecture(pooling), 3, extra_layers=extra_layers)
    x = jax.random.normal(jax.random.key(0), (4, 11, 20, 1))
    params, stats = models.init(model, 0, x.shape)
    # Zeros in a new adapter's kernel would hide its BatchNorm from the gradient.
    params = {path: p if p.any() else p + 0.1 for path, p in params.items()}

    def loss(params):
        (logits, _), updated = models.apply(model, params, stats, x, train=True)
        return (jnp.cos(jnp.arange(12).reshape(4, 3)) * logits).sum(), updated

    gradient, updated = quick_jit(jax.grad(loss, has_aux=True))(params)
    assert [path for path, g in gradient.items() if not np.abs(g).max() > 0] == []
    assert all(np.isfinite(g).all() for g in gradient.values())
    assert updated.keys() == stats.keys() == {p for p in stats if "/adapter/bn/" in p}


def test_presets_and_layer_decay():
    model = models.build("lightcnn/29", 5, extra_layers=ExtraLayers(adapters=True))
    params, stats = jax.eval_shape(lambda: models.init(model, 0, INPUT))
    paths = [f"backbone/{path}" for path in (*params, *stats)]
    frozen_modules = {
        "stem": {"stem"},
        "stage<=2": {"stem", "stage1", "stage2"},
        "backbone": {"stem", *(f"stage{n}" for n in range(1, 5))},
    }
    for preset, modules in frozen_modules.items():
        for path, multiplier in freeze_multipliers(paths, (preset,)).items():
            is_frozen = path.split("/")[1] in modules and "/adapter/" not in path
            assert multiplier == (not is_frozen), path
    decay = layer_decay_multipliers(paths, 0.5)
    # blocks: 2, 3, 4, 5, and the last pooling with its adapter
    assert decay["backbone/stem/kernel"] == 0.5**16
    assert decay["backbone/stage1/block0/conv1/kernel"] == 0.5**15
    assert decay["backbone/stage4/block4/conv1/bias"] == 0.5**2
    assert decay["backbone/hidden/kernel"] == decay["backbone/classifier/bias"] == 1


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        (("9", "29"), "kernels and out and residual of stage 1"),
        (("29", "29v2"), "differ in pooling of"),
    ],
)
def test_variants_cannot_share_a_program(variants, message):
    archs = [lightcnn.VARIANTS[variant] for variant in variants]
    with pytest.raises(ValueError, match=f"{message}.* cannot share a program"):
        merge_architectures(archs)


@pytest.mark.parametrize("variant", SIZES)
def test_published_weights(tmp_path, variant):
    """A checkpoint of the authors' training: nested, with names as by DataParallel."""
    stem, name = f"LightCNN.lightcnn.{variant}", f"lightcnn/{variant}"
    drawn = {key: draw(key, shape) for key, shape in shapes_of(stem).items()}
    file = tmp_path / "checkpoint.pth"
    prefixed = {f"module.{key}": value for key, value in drawn.items()}
    torch_files.save_state_dict(file, prefixed, key="state_dict")
    state = pretrained.read_state_dict(file)
    assert pretrained.detect_library(state, name) == "LightCNN"
    arrays, eps, source = pretrained.convert_state_dict(state, name)
    assert (eps, source.channels, source.mean, source.std) == (0, 1, 0, 1)
    hidden_name = {"9": "fc1.filter.weight", "29": "fc.filter.weight", "29v2": "fc.weight"}
    assert (
        arrays["hidden/kernel"][3, 5, 7, 11] == drawn[hidden_name[variant]][11, 7 * 64 + 3 * 8 + 5]
    )
    assert ("classifier/bias" in arrays) == (variant != "29v2")
    # Without its classifier, for another number of classes.
    state = {key: value for key, value in state.items() if not key.startswith("fc2.")}
    headless, *_ = pretrained.convert_state_dict(state, name)
    assert arrays.keys() - headless.keys() <= {"classifier/kernel", "classifier/bias"}
    gray = pretrained.adapt_to_normalization(headless, source.mean, source.std, 0.5, 0.25)
    shift = 0.5 * headless["stem/kernel"].sum((0, 1, 2))
    np.testing.assert_allclose(
        gray["stem/bias"], headless["stem/bias"] + shift, rtol=1e-4, atol=1e-6
    )
