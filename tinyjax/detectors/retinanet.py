"""RetinaNet (arXiv 1708.02002): dense classification of anchors with the focal loss.

The default is a small variant for small objects: anchors of 4 to 38 pixels, with several centers
per cell for the smallest ones, and towers of depthwise separable convolutions. `model.head =
"dense"` has the paper's head, and `model.anchors = ("torchvision",)` the anchors of torchvision,
whose weights can be loaded (`transfer.torch_detectors`). Unlike in the paper, the losses are
normalized by the positives of the whole batch, since an image may have none.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from ml_collections import ConfigDict

from tinyjax.detectors import deltas as coder
from tinyjax.detectors.anchor_heads import AnchorOutputs, SharedDenseConv
from tinyjax.detectors.anchor_losses import sigmoid_focal_loss
from tinyjax.detectors.anchor_matching import Matches, check_thresholds, match
from tinyjax.detectors.anchors import all_boxes, configured_levels
from tinyjax.detectors.long_tail import EQUAL_CLASSES, ClassTerms, class_terms
from tinyjax.detectors.necks import NeckConfig, build_neck, neck_config
from tinyjax.detectors.nms import class_wise_nms
from tinyjax.detectors.point import SharedSeparableConv, check_strides
from tinyjax.errors import UserError, suggest
from tinyjax.ops.gather import take_rows

PRIOR_PROBABILITY = 0.01  # initial score of each class at each anchor
# How `candidates` decodes deltas (dx, dy, dw, dh), for files that leave it to their reader.
BOX_FORMULA = (
    "an anchor of a level is anchors[level][k] + (column, row, column, row) * stride; "
    "center = anchor center + (dx, dy) * anchor size; "
    f"size = exp(min((dw, dh), {coder.MAX_LOG_GROWTH:g})) * anchor size; "
    "box = (center - size / 2, center + size / 2), clipped to the input, in its pixels"
)


# ---- the functions of every detector: build, loss, decode


def build(backbone: nn.Module, config: ConfigDict, classes: int) -> nn.Module:
    """Build the detector on a backbone.

    Raises UserError for invalid strides, anchors, thresholds of matching, and an unknown head.
    """
    strides = check_strides(backbone, config)
    anchors_per_cell = tuple(len(level.cell) for level in configured_levels(config, (1, 1)))
    check_thresholds("matching", **config.matching)
    model = config.model
    if model.head not in HEADS:
        raise UserError(f"model.head = {model.head!r}: {suggest(model.head, HEADS)}")
    return RetinaNet(
        backbone, classes, strides, anchors_per_cell,
        model.neck_width, neck_config(config), model.head, model.head_depth,
    )  # fmt: skip


def loss(
    apply: Callable[..., Any],
    batch: Mapping[str, Array],
    key: Array,
    weights: Mapping[str, Array],
    config: ConfigDict,
    axes: Sequence[str] = (),
) -> tuple[Array, tuple[dict[str, Array], dict[str, Array]]]:
    """Return the loss of a batch, and (new running statistics, terms of the loss).

    Args:
        apply: `apply(*inputs, method=None) -> (outputs, stats)`, the network in training.
        batch: image float32 [B, H, W, C]; boxes float32 [B, G, 4] (xyxy pixels), labels int [B, G],
            valid bool [B, G], ignore bool [B, G].
        key: of the classes that the federated loss samples.
        weights: scalars of `config.loss`, and the arrays of `long_tail.loss_arrays`.
        axes: mesh axes that the batch is sharded over; `batch` is then one shard, and loss and
            terms must be summed over shards.
    """
    (logits, deltas), stats = apply(batch["image"])
    _, height, width, _ = batch["image"].shape
    anchors = jnp.asarray(all_boxes(configured_levels(config, (height, width))))

    def match_image(boxes, valid, ignore):
        return match(anchors, boxes, valid, ignore, **config.matching, low_quality=True)

    matches = jax.vmap(match_image)(batch["boxes"], batch["valid"], batch["ignore"])
    classes = class_terms(key, batch, weights, config, axes)
    value, terms = retinanet_loss(logits, deltas, anchors, matches, batch, weights, axes, classes)
    return value, (stats, terms)


@jax.named_scope("loss")
def retinanet_loss(
    logits: Array,
    deltas: Array,
    anchors: Array,
    matches: Matches,
    batch: Mapping[str, Array],
    weights: Mapping[str, Array],
    axes: Sequence[str] = (),
    classes: ClassTerms = EQUAL_CLASSES,
) -> tuple[Array, dict[str, Array]]:
    """Return the focal loss of classes and the L1 loss of deltas, per positive anchor.

    Args:
        logits: [B, N, classes] class scores before the sigmoid.
        deltas: [B, N, 4], see `deltas.encode`.
        anchors: [N, 4] xyxy pixels.
        matches: arrays [B, N].
        batch, weights, axes: see `loss`.
        classes: of the class loss.

    Returns:
        The loss, and a dict with its terms class_loss and box_loss, and with positives, the number
        of positive anchors.
    """
    is_positive = matches.is_positive
    num_positives = is_positive.sum()
    normalizer = jnp.maximum(lax.psum(num_positives, axes), 1)

    label = jnp.take_along_axis(batch["labels"], matches.object_index, 1)
    target = is_positive[..., None] & (label[..., None] == jnp.arange(logits.shape[-1]))
    focal = sigmoid_focal_loss(logits, target, weights["focal_alpha"], weights["focal_gamma"])
    focal = focal * jnp.where(target, classes.weight, 1)
    has_class_loss = (is_positive | matches.is_negative)[..., None] & classes.included
    class_loss = jnp.where(has_class_loss, focal, 0).sum() / normalizer

    boxes = jax.vmap(take_rows)(batch["boxes"], matches.object_index)
    distance = jnp.abs(deltas - coder.encode(boxes, anchors)).sum(-1)
    box_loss = jnp.where(is_positive, distance, 0).sum() / normalizer

    value = weights["class"] * class_loss + weights["box"] * box_loss
    return value, {"class_loss": class_loss, "box_loss": box_loss, "positives": num_positives}


def decode(
    outputs: tuple[Array, Array], image_size: tuple[int, int], config: ConfigDict
) -> dict[str, Array]:
    """Network outputs -> boxes in input pixels, clipped to the image, scores and labels, see
    `nms.class_wise_nms`.
    """
    return class_wise_nms(*candidates(outputs, image_size, config), **config.nms)


def candidates(
    outputs: tuple[Array, Array], image_size: tuple[int, int], config: ConfigDict
) -> tuple[Array, Array]:
    """Network outputs -> scores f32[B, N, classes] and boxes f32[B, N, 4] before suppression."""
    logits, deltas = outputs
    anchors = jnp.asarray(all_boxes(configured_levels(config, image_size)))
    boxes = coder.clip(coder.decode(deltas, anchors), image_size)
    return jax.nn.sigmoid(logits), boxes


# ---- the network


class RetinaNet(nn.Module):
    """Images [B, H, W, 1 or 3] -> class logits f32[B, N, classes] and box deltas f32[B, N, 4].

    N runs over the anchors in the order of `anchors.make_anchors`; deltas are those of
    `deltas.encode`.
    """

    preserves_zeros = True

    backbone: nn.Module
    classes: int
    strides: tuple[int, ...]
    anchors_per_cell: tuple[int, ...]  # of each level
    neck_width: int  # channels of neck and head; 0: of the stride-16 features, at least 16
    neck: NeckConfig = NeckConfig()
    head_variant: str = "separable"  # a key of HEADS
    head_depth: int = 2

    def __call__(self, x: Array, train: bool) -> tuple[Array, Array]:
        logits, deltas = self.level_outputs(x, train).values()
        return jnp.concatenate(logits, 1), jnp.concatenate(deltas, 1)

    @nn.compact
    def level_outputs(self, x: Array, train: bool) -> dict[str, list[Array]]:
        """The outputs of each level, finest first: lists of [B, h w A, n], by name. A: anchors per
        cell.
        """
        _, features = self.backbone(x, train)
        width = self.neck_width or max(16, features[16].shape[-1])
        levels = build_neck(self.neck, self.strides, width, name="neck")(features, train)
        anchors_per_cell = dict(zip(self.strides, self.anchors_per_cell, strict=True))
        conv, output_size = HEADS[self.head_variant]
        head = Head(self.classes, self.head_depth, conv, output_size, name="head")
        return head(levels, anchors_per_cell, train)


class Head(nn.Module):
    """{stride: [B, h, w, D]} -> lists of logits f32[B, h w A, classes], deltas f32[B, h w A, 4].

    A: anchors per cell of a level.

    The levels share the convolutions of two towers; each level has its own BatchNorm, if any,
    because their statistics differ.
    """

    preserves_zeros = True

    classes: int
    depth: int  # convolutions of a tower
    conv: Callable[..., nn.Module]  # conv(width, name=name)(x, stride, train)
    output_size: int  # of the kernels of the last layers

    @nn.compact
    def __call__(
        self, levels: dict[int, Array], anchors_per_cell: dict[int, int], train: bool
    ) -> dict[str, list[Array]]:
        width = next(iter(levels.values())).shape[-1]
        class_tower, box_tower = (
            [self.conv(width, name=f"{name}_tower{i}") for i in range(1, self.depth + 1)]
            for name in ("class", "box")
        )
        prior = nn.initializers.constant(math.log(PRIOR_PROBABILITY / (1 - PRIOR_PROBABILITY)))
        class_out = AnchorOutputs(self.classes, self.output_size, prior, name="class_out")
        box_out = AnchorOutputs(4, self.output_size, nn.initializers.zeros, name="box_out")
        logits, deltas = [], []
        for stride in sorted(levels):
            x = y = levels[stride]
            for conv in class_tower:
                x = conv(x, stride, train)
            for conv in box_tower:
                y = conv(y, stride, train)
            logits.append(class_out(x, anchors_per_cell[stride]))
            deltas.append(box_out(y, anchors_per_cell[stride]))
        return {"logits": logits, "deltas": deltas}


# name -> (convolution of the towers, size of the kernels of the last layers)
HEADS: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "separable": (SharedSeparableConv, 1),
    "dense": (SharedDenseConv, 3),
}
