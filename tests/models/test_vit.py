"""Vision Transformer: sizes, position embeddings, detector, training, published weights."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.models.make_references import FOLDER, draw
from tests.models.test_backbones import quick_jit
from tests.transfer import torch_files
from tests.transfer.test_pretrained import shapes_of
from tinyjax import models, step
from tinyjax.config import detector
from tinyjax.core import ModelFunctions, Variables
from tinyjax.detectors import point
from tinyjax.errors import UserError
from tinyjax.models import flops, vit
from tinyjax.models.layers import ExtraLayers
from tinyjax.models.supernet import merge_architectures
from tinyjax.population.pad import check_zero_padding
from tinyjax.transfer import pretrained
from tinyjax.transfer.freezing import freeze_multipliers, layer_decay_multipliers

# Parameters with 1000 classes and without the classifier.
SIZES = {
    "tiny": ("160x192", 5717416, 5524416),
    "small": ("64x96", 22050664, 21665664),
    "base": ("256x256", 86567656, 85798656),
}
TINY_STEM = "timm.vit.tiny.160x192"
TWO_BLOCKS = vit.make_architecture(16, heads=2, depth=2)


@pytest.mark.parametrize("variant", SIZES)
def test_sizes(variant, shapes):
    size, parameters, headless = SIZES[variant]
    name = f"vit/{variant}"
    params, stats = shapes(name)
    assert stats == {}
    assert flops.count_parameters(params) == parameters
    classifier = {path: leaf for path, leaf in params.items() if path.startswith("classifier/")}
    assert flops.count_parameters(params) - flops.count_parameters(classifier) == headless
    stored = np.load(FOLDER / f"timm.vit.{variant}.{size}.npz")["multiply_adds"]
    model = models.build(name, 1000)
    assert flops.count_multiply_adds(model, (1, 224, 224, 3)) == stored[0]
    if variant == "tiny":
        assert flops.count_multiply_adds(model, (1, 320, 320, 3)) == stored[1]


def test_level_and_parameters_do_not_depend_on_the_image_size():
    model = vit.Model(TWO_BLOCKS)
    trees = []
    for shape in ((2, 65, 96, 1), (2, 224, 224, 1)):
        (logits, features), variables = jax.eval_shape(
            lambda shape=shape: model.init_with_output(
                jax.random.key(0), jnp.ones(shape), train=False
            )
        )
        assert logits is None
        rows, columns = (-(-side // 16) for side in shape[1:3])
        assert {k: f.shape for k, f in features.items()} == {16: (2, rows, columns, 16)}
        trees.append(variables)
    assert trees[0] == trees[1]
    assert trees[0]["params"].keys() == {"stem", "stage1"}


def test_images_are_padded_at_the_bottom_and_right():
    model = vit.Model(TWO_BLOCKS)
    x = jax.random.normal(jax.random.key(0), (1, 20, 33, 1))
    params, stats = models.init(model, 0, x.shape)
    run = quick_jit(lambda x: models.apply(model, params, stats, x, train=False)[0][1][16])
    padded = jnp.pad(x, ((0, 0), (0, 12), (0, 15), (0, 0)))
    np.testing.assert_allclose(run(x), run(padded), rtol=1e-5, atol=1e-5)


def test_epsilon_of_layer_norm():
    """Tokens of variance 1e-6, which all blocks leave unchanged, have the length 1 / sqrt(2)."""
    model, shape = vit.Model(TWO_BLOCKS), (1, 224, 224, 1)
    params, stats = models.init(model, 0, shape)
    params = {path: np.zeros_like(leaf) for path, leaf in params.items()}
    params["stem/positions"] += 1e-3 * (-1) ** np.arange(16, dtype=np.float32)
    params["stage1/norm/scale"] += 1
    (_, features), _ = models.apply(model, params, stats, np.zeros(shape, np.float32), train=False)
    np.testing.assert_allclose(np.abs(features[16]), 0.5**0.5, rtol=1e-4)


def cubic_matrix(old, new):
    """Weights [new, old] of cubic interpolation (Keys, a = -0.5), widened to downsample."""
    scale = old / new
    distance = (np.arange(new)[:, None] + 0.5) * scale - (np.arange(old) + 0.5)
    d = np.abs(distance) / max(scale, 1)
    near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    weights = np.where(d <= 1, near, np.where(d < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(("old", "height", "width"), [(14, 10, 12), (14, 16, 9), (24, 14, 14)])
def test_resized_positions(old, height, width):
    table = np.random.default_rng(0).standard_normal((1 + old**2, 3)).astype(np.float32)
    grid = table[1:].reshape(old, old, 3)
    rows, columns = cubic_matrix(old, height), cubic_matrix(old, width)
    expected = np.einsum("hi,wj,ijd->hwd", rows, columns, grid).reshape(-1, 3)
    resized = np.asarray(vit.resize_positions(table, height, width))
    np.testing.assert_array_equal(resized[0], table[0])
    np.testing.assert_allclose(resized[1:], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(vit.resize_positions(table, old, old), table)


def test_every_parameter_receives_a_gradient():
    model = vit.Model(TWO_BLOCKS, 3, extra_layers=ExtraLayers(adapters=True, excite="authors"))
    x = jax.random.normal(jax.random.key(0), (4, 40, 33, 1))
    params, stats = models.init(model, 0, x.shape)
    # Zeros in a new adapter's kernel would hide its BatchNorm from the gradient.
    params = {path: leaf if leaf.any() else leaf + 0.1 for path, leaf in params.items()}

    def loss(params):
        (logits, features), updated = models.apply(model, params, stats, x, train=True)
        return sum(
            (jnp.cos(jnp.arange(y.size)) * y.ravel()).sum() for y in (logits, features[16])
        ), updated

    gradient, updated = quick_jit(jax.grad(loss, has_aux=True))(params)
    assert [path for path, g in gradient.items() if not np.abs(g).max() > 0] == []
    assert all(np.isfinite(g).all() for g in gradient.values())
    assert updated.keys() == stats.keys()
    assert all("/adapter/bn/" in path for path in stats)


def test_presets_and_layer_decay():
    extra_layers = ExtraLayers(adapters=True, excite="identity")
    model = models.build("vit/tiny", 5, extra_layers=extra_layers)
    params, stats = jax.eval_shape(lambda: models.init(model, 0, (1, 32, 32, 1)))
    paths = [f"backbone/{path}" for path in (*params, *stats)]
    for preset, modules in (
        ("stem", {"stem"}),
        ("stage<=1", {"stem", "stage1"}),
        ("backbone", {"stem", "stage1"}),
    ):
        for path, multiplier in freeze_multipliers(paths, (preset,)).items():
            is_extra = "/adapter/" in path or "/excite/" in path
            is_frozen = path.split("/")[1] in modules and not is_extra
            assert multiplier == (not is_frozen), path
    decay = layer_decay_multipliers(paths, 0.5)
    for leaf in ("kernel", "bias", "class_token", "positions"):
        assert decay[f"backbone/stem/{leaf}"] == 0.5**13
    assert decay["backbone/stage1/block0/norm1/scale"] == 0.5**12
    assert decay["backbone/stage1/block11/mlp/project/bias"] == 0.5
    assert decay["backbone/stage1/norm/scale"] == decay["backbone/classifier/kernel"] == 1


def test_sizes_cannot_share_a_program():
    with pytest.raises(ValueError, match=r"differ in out and heads and hidden .* cannot share"):
        merge_architectures([vit.VARIANTS["tiny"], vit.VARIANTS["small"]])
    deeper = vit.make_architecture(16, heads=2, depth=3)
    with pytest.raises(ValueError, match="differ in number of blocks of stage 1, block 2 cannot"):
        merge_architectures([TWO_BLOCKS, deeper])
    with pytest.raises(UserError, match="is not known to keep zero channels zero"):
        check_zero_padding(vit.Model(TWO_BLOCKS), (1, 32, 32, 1))


# ---- the point detector


def detector_config(strides):
    config = detector()
    config.model.backbone, config.model.strides = "vit/tiny", strides
    config.nms.max_detections, config.nms.pre_nms_top_k = 5, 10
    return config


@pytest.mark.parametrize(("strides", "missing"), [((4, 8), "4, 8"), ((16, 32), "32")])
def test_point_detector_refuses_strides_that_the_backbone_lacks(strides, missing):
    message = (
        f"model.backbone = 'vit/tiny': this detector needs features at strides {missing}, but the "
        "backbone has them at 16 only; change model.strides or model.backbone"
    )
    with pytest.raises(UserError) as error:
        point.build(vit.Model(TWO_BLOCKS), detector_config(strides), 3)
    assert str(error.value) == message


@pytest.mark.slow
def test_point_detector_trains_at_stride_16():
    config, shape = detector_config((16,)), (2, 40, 48, 1)
    model = point.build(vit.Model(TWO_BLOCKS), config, 3)
    weights = {"class": 1.0, "box": 2.0, "offset": 0.25}

    def loss(variables, frozen_batchnorm, batch, key, hyper):
        network = partial(models.apply, model, *variables, train=True)
        value, (stats, terms) = point.loss(network, batch, key, weights, config)
        return value, (stats, terms)

    functions = ModelFunctions(
        lambda seed: Variables(*models.init(model, seed, shape)), loss, lambda *_: {}
    )
    batch = {
        "image": jax.random.normal(jax.random.key(0), shape),
        "boxes": jnp.float32([[[4, 6, 30, 28]], [[20, 8, 44, 36]]]),
        "labels": jnp.array([[0], [2]]),
        "valid": jnp.ones((2, 1), bool),
        "ignore": jnp.zeros((2, 1), bool),
    }
    tx = step.make_optimizer("adamw", 0.9, 0.999, 1.0)
    variables = functions.init(0)
    state = step.init_state(variables, tx)
    trainable = step.select_trainable(dict.fromkeys((*variables.params, *variables.stats), 1.0))
    train_step = quick_jit(step.make_step(functions, tx, lambda step: 1.0, trainable))
    hyper = {"seed": 0, "weight_decay": 0.0, "ema": 0.9, "lr": 0.01}
    new_state, metrics = train_step(state, batch, hyper)
    assert np.isfinite(metrics["loss"])
    assert new_state.diverged_at == -1
    new = new_state.variables(new_state.weights)
    unchanged = [p for p, leaf in variables.params.items() if np.array_equal(leaf, new.params[p])]
    assert unchanged == []

    def detect(variables, x):
        outputs, _ = models.apply(model, *variables, x, train=False)
        return point.decode(outputs, shape[1:3], config)

    detections = quick_jit(detect)(new, batch["image"])
    # 3 x 3 cells
    assert detections["boxes"].shape == (2, 5, 4)
    assert all(np.isfinite(leaf).all() for leaf in detections.values())
    assert (detections["boxes"][..., 2:] >= detections["boxes"][..., :2]).all()


# ---- published weights


def draw_tiny():
    return {name: draw(name, shape) for name, shape in shapes_of(TINY_STEM).items()}


def test_published_weights_of_both_libraries(tmp_path):
    drawn, arch = draw_tiny(), vit.VARIANTS["tiny"]
    save_file(drawn, tmp_path / "model.safetensors")
    state = pretrained.read_state_dict(tmp_path / "model.safetensors")
    assert pretrained.detect_library(state, "vit/tiny") == "timm"
    arrays, eps, _ = pretrained.convert_state_dict(state, "vit/tiny")
    assert eps == 0
    assert (
        arrays["stage1/block7/attention/qkv/kernel"][3, 400]
        == drawn["blocks.7.attn.qkv.weight"][400, 3]
    )
    np.testing.assert_array_equal(arrays["stem/class_token"], drawn["cls_token"][0, 0])
    np.testing.assert_array_equal(arrays["stem/positions"], drawn["pos_embed"][0])

    renamed = {vit.torchvision_name(p, arch): drawn[vit.timm_name(p, arch)] for p in arrays}
    old_names = {"mlp.0": "mlp.linear_1", "mlp.3": "mlp.linear_2"}
    older = dict(renamed)
    for new, old in old_names.items():
        older = {name.replace(f".{new}.", f".{old}."): value for name, value in older.items()}
    assert sum("linear_" in name for name in older) == 48
    for version in (renamed, older):
        file = tmp_path / "model.pth"
        prefixed = {f"module.{name}": value for name, value in version.items()}
        torch_files.save_state_dict(file, prefixed, key="model")
        state = pretrained.read_state_dict(file)
        assert pretrained.detect_library(state, "vit/tiny") == "torchvision"
        converted, *_ = pretrained.convert_state_dict(state, "vit/tiny")
        assert converted.keys() == arrays.keys()
        for path, array in arrays.items():
            np.testing.assert_array_equal(converted[path], array)


def test_weights_for_384_pixels_are_resized_to_our_table():
    table = draw("pos_embed", (1, 1 + 24**2, 192))
    arrays, *_ = pretrained.convert_state_dict({**draw_tiny(), "pos_embed": table}, "vit/tiny")
    rows = cubic_matrix(24, 14)
    expected = np.einsum("hi,wj,ijd->hwd", rows, rows, table[0, 1:].reshape(24, 24, 192))
    actual = arrays["stem/positions"]
    np.testing.assert_array_equal(actual[0], table[0, 0])
    np.testing.assert_allclose(actual[1:].reshape(14, 14, 192), expected, rtol=1e-4, atol=1e-5)


def test_tables_without_a_square_grid_are_rejected():
    state = {**draw_tiny(), "pos_embed": np.zeros((1, 198, 192), np.float32)}
    message = r"of another shape: pos_embed \(1, 198, 192\) for stem/positions \(197, 192\)"
    with pytest.raises(UserError, match=message):
        pretrained.convert_state_dict(state, "vit/tiny")
