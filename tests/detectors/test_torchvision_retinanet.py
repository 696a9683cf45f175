"""RetinaNet with torchvision's weights, against torchvision's own network, in float64."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.detectors.make_retinanet_references import (
    BODIES,
    BOXES,
    FOLDER,
    LABELS,
    MAX_DETECTIONS,
    SCORE_THRESHOLD,
    SIZE,
    draw_weight,
    image,
    thin,
)  # fmt: skip
from tinyjax import models
from tinyjax.config import load
from tinyjax.detectors import retinanet
from tinyjax.detectors.necks import build_neck, neck_config
from tinyjax.transfer.pretrained import FROZEN_EPS, convert_state_dict
from tinyjax.transfer.torch_detectors import convert_detector

STRIDES = (8, 16, 32, 64, 128)


def make_config(backbone):
    """The published network with another body; the score threshold is that of the references."""
    config = load("configs/torchvision.py:name=retinanet_resnet50_fpn")
    config.model.backbone = backbone
    config.nms.score_threshold, config.nms.max_detections = SCORE_THRESHOLD, MAX_DETECTIONS
    return config


def draw_state(reference):
    shapes = json.loads(str(reference["shapes"]))
    return {name: draw_weight(name, tuple(shape)) for name, shape in shapes.items()}


def compute(backbone, state):
    """Features, levels, outputs, loss terms and detections of `image()`."""
    config = make_config(backbone)
    arrays, eps, _ = convert_state_dict(state, backbone)
    assert eps == FROZEN_EPS
    body = models.build(backbone, None, jnp.float64, eps)
    model = retinanet.build(body, config, 3)
    weights = {f"backbone/{path}": x for path, x in arrays.items()} | convert_detector(state)
    shapes = jax.eval_shape(lambda: models.init(model, 0, (1, *SIZE, 3)))
    params, stats = ({path: jnp.asarray(weights[path], jnp.float64) for path in t} for t in shapes)
    assert weights.keys() == params.keys() | stats.keys()
    assert {path: x.shape for path, x in weights.items()} == {
        path: leaf.shape for tree in shapes for path, leaf in tree.items()
    }
    batch = {
        "image": jnp.asarray(image()),
        "boxes": jnp.asarray([BOXES]), "labels": jnp.asarray([LABELS]),
        "valid": jnp.ones((1, 3), bool), "ignore": jnp.zeros((1, 3), bool),
    }  # fmt: skip

    @jax.jit
    def run(params, stats, batch):
        def part(module, prefix, *inputs):
            trees = (
                {p.removeprefix(prefix): x for p, x in tree.items() if p.startswith(prefix)}
                for tree in (params, stats)
            )
            return models.apply(module, *trees, *inputs, train=False)[0]

        _, features = part(body, "backbone/", batch["image"])
        neck = build_neck(neck_config(config), STRIDES, 256)
        levels = part(neck, "neck/", features)
        apply = partial(models.apply, model, params, stats, train=False)
        outputs, _ = apply(batch["image"])
        _, (_, terms) = retinanet.loss(apply, batch, None, config.loss.to_dict(), config)
        return features, levels, outputs, terms, retinanet.decode(outputs, SIZE, config)

    return jax.device_get(run(params, stats, batch))


@pytest.mark.slow
def test_a_training_step_reaches_all_parameters():
    """Of the published network, 91 classes, on a small image."""
    config = make_config("resnet/50")
    model = retinanet.build(models.build("resnet/50"), config, 91)
    params, stats = models.init(model, 0, (1, *SIZE, 3))
    batch = {
        "image": jnp.asarray(image(), jnp.float32),
        "boxes": jnp.asarray([BOXES]), "labels": jnp.asarray([LABELS]),
        "valid": jnp.ones((1, 3), bool), "ignore": jnp.zeros((1, 3), bool),
    }  # fmt: skip

    @jax.jit
    def step(params):
        def loss(params):
            apply = partial(models.apply, model, params, stats, train=True)
            return retinanet.loss(apply, batch, None, config.loss.to_dict(), config)

        (value, _), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        return value, gradient, jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient)

    value, gradient, params = step(params)
    assert [path for path, g in gradient.items() if not (g != 0).any()] == []
    assert float(step(params)[0]) < float(value)


@pytest.mark.parametrize(
    "body",
    [body if body == "18" else pytest.param(body, marks=pytest.mark.slow) for body in BODIES],
)
def test_every_stage_is_that_of_torchvision(body):
    reference = np.load(FOLDER / f"torchvision.retinanet.{body}.npz")
    with jax.enable_x64(True):
        features, levels, (logits, deltas), terms, detections = compute(
            f"resnet/{body}", draw_state(reference)
        )
    actual = {
        **{f"feature{stride}": thin(features[stride]) for stride in (8, 16, 32)},
        **{f"level{stride}": thin(levels[stride]) for stride in STRIDES},
        "logits": thin(logits),
        "deltas": thin(deltas),
        "class_loss": terms["class_loss"],
        "box_loss": terms["box_loss"],
        **{name: detections[name][0] for name in ("boxes", "scores", "labels")},
    }
    assert actual.keys() == {*reference} - {"shapes"}
    for name, value in actual.items():
        assert value.dtype in (np.float64, np.int32)
        np.testing.assert_allclose(value, reference[name], rtol=1e-8, atol=1e-8, err_msg=name)
