"""Faster R-CNN by components with torchvision's weights, against its own network, in float64."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.detectors.make_faster_rcnn_references import (
    BODIES,
    CLASSES,
    FOLDER,
    MAX_DETECTIONS,
    MAX_PROPOSALS,
    SCORE_THRESHOLD,
    SIZE,
    image,
    thin,
)  # fmt: skip
from tests.detectors.make_retinanet_references import draw_weight
from tinyjax import models
from tinyjax.detectors import deltas as coder
from tinyjax.detectors.anchors import make_torchvision_anchors
from tinyjax.detectors.fpn import FPN
from tinyjax.detectors.nms import class_wise_nms, select_proposals
from tinyjax.detectors.pooling import box_levels
from tinyjax.detectors.roi_heads import BoxHead
from tinyjax.ops.conv import conv2d
from tinyjax.ops.roi_align import roi_align
from tinyjax.transfer.pretrained import convert_state_dict
from tinyjax.transfer.torch_detectors import convert_detector

STRIDES = (4, 8, 16, 32, 64)
POOLED_STRIDES = STRIDES[:4]
DELTA_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def float64(arrays, prefix=""):
    return {
        path.removeprefix(prefix): jnp.asarray(x, jnp.float64)
        for path, x in arrays.items()
        if path.startswith(prefix)
    }


def propose(levels, weights):
    """Outputs of the RPN, and the proposals."""

    def conv(x, name):
        return conv2d(x, weights[f"rpn/{name}/kernel"]) + weights[f"rpn/{name}/bias"]

    hidden = [jax.nn.relu(conv(levels[stride], "conv")) for stride in STRIDES]
    logits = jnp.concatenate([conv(x, "object_out/anchors3").reshape(1, -1) for x in hidden], 1)
    deltas = jnp.concatenate([conv(x, "box_out/anchors3").reshape(1, -1, 4) for x in hidden], 1)
    shapes = [x.shape[1:3] for x in hidden]
    sizes = [(8 * stride,) for stride in STRIDES]
    anchors = make_torchvision_anchors(SIZE, shapes, sizes, (0.5, 1.0, 2.0))
    level = np.repeat(np.arange(len(STRIDES)), [3 * h * w for h, w in shapes])
    proposals = select_proposals(
        logits, coder.decode(deltas, jnp.asarray(anchors)), jnp.asarray(level), image_size=SIZE,
        iou_threshold=0.7, max_proposals=MAX_PROPOSALS, pre_nms_top_k=logits.shape[1],
    )  # fmt: skip
    return logits, deltas, proposals.boxes


def detect(levels, rois, weights):
    """Pooled features, outputs of the box head, and detections."""
    index = box_levels(rois, POOLED_STRIDES)[..., None, None, None]
    pooled = sum(
        jnp.where(index == i, roi_align(levels[s], rois, s, samples=2, aligned=False), 0)
        for i, s in enumerate(POOLED_STRIDES)
    )
    head = BoxHead(CLASSES, width=1024, fc_layers=2)
    logits, deltas = models.apply(head, float64(weights, "box_head1/"), {}, pooled, train=False)[0]
    boxes = coder.clip(coder.decode(deltas, rois[:, :, None], DELTA_WEIGHTS), SIZE)
    # Each box has one class.
    scores = jax.nn.softmax(logits)[..., 1:, None] * jnp.eye(CLASSES)
    detections = class_wise_nms(
        scores.reshape(1, -1, CLASSES), boxes.reshape(1, -1, 4), iou_threshold=0.5,
        max_detections=MAX_DETECTIONS, pre_nms_top_k=1000, score_threshold=SCORE_THRESHOLD,
    )  # fmt: skip
    return pooled, logits, deltas, detections


@pytest.mark.parametrize(
    "body",
    [body if body == "18" else pytest.param(body, marks=pytest.mark.slow) for body in BODIES],
)
def test_every_stage_is_that_of_torchvision(body):
    reference = np.load(FOLDER / f"torchvision.faster_rcnn.{body}.npz")
    shapes = json.loads(str(reference["shapes"]))
    state = {name: draw_weight(name, tuple(shape)) for name, shape in shapes.items()}
    backbone, eps, _ = convert_state_dict(state, f"resnet/{body}")
    weights = convert_detector(state)
    assert len(backbone) + len(weights) == len(state)
    is_stat = {path: path.endswith(("/mean", "/var")) for path in backbone}
    trees = [{p: x for p, x in backbone.items() if is_stat[p] == kind} for kind in (False, True)]

    @jax.jit
    def run(trees, weights, x):
        network = models.build(f"resnet/{body}", None, jnp.float64, eps)
        (_, features), _ = models.apply(network, *trees, x, train=False)
        fpn = FPN(256, STRIDES, separable=False)
        levels, _ = models.apply(fpn, float64(weights, "neck/"), {}, features, train=False)
        rpn_logits, rpn_deltas, rois = propose(levels, weights)
        pooled, logits, deltas, detections = detect(levels, rois, weights)
        return {
            **{f"feature{stride}": features[stride] for stride in POOLED_STRIDES},
            **{f"level{stride}": levels[stride] for stride in STRIDES},
            "rpn_logits": rpn_logits, "rpn_deltas": rpn_deltas, "proposals": rois[0],
            "pooled": pooled, "logits": logits[0], "deltas": deltas[0],
            **{name: value[0] for name, value in detections.items()},
        }  # fmt: skip

    with jax.enable_x64(True):
        trees, weights = map(float64, trees), float64(weights)
        actual = jax.device_get(run([*trees], weights, jnp.asarray(image())))
    actual["labels"] = actual["labels"] + 1  # torchvision counts the background
    assert actual.keys() == {*reference} - {"shapes"}
    for name, value in actual.items():
        expected = reference[name]
        value = value if value.shape == expected.shape else thin(value)
        np.testing.assert_allclose(value, expected, rtol=1e-8, atol=1e-8, err_msg=name)
