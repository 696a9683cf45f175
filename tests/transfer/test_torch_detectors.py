"""Whole detectors from torchvision's files, on small networks with torchvision's names."""

import re
from functools import partial

import jax
import numpy as np
import pytest

from tests.transfer import torch_files
from tinyjax import models
from tinyjax.config import detector, load
from tinyjax.errors import UserError
from tinyjax.models.resnet import torchvision_name
from tinyjax.tasks import detect
from tinyjax.transfer.freezing import freeze_multipliers
from tinyjax.transfer.starting_weights import fit_to_network, load_starting_weights
from tinyjax.transfer.torch_detectors import convert_detector

BACKBONE, WIDTH, CLASSES = "resnet/18@w0.0625", 8, 3
NAMES = {  # our layers -> torchvision's, in order of application
    r"neck/lateral(8|16|32)": ("backbone.fpn.inner_blocks.{}.0", {"8": 0, "16": 1, "32": 2}),
    r"neck/output(8|16|32)": ("backbone.fpn.layer_blocks.{}.0", {"8": 0, "16": 1, "32": 2}),
    r"neck/extra(64|128)": ("backbone.fpn.extra_blocks.p{}", {"64": 6, "128": 7}),
    r"head/class_tower(\d)": ("head.classification_head.conv.{}.0", {"1": 0, "2": 1}),
    r"head/box_tower(\d)": ("head.regression_head.conv.{}.0", {"1": 0, "2": 1}),
    r"head/class_out/anchors(9)": ("head.classification_head.cls_logits", {"9": ""}),
    r"head/box_out/anchors(9)": ("head.regression_head.bbox_reg", {"9": ""}),
}


def make_config(**fields):
    config = detector("retinanet")
    config.model.update(
        backbone=BACKBONE, strides=(8, 16, 32, 64, 128), anchors=("torchvision",), neck="fpn",
        neck_width=WIDTH, neck_separable=False, neck_extra_levels="p5", head="dense",
    )  # fmt: skip
    config.model.update(fields)
    return config


def network_arrays(config, classes=CLASSES):
    params, stats = models.init(detect.build(config, classes), 0, (1, 64, 64, 3))
    return {path: np.asarray(leaf) for path, leaf in {**params, **stats}.items()}


def torch_name(path):
    if path.startswith("backbone/"):
        arch = models.architecture(BACKBONE)
        return f"backbone.body.{torchvision_name(path.removeprefix('backbone/'), arch)}"
    layer, _, leaf = path.rpartition("/")
    for pattern, (name, numbers) in NAMES.items():
        if match := re.fullmatch(pattern, layer):
            suffix = {"kernel": "weight", "bias": "bias"}[leaf]
            return f"{name.format(numbers[match[1]])}.{suffix}"
    raise ValueError(path)


def torch_state(arrays):
    """A state dict of random numbers."""
    random = np.random.default_rng(0)

    def draw(shape):
        shape = (*shape[:-3:-1], *shape[:-2]) if len(shape) == 4 else shape
        return random.uniform(0.5, 1.5, shape).astype(np.float32)

    return {torch_name(path): draw(array.shape) for path, array in arrays.items()}


@pytest.fixture(scope="module")
def current():
    return network_arrays(make_config())


@pytest.fixture(scope="module")
def state(current):
    return torch_state(current)


def fit(tmp_path, state, current, reinit=(), classes=("a", "b", "c")):
    file = torch_files.save_state_dict(tmp_path / "retinanet.pth", state)
    return fit_to_network(load_starting_weights(str(file), BACKBONE), current, reinit, classes)


def test_retinanet_starts_from_all_arrays_of_a_file(tmp_path, current, state):
    fitted = fit(tmp_path, state, current)
    assert {*fitted.loaded} == current.keys()
    assert fitted.new == fitted.skipped == fitted.reshaped == ()
    for path in ("neck/lateral16", "neck/extra128", "head/class_tower2", "head/box_out/anchors9"):
        weight = state[torch_name(f"{path}/kernel")]
        np.testing.assert_array_equal(
            fitted.arrays[f"{path}/kernel"], weight.transpose(2, 3, 1, 0), err_msg=path
        )
        bias = state[torch_name(f"{path}/bias")]
        np.testing.assert_array_equal(fitted.arrays[f"{path}/bias"], bias)


def test_old_files_have_shorter_names(state):
    blocks = r"(blocks\.\d|conv\.\d)\.0(\.\w+)"
    old = {re.sub(blocks, r"\1\2", name): value for name, value in state.items()}
    assert len(old.keys() - state.keys()) == 2 * (6 + 4)  # weights and biases
    converted, expected = convert_detector(old), convert_detector(state)
    assert converted.keys() == expected.keys()
    for path, array in expected.items():
        np.testing.assert_array_equal(converted[path], array)


def test_other_classes_and_necks_are_rejected_with_the_fields_to_set(tmp_path, current, state):
    four = network_arrays(make_config(), 4)
    message = r"are 3 without names, .* reinit = \('head/class_out/\.\*',\)"
    with pytest.raises(UserError, match=message):
        fit(tmp_path, state, four, classes="abcd")
    fitted = fit(tmp_path, state, four, ("head/class_out/.*",), "abcd")
    assert all(path.startswith("head/class_out/anchors9/") for path in fitted.new + fitted.skipped)

    # The backbone alone, for another neck and head.
    other = network_arrays(make_config(neck="pan", neck_separable=True, neck_extra_levels="pool"))
    message = r"do not fit this network .*; configure them .* reinit = \('neck/\.\*',\)"
    with pytest.raises(UserError, match=message):
        fit(tmp_path, state, other)
    fitted = fit(tmp_path, state, other, ("(neck|head)/.*",))
    assert {path.split("/")[0] for path in fitted.loaded} == {"backbone"}
    assert {path.split("/")[0] for path in fitted.skipped} == {"neck", "head"}


def test_a_module_with_another_layer_is_left_out(state):
    norm = {"head.classification_head.conv.0.1.weight": np.ones(8, np.float32)}  # GroupNorm
    paths = convert_detector(state | norm).keys()
    assert {path.split("/")[0] for path in paths} == {"neck"}
    mobilenet = {
        name.replace("body.conv1", "body.0.0"): value for name, value in state.items()
    }  # its two features have the same stride
    assert convert_detector(mobilenet) == {}
    assert convert_detector({"conv1.weight": np.zeros((8, 3, 7, 7))}) == {}


def test_faster_rcnn():
    """Two classes and the background; kernels of the box head on 7 x 7 x 4 features."""
    random = np.random.default_rng(0)
    shapes = {
        "rpn.head.conv.0.0": (4, 4, 3, 3),
        "rpn.head.cls_logits": (3, 4, 1, 1),
        "rpn.head.bbox_pred": (12, 4, 1, 1),
        "roi_heads.box_head.fc6": (6, 4 * 49),
        "roi_heads.box_head.fc7": (5, 6),
        "roi_heads.box_predictor.cls_score": (3, 5),
        "roi_heads.box_predictor.bbox_pred": (12, 5),
    }
    laterals = {f"backbone.fpn.inner_blocks.{i}.0": (4, 8, 1, 1) for i in range(4)}
    state = {"backbone.body.conv1.weight": np.zeros((1, 3, 7, 7))}
    for name, shape in {**shapes, **laterals}.items():
        state |= {f"{name}.weight": random.normal(size=shape), f"{name}.bias": np.ones(shape[0])}
    arrays = convert_detector(state)
    layers = ("conv", "object_out/anchors3", "box_out/anchors3")
    assert {path.rpartition("/")[0] for path in arrays} == {
        *(f"neck/lateral{stride}" for stride in (4, 8, 16, 32)),
        *(f"rpn/{layer}" for layer in layers),
        *(f"box_head1/{layer}" for layer in ("fc1", "fc2", "class_out", "box_out")),
    }
    features = random.normal(size=(4, 7, 7))  # c h w
    fc6 = state["roi_heads.box_head.fc6.weight"]
    kernel = arrays["box_head1/fc1/kernel"]
    np.testing.assert_allclose(
        np.einsum("chw,hwcn->n", features, kernel), fc6 @ features.reshape(-1), rtol=1e-5, atol=1e-5
    )
    x = random.normal(size=5)
    boxes = state["roi_heads.box_predictor.bbox_pred.weight"] @ x
    actual = (x @ arrays["box_head1/box_out/kernel"]).reshape(2, 4)
    np.testing.assert_allclose(actual, boxes.reshape(3, 4)[1:], rtol=1e-5, atol=1e-5)
    assert arrays["box_head1/box_out/bias"].shape == (8,)
    assert arrays["box_head1/class_out/kernel"].shape == (5, 3)
    old = {name.replace("conv.0.0", "conv"): value for name, value in state.items()}
    assert convert_detector(old).keys() == arrays.keys()


def test_mobilenet():
    """Its pyramid has numbers instead of strides, and the last convolution of the backbone."""
    random = np.random.default_rng(0)
    shapes = {
        **{f"backbone.fpn.inner_blocks.{i}.0": (4, 8, 1, 1) for i in (0, 1)},
        **{f"backbone.fpn.layer_blocks.{i}.0": (4, 4, 3, 3) for i in (0, 1)},
        "rpn.head.cls_logits": (15, 4, 1, 1),
        "rpn.head.bbox_pred": (60, 4, 1, 1),
    }
    state = {"backbone.body.0.0.weight": np.zeros((16, 3, 3, 3))}
    for name, shape in shapes.items():
        state |= {f"{name}.weight": random.normal(size=shape), f"{name}.bias": np.ones(shape[0])}
    conv = "backbone.body.16."
    state[f"{conv}0.weight"] = random.normal(size=(24, 8, 1, 1))
    leaves = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
    state |= {f"{conv}1.{name}": random.normal(size=24) for name in leaves.values()}
    arrays = convert_detector(state)
    assert {path.rpartition("/")[0] for path in arrays} == {
        *("neck/lateral0", "neck/lateral1", "neck/output0", "neck/output1"),
        *("rpn/object_out/anchors15", "rpn/box_out/anchors15", "last_conv", "last_conv/bn"),
    }
    kernel = state[f"{conv}0.weight"].astype(np.float32)
    np.testing.assert_array_equal(arrays["last_conv/kernel"][0, 0], kernel[:, :, 0, 0].T)
    for leaf, name in leaves.items():
        expected = state[f"{conv}1.{name}"].astype(np.float32)
        np.testing.assert_array_equal(arrays[f"last_conv/bn/{leaf}"], expected)


BACKGROUND_BOX = 4 * 1025  # parameters that only torchvision has


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "classes", "trained", "frozen", "strides"),
    [
        ("retinanet_resnet50_fpn", 91, 34_014_999, 53_120, None),
        ("fasterrcnn_resnet50_fpn", 90, 41_755_286 - BACKGROUND_BOX, 53_120, (4, 8, 16, 32)),
        ("fasterrcnn_mobilenet_v3_large_fpn", 90, 19_386_354 - BACKGROUND_BOX, 24_400, (32,)),
    ],
)
def test_published_detectors_have_the_parameters_of_torchvision(
    name, classes, trained, frozen, strides
):
    """91 outputs for classes; scales and biases of BatchNorm do not train.

    strides: of the levels that RoIs are pooled from.
    """
    config = load(f"configs/torchvision.py:name={name}")
    model = detect.build(config, classes)
    images = jax.ShapeDtypeStruct((1, *config.data.common.size, 3), np.float32)
    params, stats = jax.eval_shape(lambda: models.init(model, 0, images.shape))
    sizes = {path: leaf.size for path, leaf in params.items()}
    factors = freeze_multipliers(params, config.freeze)
    assert sum(size for path, size in sizes.items() if factors[path] == 0) == frozen
    assert sum(sizes.values()) == trained + frozen

    apply = partial(models.apply, model, train=False, method="propose" if strides else None)
    outputs, _ = jax.eval_shape(apply, params, stats, images)
    if strides:
        levels, logits, _, proposals = outputs
        expected = {s: (1, 800 // s, 1344 // s, 256) for s in strides}
        assert {s: x.shape for s, x in levels.items()} == expected
        cells = 3 * (200 * 336 + 100 * 168 + 50 * 84 + 25 * 42 + 13 * 21)
        if strides == (32,):
            cells = 15 * (2 * 25 * 42 + 13 * 21)
        assert (logits.shape, proposals.boxes.shape) == ((1, cells), (1, 1000, 4))
    else:
        rows = 9 * (100 * 168 + 50 * 84 + 25 * 42 + 13 * 21 + 7 * 11)
        assert [x.shape for x in outputs] == [(1, rows, 91), (1, rows, 4)]
