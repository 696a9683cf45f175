"""Faster R-CNN on MobileNetV3: its pyramid, loss and padding. test_torchvision_faster_rcnn has its
outputs.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.detectors.padding import Subsampled, check_padded_training
from tests.detectors.two_stage import make_config
from tinyjax import models
from tinyjax.detectors import faster_rcnn_mobilenet
from tinyjax.detectors.faster_rcnn_mobilenet import STRIDES, TwoMapFPN
from tinyjax.errors import UserError

SMALL = {
    "model__strides": STRIDES,
    "model__anchors": ("torchvision_mobilenet",),
    "model__neck_width": 8,
    "roi__fc_layers": 1,
}


@pytest.mark.parametrize(
    ("backbone", "strides", "message"),
    [
        (Subsampled(), STRIDES, "that of mobilenetv3/large"),
        (models.build("mobilenetv3/s-6"), (16, 32, 64), "give (32, 32, 64)"),
    ],
)
def test_other_networks_are_rejected(backbone, strides, message):
    config = make_config("faster_rcnn_mobilenet", **SMALL)
    config.model.strides = strides
    with pytest.raises(UserError) as error:
        faster_rcnn_mobilenet.build(backbone, config, 3)
    assert message in str(error.value)


def test_pyramid_by_hand():
    """All 1 x 1 kernels, the centers of 3 x 3 kernels, and biases are 1."""
    fpn = TwoMapFPN(1)
    first, last = jnp.ones((1, 3, 5, 4)), 2 * jnp.ones((1, 3, 5, 3))
    params, _ = models.init(fpn, 0, first.shape, last.shape)
    params = {
        path: jnp.ones_like(x)
        if x.ndim == 1 or x.shape[0] == 1
        else jnp.zeros_like(x).at[1, 1].set(1)
        for path, x in params.items()
    }
    maps, _ = jax.jit(lambda *inputs: models.apply(fpn, params, {}, *inputs, train=False))(
        first, last
    )
    assert [x.shape for x in maps] == [(1, 3, 5, 1), (1, 3, 5, 1), (1, 2, 3, 1)]
    # last: 6 + 1; first: 4 + 1 + 7; and a bias of 1 after each 3 x 3 convolution
    for x, expected in zip(maps, (13, 8, 8), strict=True):
        np.testing.assert_array_equal(x, expected)


@pytest.mark.slow
def test_padded_training_equals_unpadded_training():
    config = make_config("faster_rcnn_mobilenet", **SMALL)
    check_padded_training(faster_rcnn_mobilenet, config, "mobilenetv3/s-1")
