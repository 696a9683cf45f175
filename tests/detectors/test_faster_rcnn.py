"""Faster R-CNN: sizes, loss, training and decoding."""

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
from tinyjax.detectors import faster_rcnn
from tinyjax.errors import UserError
from tinyjax.models.flops import count_parameters


def sizes_of(config):
    model = faster_rcnn.build(models.build(config.model.backbone), config, 3)
    params, _ = jax.eval_shape(lambda: models.init(model, 0, (1, 64, 64, 1)))
    modules = {path.split("/")[0] for path in params}
    sizes = {
        m: count_parameters({path: leaf for path, leaf in params.items() if path.startswith(m)})
        for m in modules
    }
    return {**sizes, "total": count_parameters(params)}


def test_sizes():
    sizes = sizes_of(detector("faster_rcnn"))
    assert sizes["box_head1"] == 303_248  # 7 x 7 x 48 x 128 + 128, 128 x 16 + 16
    # Depthwise and pointwise kernels, two BatchNorms for each of two levels, and the outputs of 11
    # and 1 anchors.
    assert sizes["rpn"] == 9 * 48 + 48 * 48 + 4 * 96 + 49 * 5 * (11 + 1)
    assert 0.7e6 < sizes["total"] < 0.76e6


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model.anchors", (), "0 levels for model.strides = (4,)"),
        ("model.head", "denze", "did you mean 'dense'"),
        ("rpn.background_iou", 0.6, "background_iou <= foreground_iou"),
        ("rpn.positive_fraction", 1.5, "rpn.positive_fraction = 1.5: give at least 1 / "),
        ("roi.positive_fraction", 0.0, "sample_size = 0.0625, and at most 1"),
        ("proposals.max_proposals", 0, "proposals.max_proposals = 0: give at least 1"),
        ("roi.head", "full", "roi.head = 'full'"),
        ("roi.fc_layers", 0, "roi.fc_layers = 0: give at least 1"),
        ("roi.foreground_iou", 0.0, "0.0: give more than 0, and at most 1"),
    ],
)
def test_invalid_configs_are_rejected(path, value, message):
    config = make_config("faster_rcnn")
    config.update_from_flattened_dict({path: value})
    with pytest.raises(UserError) as error:
        faster_rcnn.build(Subsampled(), config, 3)
    assert message in str(error.value)


# ---- the loss


def test_loss_with_and_without_objects():
    """One program: images with objects, padding and ignored boxes; and images without objects."""
    config = make_config("faster_rcnn")
    model, variables = make_model(faster_rcnn, config)
    run = jax.jit(jax.value_and_grad(make_loss(faster_rcnn, config, model), has_aux=True))
    batch, key = make_batch(), jax.random.key(0)

    (value, (stats, terms)), gradient = run(*variables, batch, key)
    weighted = sum(terms[f"{name}_loss"] for name in ("class", "box", "rpn_class", "rpn_box"))
    np.testing.assert_allclose(value, weighted, rtol=1e-6)
    # At first, outputs are near 0: log 4 for four classes, log 2 for two.
    np.testing.assert_allclose(terms["class_loss"], np.log(4), rtol=0.05)
    np.testing.assert_allclose(terms["rpn_class_loss"], np.log(2), rtol=0.05)
    assert 6 <= terms["positives"] <= 12  # each object is a RoI; a quarter of 4 x 16 at most
    assert [path for path, g in gradient.items() if not jnp.isfinite(g).all()] == []
    assert [path for path, g in gradient.items() if not (g != 0).any()] == []
    assert stats.keys() == variables[1].keys()
    assert [path for path in stats if (stats[path] == variables[1][path]).all()] == []

    # The boxes of padding and their labels do not matter, and ignored boxes do.
    garbage = {
        "boxes": batch["boxes"].at[:, 3].set(jnp.array([1.0, 2, 30, 30])),
        "labels": batch["labels"].at[:, 3].set(2),
    }
    (same, _), _ = run(*variables, batch | garbage, key)
    assert same == value
    (other, _), _ = run(*variables, batch | {"ignore": jnp.zeros((4, 4), bool)}, key)
    assert other != value

    empty = batch | {"valid": jnp.zeros((4, 4), bool), "boxes": jnp.zeros((4, 4, 4))}
    (value, (_, terms)), gradient = run(*variables, empty, key)
    assert jnp.isfinite(value)
    assert terms["positives"] == terms["box_loss"] == terms["rpn_box_loss"] == 0
    assert [path for path, g in gradient.items() if not jnp.isfinite(g).all()] == []


@pytest.mark.slow
def test_shards_add_up():
    check_shards(faster_rcnn, make_config("faster_rcnn"))


# ---- training and decoding


def test_decode_by_hand():
    """Two proposals and an invalid one, two classes, and boxes of each class."""
    logits = jnp.log(jnp.array([[[0.1, 0.7, 0.2], [0.6, 0.1, 0.3], [0.01, 0.01, 0.98]]]))
    boxes = jnp.arange(24.0).reshape(1, 3, 2, 4) * jnp.array([1, 1, 2, 2])
    valid = jnp.array([[True, True, False]])
    config = make_config("faster_rcnn", nms__max_detections=5)
    out = jax.jit(lambda *outputs: faster_rcnn.decode(outputs, (64, 64), config))(
        logits, boxes, valid
    )
    np.testing.assert_allclose(out["scores"][0], [0.7, 0.3, 0.2, 0.1, 0], rtol=1e-6)
    np.testing.assert_array_equal(out["labels"][0, :4], [0, 1, 1, 0])
    expected = [boxes[0, 0, 0], boxes[0, 1, 1], boxes[0, 0, 1], boxes[0, 1, 0]]
    np.testing.assert_array_equal(out["boxes"][0, :4], jnp.stack(expected))


@pytest.mark.slow
def test_deltas_of_each_class_are_applied_to_the_proposals():
    """With the deltas dx = 1, 2, 3 of the three classes, which have the weight 10."""
    model, (params, stats) = make_model(faster_rcnn, make_config("faster_rcnn"))
    params = {p: 0 * x if p.startswith("box_head1/box_out") else x for p, x in params.items()}
    params["box_head1/box_out/bias"] = jnp.array([1.0, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0])
    x = make_batch()["image"]
    run = jax.jit(partial(models.apply, model, train=False), static_argnames="method")
    (_, boxes, valid), _ = run(params, stats, x)
    (_, _, _, proposals), _ = run(params, stats, x, method="propose")
    np.testing.assert_array_equal(valid, proposals.valid)
    width = (proposals.boxes[..., 2] - proposals.boxes[..., 0])[..., None, None]
    shift = jnp.array([1.0, 2, 3])[:, None] / 10 * width * jnp.array([1, 0, 1, 0])
    expected = jnp.clip(proposals.boxes[:, :, None] + shift, 0, SIDE)
    np.testing.assert_allclose(boxes[valid], expected[valid], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "steps"), [({}, 200), ({"model__head": "dense", "roi__head": "separable"}, 300)]
)
def test_an_image_is_learned(fields, steps):
    small = {"model__neck_width": 16, "roi__size": 5, "roi__width": 32}
    check_training(faster_rcnn, make_config("faster_rcnn", **small, **fields), steps)


# ---- zero padding


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "backbones"),
    [
        ({}, ""),
        ({"model__head": "dense", "roi__head": "conv", "roi__fc_layers": 2}, ""),
        ({"roi__head": "separable"}, "mobilenetv3/s-1"),
    ],
)
def test_padded_training_equals_unpadded_training(fields, backbones):
    check_padded_training(faster_rcnn, make_config("faster_rcnn", **fields), backbones)
