"""Published weights in our layout: parity through files, and errors."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.models.make_references import CLASSES, FOLDER, LOGITS, draw, image
from tests.tiny_backbones import MICRO_CONVNEXT, MICRO_SWIN
from tests.transfer import torch_files
from tinyjax import models
from tinyjax.errors import UserError
from tinyjax.models.layers import batch_norm
from tinyjax.transfer import pretrained

REAL = Path(__file__).parent / "real"  # by make_real.py
TV6 = "torchvision.mobilenetv3.s-6"
S6, B7 = "mobilenetv3/s-6", "efficientnet/b-7"
COUNTER = "bn1.num_batches_tracked"  # in both libraries, every BatchNorm has one


def shapes_of(stem: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the state dict of a network with references in tests/models."""
    stored = json.loads(str(np.load(FOLDER / f"{stem}.npz")["shapes"]))
    return {name: tuple(shape) for name, shape in stored.items()}


def draw_state(stem: str) -> dict[str, np.ndarray]:
    """Draw its whole state dict, as for its reference."""
    state = {name: draw(name, shape) for name, shape in shapes_of(stem).items()}
    return state | {COUNTER: np.array(5)}


def zero_state(stem: str) -> dict[str, np.ndarray]:
    """Return weights of the same shapes, all 0."""
    return {name: np.zeros(shape, np.float32) for name, shape in shapes_of(stem).items()}


def make_forward(name, channels=3):
    """Return (eps, arrays, images) -> logits of the network, compiled once for all eps."""
    model = models.build(name, CLASSES)
    params, _ = jax.eval_shape(lambda: models.init(model, 0, (1, 64, 64, channels)))

    @jax.jit
    def run(eps, arrays, x):
        param_arrays = {path: v for path, v in arrays.items() if path in params}
        stats = {path: v for path, v in arrays.items() if path not in params}
        (logits, _), _ = models.apply(model.clone(eps=eps), param_arrays, stats, x, train=False)
        return logits[:, ::LOGITS]

    return run


def relative_error(logits, stem: str) -> float:
    """Return the largest difference to the library's logits, relative to their mean magnitude."""
    stored = np.load(FOLDER / f"{stem}.npz")["logits"]
    return float(np.abs(logits - stored).max() / np.abs(stored).mean())


def test_mobilenet_of_both_libraries_matches_their_logits(tmp_path):
    run = make_forward("mobilenetv3/small")
    save_file(draw_state("timm.mobilenetv3.small"), tmp_path / "model.safetensors")
    torch_files.save_state_dict(tmp_path / "model.pth", draw_state("torchvision.mobilenetv3.s-0"))
    for suffix, stem, expected_eps, wrong_eps in (
        ("safetensors", "timm.mobilenetv3.small", 1e-5, 1e-3),
        ("pth", "torchvision.mobilenetv3.s-0", 1e-3, 1e-5),
    ):
        state = pretrained.read_state_dict(tmp_path / f"model.{suffix}")
        arrays, eps, _ = pretrained.convert_state_dict(state, "mobilenetv3/small")
        assert eps == expected_eps
        assert relative_error(run(eps, arrays, image()), stem) < 1e-4
        assert relative_error(run(wrong_eps, arrays, image()), stem) > 1e-2


@pytest.mark.parametrize(
    "stem",
    [
        "torchvision.resnet.18",
        pytest.param("torchvision.shufflenetv2.0.5", marks=pytest.mark.slow),
        pytest.param("timm.ghostnet.0.5", marks=pytest.mark.slow),
    ],
)
def test_checkpoint_of_a_training_script_matches_its_librarys_logits(stem, tmp_path):
    """A nested state dict, with the prefix that DataParallel adds to all names."""
    _, family, variant = stem.split(".", 2)
    state = {f"module.{name}": value for name, value in draw_state(stem).items()}
    torch_files.save_state_dict(tmp_path / "checkpoint.pth", state, "state_dict")
    state = pretrained.read_state_dict(tmp_path / "checkpoint.pth")
    arrays, eps, source = pretrained.convert_state_dict(state, f"{family}/{variant}")
    run = make_forward(f"{family}/{variant}", source.channels)
    shape = tuple(np.load(FOLDER / f"{stem}.npz")["input"])
    assert relative_error(run(eps or 1e-5, arrays, image(shape)), stem) < 1e-4


@pytest.mark.parametrize(
    "stem",
    [
        *("torchvision.shufflenetv2.n-5", "timm.ghostnet.g-7"),
        *("torchvision.convnext.micro", "torchvision.swin.micro"),
    ],
)
def test_both_formats_of_a_file_give_the_same_weights(stem, tmp_path):
    _, family, variant = stem.split(".", 2)
    backbone, state = f"{family}/{variant}", draw_state(stem)
    save_file(state, tmp_path / "model.safetensors")
    prefixed = {f"module.{name}": value for name, value in state.items()}
    torch_files.save_state_dict(tmp_path / "model.pth", prefixed, "state_dict")
    results = [
        pretrained.convert_state_dict(pretrained.read_state_dict(tmp_path / name), backbone)[0]
        for name in ("model.safetensors", "model.pth")
    ]
    assert len(results[0]) == len(shapes_of(stem))
    for path, array in results[0].items():
        np.testing.assert_array_equal(results[1][path], array)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "model."]
)
def test_prefixes_of_wrappers_are_removed_from_safetensors(prefix, tmp_path):
    file, one = tmp_path / "model.safetensors", np.ones(2, np.float32)
    save_file({f"{prefix}conv1.weight": one, f"{prefix}fc.bias": one}, file)
    assert pretrained.read_state_dict(file).keys() == {"conv1.weight", "fc.bias"}


def test_weights_that_are_not_finite_are_rejected():
    state = draw_state("torchvision.shufflenetv2.n-5")
    state["conv1.0.weight"] = np.full_like(state["conv1.0.weight"], np.nan)
    with pytest.raises(UserError, match=r"NaN or infinity in conv1\.0\.weight"):
        pretrained.convert_state_dict(state, "shufflenetv2/n-5")


def test_a_name_with_and_without_prefix_is_rejected_in_safetensors(tmp_path):
    file, one = tmp_path / "model.safetensors", np.ones(2, np.float32)
    save_file({"module.w": one, "w": one}, file)
    with pytest.raises(UserError, match=r"model\.safetensors: duplicate name w, with and without"):
        pretrained.read_state_dict(file)


def test_channels_of_ghostnet_are_interleaved():
    state = draw_state("timm.ghostnet.g-7")
    arrays, *_ = pretrained.convert_state_dict(state, "ghostnet/g-7")
    order = [0, 2, 1, 3]  # of the stem's four channels: the halves alternate
    stem, kernel = (
        state[f"{name}.weight"] for name in ("conv_stem", "blocks.0.0.ghost1.primary_conv.0")
    )
    np.testing.assert_array_equal(arrays["stem/kernel"], stem.transpose(2, 3, 1, 0)[..., order])
    np.testing.assert_array_equal(arrays["stem/bn/mean"], state["bn1.running_mean"][order])
    expected = kernel.transpose(2, 3, 1, 0)[:, :, order]
    np.testing.assert_array_equal(arrays["stage1/block0/ghost1/primary/kernel"], expected)
    head = state["blocks.9.0.bn1.weight"]
    np.testing.assert_array_equal(arrays["head/bn/scale"], head)


def test_efficientnet_of_timm_matches_its_logits(tmp_path):
    save_file(draw_state("timm.efficientnet.b-7"), tmp_path / "model.safetensors")
    state = pretrained.read_state_dict(tmp_path / "model.safetensors")
    arrays, eps, _ = pretrained.convert_state_dict(state, B7)
    run = make_forward("efficientnet/b-7")
    assert relative_error(run(eps, arrays, image()), "timm.efficientnet.b-7") < 1e-4
    assert relative_error(run(1e-3, arrays, image()), "timm.efficientnet.b-7") > 1e-3


def save_as_safetensors(file, state):
    save_file(state, file.with_suffix(".safetensors"))
    return file.with_suffix(".safetensors")


def save_as_training_script(file, state):
    """As a script that trains in DataParallel and saves more than the network."""
    index = {"features.1.0.attn.relative_position_index": np.zeros(49 * 49, np.int64)}
    state = {f"module.{name}": value for name, value in (state | index).items()}
    return torch_files.save_state_dict(file.with_suffix(".pth"), state, key="state_dict")


@pytest.mark.parametrize(
    ("name", "save"), [(MICRO_CONVNEXT, save_as_safetensors), (MICRO_SWIN, save_as_training_script)]
)
def test_files_of_networks_with_layer_norm_match_their_logits(name, save, tmp_path):
    stem = f"torchvision.{name.replace('/', '.')}"
    state = pretrained.read_state_dict(save(tmp_path / "model", draw_state(stem)))
    arrays, eps, _ = pretrained.convert_state_dict(state, name)
    assert eps == 0  # no BatchNorm
    assert relative_error(make_forward(name)(eps, arrays, image()), stem) < 1e-4


@pytest.mark.parametrize("name", ["convnext/tiny", "swin/tiny"])
def test_library_of_networks_with_layer_norm_is_detected(name):
    for library in ("timm", "torchvision"):
        state = zero_state(f"{library}.{name.replace('/', '.')}")
        arrays, *_ = pretrained.convert_state_dict(state, name)
        assert pretrained.detect_library(state, name) == library
        assert len(arrays) == len(state)


def test_efficientnet_of_torchvision():
    state = zero_state("torchvision.efficientnet.b0")
    arrays, eps, _ = pretrained.convert_state_dict(state, "efficientnet/b0")
    assert (pretrained.detect_library(state, "efficientnet/b0"), eps, len(arrays)) == (
        "torchvision",
        1e-5,
        len(state),
    )


@pytest.mark.parametrize(
    ("stem", "frozen", "expected_eps"),
    [
        ("torchvision.resnet.18", True, pretrained.FROZEN_EPS),
        ("torchvision.resnet.18", False, 1e-5),
        ("torchvision.mobilenetv3.large", True, 1e-5),
    ],
)
def test_backbone_of_a_detector_by_torchvision(stem, frozen, expected_eps):
    """The body has the names of the classifier, or of its `features`."""
    _, family, variant = stem.split(".")
    classifier = zero_state(stem)
    body = {
        f"backbone.body.{name.removeprefix('features.')}": value
        for name, value in classifier.items()
        if not name.startswith(("fc.", "classifier."))
    }
    detector = {**body, "backbone.fpn.inner_blocks.0.0.weight": np.zeros((8, 8, 1, 1))}
    if not frozen:
        detector["backbone.body.bn1.num_batches_tracked"] = np.array(1)
    arrays, eps, _ = pretrained.convert_state_dict(detector, f"{family}/{variant}")
    assert (eps, len(arrays)) == (expected_eps, len(body))


def test_epsilon_of_frozen_batchnorm_is_0_in_float32():
    """Also for small variances; padded channels, of variance 0, stay 0."""
    var = jnp.float32([1e-12, 1e-3, 1.0])
    assert np.array_equal(var + jnp.float32(pretrained.FROZEN_EPS), var)
    zero = jnp.zeros(1)
    settings = {"train": False, "eps": pretrained.FROZEN_EPS, "momentum": 0.1}
    y, *_ = batch_norm(jnp.zeros((1, 1, 1, 1)), zero, zero, zero, zero, **settings)
    assert y == 0


def test_real_file_without_classifier_in_half_precision():
    arrays, eps, _ = pretrained.convert_state_dict(
        pretrained.read_state_dict(REAL / "s-6.half.pth"), S6
    )
    assert eps == 1e-3
    model = models.build("mobilenetv3/s-6", 3)
    params, stats = jax.eval_shape(lambda: models.init(model, 0, (1, 64, 64, 3)))
    absent = ("hidden/kernel", "hidden/bias", "classifier/kernel", "classifier/bias")
    assert {*arrays, *absent} == {*params, *stats}
    for path, array in arrays.items():
        expected = {**params, **stats}[path]
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
    torch_kernel = draw("features.4.block.1.0.weight", (16, 1, 5, 5)).astype(np.float16)
    kernel = arrays["stage3/block0/depthwise/kernel"]
    np.testing.assert_array_equal(kernel[3, 1, 0], torch_kernel[:, 0, 3, 1])


def test_bfloat16_file_becomes_float32(tmp_path):
    state = {name: value.astype(jnp.bfloat16) for name, value in draw_state(TV6).items()}
    save_file(state, tmp_path / "a.safetensors")
    arrays, *_ = pretrained.convert_state_dict(
        pretrained.read_state_dict(tmp_path / "a.safetensors"), S6
    )
    np.testing.assert_array_equal(
        arrays["stem/bn/var"], state["features.0.1.running_var"].astype(np.float32), strict=True
    )


@pytest.mark.parametrize("classes", [1, 7])
def test_number_of_classes_is_arbitrary(classes):
    state = zero_state(TV6)
    state["classifier.3.weight"] = state["classifier.3.weight"][:classes]
    state["classifier.3.bias"] = state["classifier.3.bias"][:classes]
    arrays, *_ = pretrained.convert_state_dict(state, S6)
    assert arrays["classifier/kernel"].shape == (104, classes)
    assert arrays["classifier/bias"].shape == (classes,)


@pytest.mark.parametrize(
    "prefixes", [("classifier.",), ("conv_head.", "bn2.", "classifier."), ("conv_head.", "bn2.")]
)
def test_head_and_classifier_may_be_absent(prefixes):
    state = {
        k: v for k, v in zero_state("timm.efficientnet.b-7").items() if not k.startswith(prefixes)
    }
    arrays, *_ = pretrained.convert_state_dict(state, B7)
    layers = {path.split("/")[0] for path in arrays}
    removed = {"conv_head.": "head", "bn2.": "head", "classifier.": "classifier"}
    remaining = {"head", "classifier"} - {removed[p] for p in prefixes}
    assert layers & {"head", "classifier"} == remaining


def changed(**changes):
    """Return S-6's state dict by torchvision with changes; None removes a tensor."""
    changes = {name.replace("_", "."): value for name, value in changes.items()}
    state = {**zero_state(TV6), **changes}
    return {name: value for name, value in state.items() if value is not None}


STEM = np.zeros((8, 3, 3, 3))
MISMATCHES = {
    "missing: features.12.1.bias": changed(features_12_1_bias=None),
    "missing: classifier.0.bias": changed(classifier_0_bias=None),
    "missing: features.1.block.0.0.weight, features.0.1.weight)": changed(
        features_0_1_weight=None, features_1_block_0_0_weight=None
    ),
    "unexpected: fc.weight": changed(fc_weight=STEM),
    "of another shape: features.0.0.weight (8, 1, 3, 3) for stem/kernel (3, 3, 3, 8)": changed(
        features_0_0_weight=STEM[:, :1]
    ),
    "features.0.0.weight (3, 3, 3) for": changed(features_0_0_weight=STEM[0]),
    "classifier.3.weight (5, 104) for classifier/kernel (104, 1000)": changed(
        classifier_3_weight=np.zeros((5, 104))
    ),
    "classifier.3.bias () for classifier/bias (1,)": changed(classifier_3_bias=np.zeros(())),
    "features.1.block.1.fc1.bias (2, 1) for stage1/block0/se/reduce/bias (8,)": changed(
        features_1_block_1_fc1_bias=np.zeros((2, 1))
    ),
}


@pytest.mark.parametrize("message", MISMATCHES)
def test_mismatches_are_named(message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        pretrained.convert_state_dict(MISMATCHES[message], S6)
    assert "torchvision weights of another architecture than mobilenetv3/s-6 (" in str(error.value)
    assert "set model.backbone to the network they were trained for" in str(error.value)


@pytest.mark.parametrize(
    ("stem", "other"),
    [
        ("timm.efficientnet.b-7", "efficientnet/b-6"),
        ("timm.efficientnet.b0", "mobilenetv3/small"),
        ("timm.mobilenetv3.small", "efficientnet/b0"),
        ("torchvision.mobilenetv3.s-6", "mobilenetv3/s-5"),
        ("torchvision.mobilenetv3.large", "mobilenetv3/small"),
        ("torchvision.shufflenetv2.n-5", "shufflenetv2/n-4"),
        ("timm.ghostnet.g-7", "ghostnet/g-6"),
        ("timm.ghostnet.g-7", "efficientnet/b-7"),
    ],
)
def test_weights_of_another_architecture_are_rejected_in_one_line(stem, other):
    with pytest.raises(UserError, match=f"another architecture than {other}") as error:
        pretrained.convert_state_dict(zero_state(stem), other)
    assert len(str(error.value)) < 1000
    assert "\n" not in str(error.value)


def test_weights_of_no_known_library_are_rejected():
    message = "none of timm, torchvision: no conv_stem.weight and no features.0.0.weight among a, b"
    with pytest.raises(UserError, match=rf"{message}, c and 3 more$"):
        pretrained.detect_library("abcdef", B7)


def test_files_without_weights_are_rejected(tmp_path):
    for name, content, message in (
        ("none.pth", None, "no such weights file"),
        ("none.safetensors", None, "no such weights file"),
        ("a.onnx", b"", "give weights as .safetensors or as .pth, .pt, .bin"),
        ("a.safetensors", b"\x10\0\0\0\0\0\0\0{not json}       ", "not a .safetensors file"),
        ("cut.safetensors", b"", "not a .safetensors file"),
        ("a.bin", b"version https://git-lfs.github.com", "not by torch.save"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path / name))}: .*{message}"):
            pretrained.read_state_dict(tmp_path / name)
