"""Faster R-CNN on MobileNetV3-Large as torchvision publishes it, in order to load its weights.

These are fasterrcnn_mobilenet_v3_large_fpn and fasterrcnn_mobilenet_v3_large_320_fpn. Unlike the
necks of `necks`, their pyramid fuses two maps of the same stride 32: the outputs of the first block
with this stride, and of the last convolution before the classifier. All RoIs are pooled from the
first one. Everything else is `faster_rcnn`, which is the choice for all other purposes.
"""

from typing import Any

import flax.linen as nn
from jax import Array
from ml_collections import ConfigDict

from tinyjax.detectors import faster_rcnn
from tinyjax.detectors.faster_rcnn import FasterRCNN
from tinyjax.detectors.necks import Conv, NeckConfig
from tinyjax.errors import UserError
from tinyjax.models import mobilenetv3
from tinyjax.models.layers import ConvBN

STRIDES = (32, 32, 64)  # of the maps of the pyramid

loss = faster_rcnn.loss
decode = faster_rcnn.decode
candidates = faster_rcnn.candidates


def build(backbone: nn.Module, config: ConfigDict, classes: int) -> nn.Module:
    """Build the detector on a backbone.

    Raises UserError for a backbone that is not a MobileNetV3, other strides than `STRIDES`, and as
    `faster_rcnn.build` does.
    """
    if not isinstance(backbone, mobilenetv3.Model):
        raise UserError(
            f"model.backbone = {config.model.backbone!r}: this detector is that of "
            "mobilenetv3/large; give it, or model.detector = 'faster_rcnn'"
        )
    if tuple(config.model.strides) != STRIDES:
        raise UserError(f"model.strides = {tuple(config.model.strides)}: give {STRIDES}")
    stages = faster_rcnn.configured_stages(config)
    fields = faster_rcnn.network_fields(config, stages)
    return MobileNetFasterRCNN(
        backbone, classes, STRIDES, neck=NeckConfig(), **fields, class_agnostic=False
    )


class MobileNetFasterRCNN(FasterRCNN):
    """The network: inputs and outputs are those of `FasterRCNN`."""

    preserves_zeros = True

    def pyramid(self, x: Array, train: bool) -> tuple[dict[int, Array], dict[int, Array]]:
        """Images -> maps {0, 1, 2: [B, h, w, D]} of the RPN, and {32: map 0} for RoIs."""
        backbone, outputs = self.backbone, {}

        def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            outputs[context.module.path] = y = call(*args, **kwargs)
            return y

        # The features are the last outputs at each stride, so the first one has to be recorded.
        with nn.intercept_methods(record):
            _, features = backbone(x, train)
        stage = f"stage{backbone.arch.strides.index(32) + 1}"
        first = outputs[*backbone.path, stage, "block0"]
        settings = {"eps": backbone.eps, "momentum": backbone.momentum}
        conv = ConvBN(backbone.arch.head, act="hard_swish", **settings, name="last_conv")
        width = self.neck_width or max(16, features[16].shape[-1])
        maps = TwoMapFPN(width, name="neck")(first, conv(features[32], train), train)
        return dict(enumerate(maps)), {32: maps[0]}


class TwoMapFPN(nn.Module):
    """Maps [B, h, w, c] and [B, h, w, C] -> [B, h, w, width] twice, and every second row and column
    of the second one.

    The layers are those of the dense `FPN`, numbered because the strides are equal.
    """

    preserves_zeros = True

    width: int

    @nn.compact
    def __call__(self, first: Array, last: Array, train: bool) -> tuple[Array, Array, Array]:
        top = Conv(self.width, name="lateral1")(last, train)
        fused = Conv(self.width, name="lateral0")(first, train) + top
        top = Conv(self.width, 3, name="output1")(top, train)
        return Conv(self.width, 3, name="output0")(fused, train), top, top[:, ::2, ::2]
