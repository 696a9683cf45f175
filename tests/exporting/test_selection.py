"""Two-stage detectors in ONNX Runtime: their operations, proposals, boxes and detections."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import tinyjax
from tests.configs import detectors
from tests.untrained import write_random_detector
from tinyjax.detectors.nms import nms_mask, select_proposals
from tinyjax.errors import UserError
from tinyjax.exporting import onnx, parity, runtimes
from tinyjax.exporting.functions import ExportedFunction, make_function
from tinyjax.ops.roi_align import roi_align

TWO_STAGE = ("faster_rcnn", "cascade_rcnn", "faster_rcnn_mobilenet")


def run_file(call, inputs, file, batch=None):
    """Write `call` of arrays f32[N, H, W, C] and run the file: its outputs, and its operators."""
    model = onnx.write(ExportedFunction(call, inputs.shape[1:], "float32", {}), file, batch)
    return runtimes.load_onnx(file)(inputs), Counter(node.op_type for node in model.graph.node)


def assert_same_outputs(call, inputs, file, **tolerance):
    """Compare the outputs of the file with those of `call`, and return operators and outputs."""
    actual, operators = run_file(call, inputs, file)
    expected = jax.jit(call)(inputs)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert (actual[name].shape, actual[name].dtype) == (value.shape, value.dtype), name
        np.testing.assert_allclose(actual[name], value, err_msg=name, **tolerance)
    return operators, expected


def random_boxes(count, size, sets=2):
    """xyxy [sets, count, 4] in an image of size x size pixels, and a bit outside."""
    rng = np.random.default_rng(0)
    center, side = (
        rng.uniform(0, size, (sets, count, 2)),
        rng.uniform(2, size / 2, (sets, count, 2)),
    )
    return np.concatenate([center - side / 2, center + side / 2], -1).astype(np.float32)


# ---- operations of jax


def test_the_best_values_and_rows_at_their_indices(tmp_path):
    """With equal values, of which the first ones come first."""
    x = np.random.default_rng(0).integers(0, 9, (3, 4, 5, 2)).astype(np.float32)

    def call(image):
        rows = image.reshape(-1, 20, 2)
        values, index = jax.lax.top_k(rows[..., 0], 7)
        selected = jax.vmap(lambda row, i: row.at[i].get(mode="promise_in_bounds"))(rows, index)
        return {"values": values, "index": index, "rows": selected}

    operators, _ = assert_same_outputs(call, x, tmp_path / "a.onnx")
    assert operators["TopK"] == operators["GatherND"] == 1


def test_whether_all_sides_are_long(tmp_path):
    x = np.random.default_rng(0).normal(size=(3, 4, 5, 2)).astype(np.float32)
    operators, _ = assert_same_outputs(
        lambda image: {"y": (image > 0).all(-1).astype("float32")}, x, tmp_path / "a.onnx"
    )
    assert operators["ReduceMin"] == 1


@pytest.mark.parametrize("mode", ["clip", "fill"])
def test_a_gather_that_checks_indices_is_refused(mode, tmp_path):
    def call(image):
        rows = image.reshape(-1, 20, 2)
        index = jax.lax.top_k(rows[..., 0], 7)[1]
        return {"y": jax.vmap(lambda row, i: row.at[i].get(mode=mode))(rows, index)}

    with pytest.raises(UserError, match="ONNX has no form of a gather"):
        run_file(call, np.zeros((1, 4, 5, 2), np.float32), tmp_path / "a.onnx")


def test_suppression_within_two_groups(tmp_path):
    boxes = random_boxes(40, 30)[:, :, None]
    group = np.random.default_rng(1).integers(0, 2, (2, 40, 1, 1)).astype(np.float32)

    def call(image):
        suppress = jax.vmap(lambda row: nms_mask(row[:, 0, :4], row[:, 0, 4] > 0, 0.3))
        return {"kept": suppress(image).astype("float32")}

    inputs = np.concatenate([boxes, group], -1)
    operators, outputs = assert_same_outputs(call, inputs, tmp_path / "a.onnx")
    assert operators["NonMaxSuppression"] == 1
    assert 10 < outputs["kept"].sum() < 70


def test_suppression_with_many_labels_is_refused(tmp_path):
    def call(image):
        suppress = jax.vmap(lambda row: nms_mask(row, row[:, 0].astype("int32"), 0.3))
        return {"y": suppress(image[:, :, 0]).astype("float32")}

    with pytest.raises(UserError, match="ONNX has no form of nms_mask with other than two labels"):
        run_file(call, np.zeros((1, 5, 1, 4), np.float32), tmp_path / "a.onnx")


@pytest.mark.parametrize("score_threshold", [0.0, 0.4])
def test_proposals_of_levels_of_different_sizes(score_threshold, tmp_path):
    """The second level has fewer anchors than are selected from it."""
    boxes = random_boxes(60, 40)[:, :, None]
    logits = np.random.default_rng(1).permutation(120).reshape(2, 60, 1, 1) / 60 - 1

    def call(image):
        proposals = select_proposals(
            image[:, :, 0, 4], image[:, :, 0, :4], (50, 10), image_size=(30, 40),
            iou_threshold=0.5, max_proposals=25, pre_nms_top_k=20,
            score_threshold=score_threshold,
        )  # fmt: skip
        return {"boxes": proposals.boxes, "valid": proposals.valid.astype("float32")}

    inputs = np.concatenate([boxes, logits], -1).astype(np.float32)
    _, outputs = assert_same_outputs(call, inputs, tmp_path / "a.onnx", rtol=1e-6)
    assert 20 < outputs["valid"].sum() <= 50


@pytest.mark.parametrize(("samples", "aligned"), [(1, True), (2, True), (2, False)])
def test_pooling_of_rois(samples, aligned, tmp_path):
    """Boxes are constants, some of them outside of the image."""
    features = np.random.default_rng(0).normal(size=(2, 7, 9, 5)).astype(np.float32)
    boxes = random_boxes(12, 36, sets=1)

    def call(image):
        rois = jnp.asarray(boxes) + 0 * image[:, :1, :1, :1].reshape(-1, 1, 1)
        return {"y": roi_align(image, rois, 4, 3, samples, aligned)}

    operators, _ = assert_same_outputs(call, features, tmp_path / "a.onnx", atol=1e-5)
    assert operators["RoiAlign"] == 1


# ---- networks


def load_network(folder, name, **fields):
    config = detectors.two_stage_config(name, **fields)
    return tinyjax.load(write_random_detector(folder / "run", config))


@pytest.fixture(scope="module", params=TWO_STAGE)
def network(request, tmp_path_factory):
    return load_network(tmp_path_factory.mktemp(request.param), request.param)


def random_images(count=3):
    return np.random.default_rng(0).integers(0, 256, (count, 64, 64, 1), np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [None, 3])
def test_boxes_and_scores(network, batch, tmp_path):
    function = make_function(network, "boxes")
    onnx.write(function, tmp_path / "a.onnx", batch)
    actual = runtimes.load_onnx(tmp_path / "a.onnx")(random_images())
    expected = jax.jit(function.call)(random_images())
    is_agnostic = network.config.model.detector == "cascade_rcnn"
    assert actual["boxes"].shape == (3, 16, 4) if is_agnostic else (3, 16, 3, 4)
    np.testing.assert_allclose(actual["boxes"], expected["boxes"], atol=1e-3)
    np.testing.assert_allclose(actual["scores"], expected["scores"], atol=1e-5)
    assert actual["scores"].std() > 0.05


@pytest.mark.slow
def test_detections_are_those_of_the_run(network, tmp_path):
    nms = network.config.nms.to_dict()
    onnx.write(make_function(network, "boxes"), tmp_path / "a.onnx", nms=nms)
    actual = runtimes.load_onnx(tmp_path / "a.onnx")(random_images())["detections"]
    expected = parity.ranked_scores(network)(random_images())["scores"]
    assert actual.shape == (*expected.shape, 6)
    np.testing.assert_allclose(actual[..., 4], expected, atol=1e-5)
    assert (expected > 0.05).sum() > 10


@pytest.mark.slow
def test_rois_of_all_levels(tmp_path):
    fields = {"roi.canonical_size": 30.0, "roi.samples": 2, "roi.aligned": False}
    network = load_network(tmp_path, "faster_rcnn", **fields)
    function = make_function(network, "boxes")
    model = onnx.write(function, tmp_path / "a.onnx")
    assert [node.op_type for node in model.graph.node].count("RoiAlign") == 2
    actual = runtimes.load_onnx(tmp_path / "a.onnx")(random_images())
    expected = jax.jit(function.call)(random_images())
    np.testing.assert_allclose(actual["scores"], expected["scores"], atol=1e-5)
