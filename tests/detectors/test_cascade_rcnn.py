"""Cascade R-CNN: sizes, stages, loss and training."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.detectors.padding import Subsampled, check_padded_training
from tests.detectors.two_stage import (
    SIDE,
    check_shards,
    check_training,
    make_batch,
    make_config,
    make_loss,
    make_model,
)
from tinyjax import models
from tinyjax.config import detector
from tinyjax.detectors import cascade_rcnn
from tinyjax.detectors.deltas import clip, decode
from tinyjax.detectors.nms import Proposals
from tinyjax.detectors.pooling import pool_rois
from tinyjax.detectors.roi_heads import BoxHead
from tinyjax.detectors.roi_losses import label_rois, roi_loss
from tinyjax.errors import UserError
from tinyjax.models.flops import count_parameters
from tinyjax.tasks.detect import get_detector

WEIGHTS = [(10.0, 10.0, 5.0, 5.0), (20.0, 20.0, 10.0, 10.0), (30.0, 30.0, 15.0, 15.0)]


def count(name, **fields):
    """Parameters of a detector of 3 classes on mobilenetv3/s-1."""
    config = detector(name)
    config.update_from_flattened_dict({p.replace("__", "."): v for p, v in fields.items()})
    model = get_detector(config).build(models.build(config.model.backbone), config, 3)
    params, _ = jax.eval_shape(lambda: models.init(model, 0, (1, 64, 64, 1)))
    return count_parameters(params)


# FPN on strides 4 to 32, three anchors per cell; the counts are those of separate prototypes, with
# three BatchNorms less: they had one for all levels after the depthwise convolution of the RPN.
@pytest.mark.parametrize(
    ("name", "fields", "expected"),
    [
        ("faster_rcnn", {}, 741_463),
        ("cascade_rcnn", {"roi__size": 7}, 1_344_863),
        ("cascade_rcnn", {}, 902_495),
        ("cascade_rcnn", {"roi__head": "separable"}, 477_119),
    ],
)
@pytest.mark.slow
def test_sizes_equal_those_of_prototypes(name, fields, expected):
    pyramid = {
        "model__neck": "fpn",
        "model__strides": (4, 8, 16, 32),
        "model__anchors": (((8.0, 8.0, 1),) * 3,) * 4,
    }
    assert count(name, **pyramid, **fields) == expected + 3 * 96


def test_the_default_has_less_than_a_million_parameters():
    assert 0.9e6 < count("cascade_rcnn") < 0.92e6


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("roi.loss_weights", (1.0, 0.5), "give one of each per stage"),
        ("roi.foreground_ious", (), "give one of each per stage"),
        ("roi.foreground_ious", (0.5, 0.6, 1.2), "1.2: give more than 0, and at most 1"),
    ],
)
def test_invalid_stages_are_rejected(path, value, message):
    config = make_config("cascade_rcnn")
    config.update_from_flattened_dict({path: value})
    with pytest.raises(UserError) as error:
        cascade_rcnn.build(Subsampled(), config, 3)
    assert message in str(error.value)


@pytest.mark.slow
def test_the_loss_runs_the_backbone_once_and_then_each_box_head():
    """Running statistics are therefore updated once."""
    config = make_config("cascade_rcnn")
    model, variables = make_model(cascade_rcnn, config)
    methods = []

    def apply(*inputs, method):
        methods.append(method)
        return models.apply(model, *variables, *inputs, train=True, method=method)

    def run(batch, key):
        return cascade_rcnn.loss(apply, batch, key, config.loss.to_dict(), config)

    jax.eval_shape(run, make_batch(), jax.random.key(0))
    assert methods == ["propose", "predict", "predict", "predict"]


# ---- stages


class FixedNetwork:
    """The interface of the network, with given outputs: `apply(*inputs, method)` for the loss."""

    rois = jnp.array([[[4.0, 4, 12, 12], [18, 16, 26, 28], [1, 20, 9, 29], [0, 0, 0, 0]]])
    valid = jnp.array([[True, True, True, False]])

    def __init__(self, num_anchors, slots):
        rng = np.random.default_rng(0)
        self.logits = jnp.asarray(rng.normal(size=(3, 1, slots, 4)), jnp.float32)
        self.deltas = jnp.asarray(rng.normal(size=(3, 1, slots, 1, 4)), jnp.float32)
        self.num_anchors = num_anchors
        self.received = []

    def __call__(self, *inputs, method):
        if method == "propose":
            proposals = Proposals(self.rois, jnp.zeros((1, 4)), self.valid)
            outputs = jnp.zeros((1, self.num_anchors)), jnp.zeros((1, self.num_anchors, 4))
            return ({4: inputs[0]}, *outputs, proposals), {"mean": jnp.ones(1)}
        _, rois, stage = inputs
        self.received.append(rois)
        return (self.logits[stage], self.deltas[stage]), {}


FIXED_BATCH = {
    "image": jnp.zeros((1, SIDE, SIDE, 3)),
    "boxes": jnp.array([[[5.0, 4, 12, 12], [18, 15, 26, 28], [0, 19, 10, 31], [0] * 4]]),
    "labels": jnp.array([[2, 0, 1, 0]]),
    "valid": jnp.array([[True, True, True, False]]),
    "ignore": jnp.zeros((1, 4), bool),
}


@pytest.mark.slow
def test_stages_are_trained_on_the_boxes_of_the_previous_one():
    """With all candidates sampled, against the losses of each stage computed one by one."""
    slots = 8
    config = make_config(
        "cascade_rcnn", roi__sample_size=slots, roi__positive_fraction=1.0,
        roi__foreground_ious=(0.5, 0.55, 0.6), roi__loss_weights=(1.0, 0.5, 0.25),
        loss__class=2.0, loss__box=3.0, loss__rpn_class=0.0, loss__rpn_box=0.0,
    )  # fmt: skip
    network, batch = FixedNetwork((SIDE // 4) ** 2 * 11, slots), FIXED_BATCH

    def run(batch):
        key, weights = jax.random.key(0), config.loss.to_dict()
        value, (stats, terms) = cascade_rcnn.loss(network, batch, key, weights, config)
        return value, stats, terms, network.received

    value, stats, terms, received = jax.jit(run)(batch)

    assert float(stats["mean"][0]) == 1
    rois, expected = received[0], np.zeros(2)
    candidates = jnp.concatenate([batch["boxes"][0, :3], network.rois[0, :3]])
    assert {*map(tuple, rois[0, :6].tolist())} == {*map(tuple, candidates.tolist())}
    filled = jnp.arange(slots)[None] < 6
    labels = []
    for n, (iou, weight) in enumerate([(0.5, 1.0), (0.55, 0.5), (0.6, 0.25)]):
        np.testing.assert_allclose(received[n][0, :6], rois[0, :6], rtol=1e-5)
        targets = jax.jit(label_rois)(rois, filled, batch, iou)
        losses = roi_loss(network.logits[n], network.deltas[n], targets, WEIGHTS[n])
        expected += weight * np.array(losses)
        labels.append(targets.labels.tolist())
        rois = clip(decode(network.deltas[n][:, :, 0], rois, WEIGHTS[n]), (SIDE, SIDE))
    assert labels[0] != labels[2]
    np.testing.assert_allclose([terms["class_loss"], terms["box_loss"]], expected, rtol=1e-4)
    np.testing.assert_allclose(value, expected @ [2, 3], rtol=1e-4)


@pytest.mark.slow
def test_later_stages_do_not_train_earlier_ones():
    config = make_config(
        "cascade_rcnn", roi__loss_weights=(0.0, 0.0, 1.0), roi__foreground_ious=(0.5, 0.2, 0.1)
    )
    network = FixedNetwork((SIDE // 4) ** 2 * 11, config.roi.sample_size)

    def box_loss(logits, deltas):
        network.logits, network.deltas = logits, deltas
        key, weights = jax.random.key(0), config.loss.to_dict()
        return cascade_rcnn.loss(network, FIXED_BATCH, key, weights, config)[0]

    gradients = jax.jit(jax.grad(box_loss, (0, 1)))(network.logits, network.deltas)
    for gradient in gradients:
        np.testing.assert_array_equal(
            (gradient != 0).any((1, 2, *range(3, gradient.ndim))), [0, 0, 1]
        )


@pytest.mark.parametrize("stages", [1, 3])
def test_features_get_a_fraction_of_the_gradient(stages):
    """The outputs and the gradient of the head are those of `BoxHead` on pooled features."""
    config = make_config(
        "cascade_rcnn", roi__foreground_ious=(0.5,) * stages, roi__loss_weights=(1.0,) * stages
    )
    model = cascade_rcnn.build(Subsampled(), config, 3)
    head = BoxHead(3, 8, class_agnostic=True)
    params, _ = models.init(head, 0, (1, 1, 3, 3, 2))
    named = {f"box_head1/{path}": leaf for path, leaf in params.items()}
    levels = {4: jax.random.normal(jax.random.key(0), (1, 8, 8, 2))}
    rois = FixedNetwork.rois

    def of_model(levels, named):
        outputs, _ = models.apply(model, named, {}, levels, rois, 0, train=True, method="predict")
        return sum((jnp.cos(x) ** 2).sum() for x in outputs), outputs

    def of_head(levels, params):
        outputs, _ = models.apply(head, params, {}, pool_rois(levels, rois, 3), train=True)
        return sum((jnp.cos(x) ** 2).sum() for x in outputs), outputs

    run = partial(jax.grad, argnums=(0, 1), has_aux=True)
    (of_levels, of_params), outputs = jax.jit(run(of_model))(levels, named)
    (full, expected), expected_outputs = jax.jit(run(of_head))(levels, params)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-8)
    jax.tree.map(close, outputs, expected_outputs)
    close(of_levels[4], full[4] / stages)
    for path, leaf in expected.items():
        close(of_params[f"box_head1/{path}"], leaf)


@pytest.mark.slow
def test_prediction_runs_the_stages_one_after_the_other():
    model, (params, stats) = make_model(cascade_rcnn, make_config("cascade_rcnn"))
    params = {p: 100 * x if "/box_out/" in p else x for p, x in params.items()}
    x = make_batch()["image"]
    run = partial(models.apply, model, params, stats, train=False)
    (logits, boxes, valid), _ = jax.jit(run)(x)
    (levels, _, _, proposals), _ = jax.jit(partial(run, method="propose"))(x)
    rois, stage_logits = proposals.boxes, []
    for n in range(3):
        predict = jax.jit(lambda levels, rois, n=n: run(levels, rois, n, method="predict")[0])
        outputs, deltas = predict(levels, rois)
        stage_logits.append(outputs)
        refined = clip(decode(deltas[:, :, 0], rois, WEIGHTS[n]), (SIDE, SIDE))
        assert (jnp.abs(refined - rois).max(-1)[valid] > 1e-3).any()
        rois = refined
    np.testing.assert_array_equal(valid, proposals.valid)
    assert boxes.shape == (*valid.shape, 1, 4)
    np.testing.assert_allclose(boxes[valid][:, 0], rois[valid], atol=1e-3)
    np.testing.assert_allclose(logits[valid], sum(stage_logits)[valid] / 3, atol=1e-4)


# ---- training


@pytest.mark.slow
def test_loss_with_and_without_objects():
    config = make_config("cascade_rcnn")
    model, variables = make_model(cascade_rcnn, config)
    run = jax.jit(jax.value_and_grad(make_loss(cascade_rcnn, config, model), has_aux=True))
    batch, key = make_batch(), jax.random.key(0)
    empty = batch | {"valid": jnp.zeros((4, 4), bool), "boxes": jnp.zeros((4, 4, 4))}
    for rows, has_objects in ((batch, True), (empty, False)):
        (value, (stats, terms)), gradient = run(*variables, rows, key)
        assert jnp.isfinite(value)
        np.testing.assert_allclose(terms["class_loss"], 3 * np.log(4), rtol=0.05)
        assert bool(terms["positives"] > 0) == bool(terms["box_loss"] > 0) == has_objects
        assert [path for path, g in gradient.items() if not jnp.isfinite(g).all()] == []
        assert [path for path in stats if (stats[path] == variables[1][path]).all()] == []


@pytest.mark.slow
def test_shards_add_up():
    check_shards(cascade_rcnn, make_config("cascade_rcnn"))


@pytest.mark.slow
def test_an_image_is_learned():
    config = make_config("cascade_rcnn", model__neck_width=16, roi__size=5, roi__width=32)
    check_training(cascade_rcnn, config, steps=240)


@pytest.mark.slow
@pytest.mark.parametrize("backbones", ["", "mobilenetv3/s-1"])
def test_padded_training_equals_unpadded_training(backbones):
    check_padded_training(cascade_rcnn, make_config("cascade_rcnn"), backbones)
