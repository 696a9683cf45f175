"""Faster R-CNN with torchvision's weights, against torchvision's own network, in float64."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.detectors.make_faster_rcnn_references import (
    ANCHOR_SAMPLES,
    BODIES,
    BOXES,
    CLASSES,
    FOLDER,
    LABELS,
    LOSSES,
    MAX_DETECTIONS,
    MAX_PROPOSALS,
    MOBILENET,
    PRE_NMS_TOP_K,
    PROPOSAL_THRESHOLD,
    ROI_SAMPLES,
    SCORE_THRESHOLD,
    SIZE,
    image,
    thin,
)  # fmt: skip
from tests.detectors.make_retinanet_references import draw_weight
from tinyjax import models
from tinyjax.config import load
from tinyjax.tasks.detect import get_detector
from tinyjax.transfer.pretrained import FROZEN_EPS, convert_state_dict
from tinyjax.transfer.torch_detectors import convert_detector


def make_config(body):
    """The published network with the counts and thresholds of the references."""
    name = "mobilenet_v3_large_320" if body == MOBILENET else "resnet50"
    config = load(f"configs/torchvision.py:name=fasterrcnn_{name}_fpn")
    if body != MOBILENET:
        config.model.backbone = f"resnet/{body}"
    else:
        config.proposals.score_threshold = PROPOSAL_THRESHOLD
    config.update_from_flattened_dict({
        "rpn.sample_size": ANCHOR_SAMPLES, "roi.sample_size": ROI_SAMPLES,
        "proposals.pre_nms_top_k": PRE_NMS_TOP_K, "proposals.max_proposals": MAX_PROPOSALS,
        "nms.score_threshold": SCORE_THRESHOLD, "nms.max_detections": MAX_DETECTIONS,
    })  # fmt: skip
    return config


def make_batch(dtype):
    return {
        "image": jnp.asarray(image(), dtype),
        "boxes": jnp.asarray([BOXES], dtype), "labels": jnp.asarray([LABELS]),
        "valid": jnp.ones((1, 3), bool), "ignore": jnp.zeros((1, 3), bool),
    }  # fmt: skip


def compute(body, state):
    """All intermediate results, loss terms and detections for `image()`."""
    config = make_config(body)
    detector, backbone = get_detector(config), config.model.backbone
    arrays, eps, _ = convert_state_dict(state, backbone)
    assert eps == (1e-5 if body == MOBILENET else FROZEN_EPS)
    model = detector.build(models.build(backbone, None, jnp.float64, eps), config, CLASSES)
    weights = {f"backbone/{path}": x for path, x in arrays.items()} | convert_detector(state)
    shapes = jax.eval_shape(lambda: models.init(model, 0, (1, *SIZE, 3)))
    params, stats = ({path: jnp.asarray(weights[path], jnp.float64) for path in t} for t in shapes)
    assert len(params) + len(stats) == len(state)

    @jax.jit
    def run(params, stats, batch):
        results = {}

        def apply(*inputs, method=None):
            out = models.apply(model, params, stats, *inputs, train=False, method=method)
            results[method] = out[0]
            return out

        key, loss_weights = jax.random.key(0), config.loss.to_dict()
        _, (_, terms) = detector.loss(apply, batch, key, loss_weights, config)
        levels, rpn_logits, rpn_deltas, proposals = results["propose"]
        outputs, _ = apply(batch["image"])
        logits, boxes, _ = outputs
        detections = detector.decode(outputs, SIZE, config)
        return proposals.valid[0], {
            **{f"level{i}": levels[stride] for i, stride in enumerate(sorted(levels))},
            "rpn_logits": rpn_logits, "rpn_deltas": rpn_deltas,
            "proposals": proposals.boxes[0], "logits": logits[0], "class_boxes": boxes[0],
            **{name: value[0] for name, value in detections.items()},
            **{name: terms[name] for name in LOSSES.values()},
        }  # fmt: skip

    valid, results = jax.device_get(run(params, stats, make_batch(jnp.float64)))
    for name in ("proposals", "logits", "class_boxes"):
        results[name] = results[name][valid]
    return results


@pytest.mark.slow
@pytest.mark.parametrize("body", BODIES)
def test_every_stage_is_that_of_torchvision(body):
    reference = np.load(FOLDER / f"torchvision.faster_rcnn.{body}.npz")
    shapes = json.loads(str(reference["shapes"]))
    state = {name: draw_weight(name, tuple(shape)) for name, shape in shapes.items()}
    with jax.enable_x64(True):
        actual = compute(body, state)
    actual["labels"] = actual["labels"] + 1  # torchvision counts the background
    assert actual.keys() == {*reference} - {"shapes"}
    for name, value in actual.items():
        expected = reference[name]
        value = value if value.shape == expected.shape else thin(value)
        assert value.dtype in (np.float64, np.int32)
        np.testing.assert_allclose(value, expected, rtol=1e-8, atol=1e-8, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("body", ["50", MOBILENET])
def test_a_training_step_reaches_all_parameters(body):
    """Of the published network, 90 classes, on a small image."""
    config = make_config(body)
    detector = get_detector(config)
    model = detector.build(models.build(config.model.backbone), config, 90)
    params, stats = models.init(model, 0, (1, *SIZE, 3))

    @jax.jit
    def step(params, batch):
        def loss(params):
            apply = partial(models.apply, model, params, stats, train=True)
            key, loss_weights = jax.random.key(0), config.loss.to_dict()
            return detector.loss(apply, batch, key, loss_weights, config)

        (value, _), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return value, gradient, jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient)

    batch = make_batch(jnp.float32)
    value, gradient, params = step(params, batch)
    assert [path for path, g in gradient.items() if not (g != 0).any()] == []
    assert float(step(params, batch)[0]) < float(value)
