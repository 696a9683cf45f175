"""Cascade R-CNN (arXiv 1712.00726): Faster R-CNN with several box heads, each of which refines the
boxes of the previous one and is trained with a higher IoU threshold.

Boxes are class-agnostic, and the deltas of stage n have n times the weights of the first stage.
Details are detectron2's: the RoIs of later stages are not sampled again, and the gradient of the
features is divided by the number of stages. Scores are the softmax of the mean logits, as in mmdet.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
from jax import Array
from ml_collections import ConfigDict

from tinyjax.detectors import faster_rcnn
from tinyjax.detectors.faster_rcnn import DELTA_WEIGHTS, Stage
from tinyjax.errors import UserError

decode = faster_rcnn.decode
candidates = faster_rcnn.candidates


def build(backbone: nn.Module, config: ConfigDict, classes: int) -> nn.Module:
    """Build the detector on a backbone. Raises UserError as `faster_rcnn.build` does, and for other
    than one IoU and one loss weight per stage.
    """
    ious, loss_weights = config.roi.foreground_ious, config.roi.loss_weights
    if len(ious) != len(loss_weights) or not ious:
        raise UserError(
            f"roi.foreground_ious = {tuple(ious)}, roi.loss_weights = {tuple(loss_weights)}: give "
            "one of each per stage"
        )
    return faster_rcnn.build_with_stages(
        backbone, config, classes, _stages(config), class_agnostic=True
    )


def loss(
    apply: Callable[..., Any],
    batch: Mapping[str, Array],
    key: Array,
    weights: Mapping[str, Array],
    config: ConfigDict,
    axes: Sequence[str] = (),
) -> tuple[Array, tuple[dict[str, Array], dict[str, Array]]]:
    """Return the loss of a batch, and (new running statistics, terms of the loss), see
    `faster_rcnn.loss_with_stages`.
    """
    return faster_rcnn.loss_with_stages(apply, batch, key, weights, config, axes, _stages(config))


def _stages(config: ConfigDict) -> tuple[Stage, ...]:
    stages = zip(config.roi.foreground_ious, config.roi.loss_weights, strict=True)
    return tuple(
        Stage(iou, tuple(n * weight for weight in DELTA_WEIGHTS), loss_weight)
        for n, (iou, loss_weight) in enumerate(stages, start=1)
    )
