"""ONNX files in ONNX Runtime: the outputs of the network, for every family, detector and input."""

import json
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tinyjax
from tests.configs import reid
from tests.exporting.comparison import assert_same_outputs, random_images
from tests.exporting.networks import load_classifier, load_detector
from tests.tiny_backbones import MINIS
from tests.untrained import CLASSES, write_initial_weights
from tinyjax.detectors.nms import class_wise_nms
from tinyjax.errors import UserError
from tinyjax.exporting import onnx, parity, runtimes
from tinyjax.exporting.functions import ExportedFunction, make_function

CONVOLUTIONAL = {*MINIS} - {"swin", "vit", "lightcnn"}  # lightcnn resizes maps here


def assert_file(function, file, batch=None, count=3):
    """Write the file and compare its outputs with the function's. Returns the file's model."""
    model = onnx.write(function, file, batch)
    assert_same_outputs(runtimes.load_onnx(file), function, count)
    return model


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


def function_of(call, shape=(8, 8, 3), dtype="float32"):
    return ExportedFunction(lambda image: {"y": call(image)}, shape, dtype, {})


# ---- operations of jax


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda x: jax.nn.hard_swish(x), {"HardSwish": 1}),
        (lambda x: jax.nn.relu(x - 100), {"Relu": 1}),
        (lambda x: jax.nn.silu(x / 255), {"Sigmoid": 1}),
        (lambda x: jax.nn.hard_sigmoid(x / 50 - 3), {"HardSigmoid": 1}),
        (lambda x: x.mean((1, 2)), {"ReduceMean": 1}),
        (lambda x: (x / 255 - 0.5) * 4, {"Mul": 1, "Add": 1}),
        (lambda x: x.reshape(len(x), -1) @ jnp.ones((192, 4)) + 1, {"Gemm": 1}),
        (lambda x: x[:, 1:-1, ::2, 1:], {"Slice": 3}),
        (lambda x: jnp.concatenate([x, x[:, :, ::-1]])[len(x) :], {"Slice": 2}),
        (lambda x: jnp.stack([x, 2 * x], -1).reshape(*x.shape[:3], 6), {"Concat": 1}),
        (lambda x: jnp.pad(x, ((0, 0), (1, 0), (0, 2), (0, 0))), {"Pad": 1}),
        (lambda x: jnp.roll(x, -3, 1), {"Concat": 1}),
        (lambda x: jax.nn.softmax(x / 255), {"Exp": 1}),
        (lambda x: jnp.where(x > 100, x, 0), {"Where": 1}),
        (lambda x: jnp.einsum("nhwc,nhwd->ncd", x / 255, x / 255), {"MatMul": 1}),
        (lambda x: jnp.einsum("hi,nhwc->niwc", jnp.eye(8, 4), x), {"MatMul": 1}),
        (lambda x: jnp.broadcast_to(x[:, :1, :1], x.shape), {"Expand": 1}),
        (lambda x: jnp.broadcast_to(jnp.arange(3.0), x.shape) + 0 * x, {}),
        (lambda x: x.transpose(0, 2, 1, 3) + x, {"Add": 1}),
        (lambda x: jax.lax.rsqrt(x + 1) ** 2 + jnp.clip(x, 3, 9), {"Min": 1}),
    ],
)
def test_operations(call, expected, tmp_path):
    model = assert_file(function_of(call), tmp_path / "a.onnx")
    assert expected.items() <= operators(model).items()


def test_an_unknown_primitive_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=r"ONNX has no form of .*'cumsum' of jax"):
        onnx.write(function_of(lambda x: jnp.cumsum(x, 1)), tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_missing_package_names_the_extra(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(onnx, "import_module", missing)
    with pytest.raises(UserError, match=r"pip install 'tinyjax\[onnx\]'"):
        onnx.write(function_of(lambda x: x), tmp_path / "a.onnx")


# ---- networks


@pytest.mark.slow
@pytest.mark.parametrize("family", MINIS)
def test_families(family, tmp_path):
    network = load_classifier(family, tmp_path / "run")
    model = assert_file(make_function(network), tmp_path / "a.onnx")
    counts = operators(model)
    if family in CONVOLUTIONAL:  # one: of the color image
        assert counts["Transpose"] == 1
    if family not in ("convnext", "swin", "vit"):
        assert counts["Sqrt"] == 0  # BatchNorm is part of kernels and biases


@pytest.fixture(scope="module", params=["point", "retinanet"])
def network(request, tmp_path_factory):
    return load_detector(request.param, tmp_path_factory.mktemp("run") / "run")


@pytest.mark.slow
@pytest.mark.parametrize("outputs", ["raw", "boxes"])
def test_detectors(network, outputs, tmp_path):
    function = make_function(network, outputs)
    model = assert_file(function, tmp_path / "a.onnx")
    if outputs == "raw":  # those of outputs with several channels, at the boundary
        readers = {name for node in model.graph.node for name in node.input}
        transposes = [node for node in model.graph.node if node.op_type == "Transpose"]
        assert not readers & {node.output[0] for node in transposes}


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "batch"), [("float32", None), ("uint8", 2)])
def test_input_dtypes_and_batch_sizes(network, dtype, batch, tmp_path):
    file = tmp_path / "a.onnx"
    model = assert_file(make_function(network, dtype=dtype), file, batch, count=batch or 3)
    (dimension, *_) = model.graph.input[0].type.tensor_type.shape.dim
    assert (dimension.dim_value, dimension.dim_param) == ((2, "") if batch else (0, "batch"))
    run = runtimes.load_onnx(file)
    images = random_images((64, 64, 1), 5, dtype)
    if batch is None:
        expected = make_function(network, dtype=dtype).call(images)
        for name, value in run(images).items():
            np.testing.assert_allclose(value, expected[name], atol=1e-4)


@pytest.mark.parametrize(
    "top_k", [30, *(pytest.param(k, marks=pytest.mark.slow) for k in (7, 1000))]
)
def test_suppression_is_that_of_the_run(top_k, tmp_path):
    """Boxes and scores are pixels of the input, so that no scores are equal."""
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 40, (2, 20, 1, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 30, (2, 20, 1, 2))], -1)
    scores = rng.permutation(120).reshape(2, 20, 1, 3) / 120  # one of them is 0
    image = np.concatenate([boxes, scores], -1).astype(np.float32)

    def call(image):
        return {"boxes": image[:, :, 0, :4], "scores": image[:, :, 0, 4:]}

    nms = {"iou_threshold": 0.2, "max_detections": 25, "pre_nms_top_k": top_k}
    function = ExportedFunction(call, (20, 1, 7), "float32", {})
    onnx.write(function, tmp_path / "a.onnx", nms=nms)
    actual = runtimes.load_onnx(tmp_path / "a.onnx")(image)["detections"]
    outputs = call(image)
    expected = class_wise_nms(outputs["scores"], outputs["boxes"], **nms)
    assert (actual[..., 4] > 0).sum() > 10
    np.testing.assert_array_equal(actual[..., :4], expected["boxes"])
    np.testing.assert_array_equal(actual[..., 4], expected["scores"])
    np.testing.assert_array_equal(actual[..., 5], expected["labels"])


@pytest.mark.slow
def test_detections_are_those_of_the_run(network, tmp_path):
    """By their scores: of an untrained network, which are almost equal, some change places."""
    file, images = tmp_path / "a.onnx", random_images((64, 64, 1), 3)
    onnx.write(make_function(network, "boxes"), file, nms=network.config.nms.to_dict())
    actual = runtimes.load_onnx(file)(images)["detections"]
    expected = parity.ranked_scores(network)(images)["scores"]
    assert actual.shape == (*expected.shape, 6)
    np.testing.assert_allclose(actual[..., 4], expected, rtol=1e-3, atol=1e-7)


@pytest.mark.slow
def test_embeddings_of_both_modalities(tmp_path):
    config = reid.get_config()
    config.model.path_blocks = 1
    inputs = {"image": (32, 16, 3), "modality": ()}
    network = tinyjax.load(write_initial_weights(tmp_path / "run", config, CLASSES, inputs))
    embeddings = []
    for modality in ("visible", "infrared"):
        function = make_function(network, name=modality)
        assert_file(function, tmp_path / f"{modality}.onnx")
        run = runtimes.load_onnx(tmp_path / f"{modality}.onnx")
        embeddings.append(run(random_images((32, 16, 3), 3))["embedding"])
    assert np.abs(embeddings[0] - embeddings[1]).max() > 0.01
    with pytest.raises(UserError, match="known: visible, infrared"):
        make_function(network)


def test_metadata_describes_input_and_boxes(network, tmp_path):
    model = onnx.write(make_function(network), tmp_path / "a.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(metadata["classes"]) == [*CLASSES]
    assert json.loads(metadata["input"])["height"] == 64
    assert json.loads(metadata["strides"]) == [4, 8]
    assert json.loads(metadata["nms"])["max_detections"] == 300
    assert metadata["letterbox_fill"] == "114"
    assert "stride" in metadata["box_formula"]
    assert [opset.version for opset in model.opset_import] == [onnx.OPSET]
