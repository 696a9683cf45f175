"""Published weights in our layout: parity through files, pixels, stems, refusals."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.models.make_references import CLASSES, FOLDER, LOGITS, draw, image
from tests.transfer import torch_files
from tinyjax import models
from tinyjax.data import augmentation
from tinyjax.errors import UserError
from tinyjax.transfer import pretrained

REAL = Path(__file__).parent / "real"  # by make_real.py
TV6 = "torchvision.mobilenetv3.s-6"
S6 = models.build("mobilenetv3/s-6").arch
B7 = models.build("efficientnet/b-7").arch
COUNTER = "bn1.num_batches_tracked"  # of which every BatchNorm has one, in either library


def shapes_of(stem: str) -> dict[str, tuple[int, ...]]:
    """Of the state dict of a network that tests/models holds references of."""
    stored = json.loads(str(np.load(FOLDER / f"{stem}.npz")["shapes"]))
    return {name: tuple(shape) for name, shape in stored.items()}


def drawn(stem: str) -> dict[str, np.ndarray]:
    """Its whole state dict, drawn as for its reference."""
    state = {name: draw(name, shape) for name, shape in shapes_of(stem).items()}
    return state | {COUNTER: np.array(5)}


def empty(stem: str) -> dict[str, np.ndarray]:
    """The same without numbers: nothing is written to the memory asked for."""
    return {name: np.empty(shape, np.float32) for name, shape in shapes_of(stem).items()}


def forward(name):
    """(eps, leaves, images) -> logits of the network, compiled once for every eps."""
    model = models.build(name, CLASSES)
    params, _ = jax.eval_shape(lambda: models.init(model, 0, (1, 64, 64, 3)))

    @jax.jit
    def run(eps, leaves, x):
        split = [{p: v for p, v in leaves.items() if (p in params) is of} for of in (True, False)]
        (logits, _), _ = models.apply(model.clone(eps=eps), *split, x, train=False)
        return logits[:, ::LOGITS]

    return run


def drift(found, stem: str) -> float:
    """The largest difference to the library's own logits, in their mean size."""
    stored = np.load(FOLDER / f"{stem}.npz")["logits"]
    return float(np.abs(found - stored).max() / np.abs(stored).mean())


def test_mobilenet_of_both_libraries_gives_the_librarys_logits(tmp_path):
    run, arch = forward("mobilenetv3/small"), models.build("mobilenetv3/small").arch
    save_file(drawn("timm.mobilenetv3.small"), tmp_path / "model.safetensors")
    torch_files.save(tmp_path / "model.pth", drawn("torchvision.mobilenetv3.s-0"))
    for end, stem, eps_of, other_eps in (
        ("safetensors", "timm.mobilenetv3.small", 1e-5, 1e-3),
        ("pth", "torchvision.mobilenetv3.s-0", 1e-3, 1e-5),
    ):
        state = pretrained.read(tmp_path / f"model.{end}")
        leaves, eps = pretrained.translate(state, arch, "mobilenetv3")
        assert eps == eps_of
        assert drift(run(eps, leaves, image()), stem) < 1e-4
        assert drift(run(other_eps, leaves, image()), stem) > 1e-2


def test_efficientnet_of_timm_gives_timms_logits(tmp_path):
    save_file(drawn("timm.efficientnet.b-7"), tmp_path / "model.safetensors")
    state = pretrained.read(tmp_path / "model.safetensors")
    leaves, eps = pretrained.translate(state, B7, "efficientnet")
    run = forward("efficientnet/b-7")
    assert drift(run(eps, leaves, image()), "timm.efficientnet.b-7") < 1e-4
    assert drift(run(1e-3, leaves, image()), "timm.efficientnet.b-7") > 1e-3


def test_efficientnet_of_torchvision():
    state, arch = empty("torchvision.efficientnet.b0"), models.build("efficientnet/b0").arch
    leaves, eps = pretrained.translate(state, arch, "efficientnet")
    assert (pretrained.source(state), eps, len(leaves)) == ("torchvision", 1e-5, len(state))


def test_a_real_file_without_its_classifier_and_in_half_precision():
    leaves, eps = pretrained.translate(pretrained.read(REAL / "s-6.half.pth"), S6, "mobilenetv3")
    assert eps == 1e-3
    model = models.build("mobilenetv3/s-6", 3)
    params, stats = jax.eval_shape(lambda: models.init(model, 0, (1, 64, 64, 3)))
    away = ("hidden/kernel", "hidden/bias", "classifier/kernel", "classifier/bias")
    assert {*leaves, *away} == {*params, *stats}
    for path, leaf in leaves.items():
        like = {**params, **stats}[path]
        assert (leaf.dtype, leaf.shape) == (like.dtype, like.shape)
    theirs = draw("features.4.block.1.0.weight", (16, 1, 5, 5)).astype(np.float16)
    ours = leaves["stage3/block0/depthwise/kernel"]
    np.testing.assert_array_equal(ours[3, 1, 0], theirs[:, 0, 3, 1])


def test_a_bfloat16_file_becomes_float32(tmp_path):
    state = {name: value.astype(jnp.bfloat16) for name, value in drawn(TV6).items()}
    save_file(state, tmp_path / "a.safetensors")
    leaves, _ = pretrained.translate(pretrained.read(tmp_path / "a.safetensors"), S6, "mobilenetv3")
    np.testing.assert_array_equal(
        leaves["stem/bn/var"], state["features.0.1.running_var"].astype(np.float32), strict=True
    )


@pytest.mark.parametrize("classes", [1, 7])
def test_any_number_of_classes(classes):
    state = empty(TV6)
    state["classifier.3.weight"] = state["classifier.3.weight"][:classes]
    state["classifier.3.bias"] = state["classifier.3.bias"][:classes]
    leaves, _ = pretrained.translate(state, S6, "mobilenetv3")
    assert leaves["classifier/kernel"].shape == (104, classes)
    assert leaves["classifier/bias"].shape == (classes,)


@pytest.mark.parametrize(
    "prefixes", [("classifier.",), ("conv_head.", "bn2.", "classifier."), ("conv_head.", "bn2.")]
)
def test_head_and_classifier_may_be_absent(prefixes):
    state = {k: v for k, v in empty("timm.efficientnet.b-7").items() if not k.startswith(prefixes)}
    leaves, _ = pretrained.translate(state, B7, "efficientnet")
    parts = {path.split("/")[0] for path in leaves}
    away = {"conv_head.": "head", "bn2.": "head", "classifier.": "classifier"}
    assert parts & {"head", "classifier"} == {"head", "classifier"} - {away[p] for p in prefixes}


def changed(**changes):
    """The state dict of S-6 by torchvision; a change of None takes a tensor out."""
    changes = {name.replace("_", "."): value for name, value in changes.items()}
    state = {**empty(TV6), **changes}
    return {name: value for name, value in state.items() if value is not None}


THREE = np.zeros((8, 3, 3, 3))
MISFITS = {
    "missing: features.12.1.bias": changed(features_12_1_bias=None),
    "missing: classifier.0.bias": changed(classifier_0_bias=None),
    "missing: features.1.block.0.0.weight, features.0.1.weight)": changed(
        features_0_1_weight=None, features_1_block_0_0_weight=None
    ),
    "without a place here: fc.weight": changed(fc_weight=THREE),
    "of another shape: features.0.0.weight (8, 1, 3, 3) for stem/kernel (3, 3, 3, 8)": changed(
        features_0_0_weight=THREE[:, :1]
    ),
    "features.0.0.weight (3, 3, 3) for": changed(features_0_0_weight=THREE[0]),
    "classifier.3.weight (5, 104) for classifier/kernel (104, 1000)": changed(
        classifier_3_weight=np.zeros((5, 104))
    ),
    "classifier.3.bias () for classifier/bias (1,)": changed(classifier_3_bias=np.zeros(())),
    "features.1.block.1.fc1.bias (2, 1) for stage1/block0/se/reduce/bias (8,)": changed(
        features_1_block_1_fc1_bias=np.zeros((2, 1))
    ),
}


@pytest.mark.parametrize("message", MISFITS)
def test_what_does_not_fit_is_named(message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        pretrained.translate(MISFITS[message], S6, "mobilenetv3")
    assert "torchvision weights of another architecture than mobilenetv3/s-6 (" in str(error.value)
    assert "name the network they were made for" in str(error.value)


@pytest.mark.parametrize(
    ("stem", "other"),
    [
        ("timm.efficientnet.b-7", "efficientnet/b-6"),
        ("timm.efficientnet.b0", "mobilenetv3/small"),
        ("timm.mobilenetv3.small", "efficientnet/b0"),
        ("torchvision.mobilenetv3.s-6", "mobilenetv3/s-5"),
        ("torchvision.mobilenetv3.large", "mobilenetv3/small"),
    ],
)
def test_another_architectures_weights_are_refused_in_a_line(stem, other):
    family, arch = other.split("/")[0], models.build(other).arch
    with pytest.raises(UserError, match=f"another architecture than {other}") as error:
        pretrained.translate(empty(stem), arch, family)
    assert len(str(error.value)) < 1000
    assert "\n" not in str(error.value)


def test_weights_of_neither_library():
    with pytest.raises(UserError, match=r"neither timm .* among a, b, c and 3 more$"):
        pretrained.source(dict.fromkeys("abcdef", np.zeros(1)))


def test_files_that_are_no_weights(tmp_path):
    for name, content, message in (
        ("none.pth", None, "no such file"),
        ("none.safetensors", None, "no such file"),
        ("a.onnx", b"", "give weights as .safetensors or as .pth, .pt, .bin"),
        ("a.safetensors", b"\x10\0\0\0\0\0\0\0{not json}       ", "no .safetensors file"),
        ("cut.safetensors", b"", "no .safetensors file"),
        ("a.bin", b"version https://git-lfs.github.com", "not by torch.save"),
    ):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"^{re.escape(str(tmp_path / name))}: .*{message}"):
            pretrained.read(tmp_path / name)


def stem_output(leaves, x, eps=1e-5):
    """The stem of layers.trunk before its activation, in float64, by lax."""
    with jax.enable_x64(True):
        y = jax.lax.conv_general_dilated(
            jnp.asarray(x), jnp.asarray(leaves["stem/kernel"]), (2, 2), [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"), precision="highest",
        )  # fmt: skip
        slope = leaves["stem/bn/scale"] / np.sqrt(leaves["stem/bn/var"] + eps)
        return np.asarray((y - leaves["stem/bn/mean"]) * slope + leaves["stem/bn/bias"])


@pytest.fixture
def stem():
    """A stem in float64."""
    random = np.random.default_rng(0)
    vectors = {leaf: random.uniform(0.5, 2, 8) for leaf in ("scale", "bias", "mean", "var")}
    kernel = random.standard_normal((3, 3, 3, 8))
    return {"stem/kernel": kernel, **{f"stem/bn/{leaf}": v for leaf, v in vectors.items()}}


def test_public_weights_see_our_pixels_as_they_saw_theirs(stem):
    x = np.random.default_rng(1).uniform(0, 1, (2, 16, 20, 3))
    moved = pretrained.for_our_pixels(
        {**stem, "head/kernel": np.ones(3)},
        pretrained.IMAGENET_MEAN, pretrained.IMAGENET_STD, augmentation.MEAN, augmentation.STD,
    )  # fmt: skip
    theirs = stem_output(stem, (x - pretrained.IMAGENET_MEAN) / pretrained.IMAGENET_STD)
    ours = stem_output(moved, (x - augmentation.MEAN) / augmentation.STD)
    # A window of 3 at stride 2 and padding 1 leaves the image at the first row and column alone.
    np.testing.assert_allclose(ours[:, 1:, 1:], theirs[:, 1:, 1:], rtol=0, atol=1e-12)
    assert np.abs(ours[:, 0] - theirs[:, 0]).max() > 1e-2
    changed = {path for path in stem if not np.array_equal(stem[path], moved[path])}
    assert changed == {"stem/kernel", "stem/bn/mean"}
    assert moved["head/kernel"].tolist() == [1, 1, 1]
    narrow = {path: leaf.astype(np.float32) for path, leaf in stem.items()}
    assert pretrained.for_our_pixels(narrow, 0.5, 0.5, 0.4, 0.2)["stem/kernel"].dtype == np.float32


def test_a_stem_sees_gray_the_same_in_one_channel_and_in_three(stem):
    gray = np.random.default_rng(2).standard_normal((2, 16, 20, 1))
    color = np.repeat(gray, 3, axis=-1)
    single = stem | {"stem/kernel": pretrained.fold_stem(stem["stem/kernel"], 1)}
    triple = single | {"stem/kernel": pretrained.fold_stem(single["stem/kernel"], 3)}
    assert single["stem/kernel"].shape == (3, 3, 1, 8)
    assert triple["stem/kernel"].shape == (3, 3, 3, 8)
    expected = stem_output(stem, color)
    np.testing.assert_allclose(stem_output(single, gray), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(stem_output(triple, color), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("has", "wanted"), [(3, 4), (1, 2), (4, 3), (3, 3)])
def test_other_changes_of_channels_are_refused(has, wanted):
    with pytest.raises(UserError, match=f"a stem for {has} channels cannot be one for {wanted}"):
        pretrained.fold_stem(np.zeros((3, 3, has, 8)), wanted)
