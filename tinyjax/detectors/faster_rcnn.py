"""Faster R-CNN (arXiv 1506.01497) on a feature pyramid (arXiv 1612.03144).

A region proposal network selects boxes that may contain an object; a box head classifies and
refines each of them. The default is a small variant for small objects: RetinaNet's small anchors, a
separable RPN, few proposals, and RoIs pooled from the finest level with one sample per bin. The
functions that take `stages` are shared with Cascade R-CNN, which refines boxes repeatedly.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from ml_collections import ConfigDict

from tinyjax.detectors import deltas as coder
from tinyjax.detectors.anchor_matching import check_thresholds
from tinyjax.detectors.anchors import all_boxes, configured_levels, make_levels, to_tuples
from tinyjax.detectors.long_tail import class_terms
from tinyjax.detectors.necks import NeckConfig, build_neck, neck_config
from tinyjax.detectors.nms import Proposals, class_wise_nms
from tinyjax.detectors.point import MAX_FEATURE_STRIDE, check_strides
from tinyjax.detectors.pooling import pool_rois
from tinyjax.detectors.roi_heads import HEADS, BoxHead
from tinyjax.detectors.roi_losses import label_rois, roi_loss, sample_rois
from tinyjax.detectors.rpn import CONVS, RPN, ProposalConfig, make_proposals, rpn_loss
from tinyjax.errors import UserError, suggest

DELTA_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the first stage
MIN_SIDE = 1e-2  # of detections, pixels, as in torchvision
SIGMOID_BIAS = -math.log(99)  # of a score of 0.01, as in RetinaNet


class Stage(NamedTuple):
    """A box head and its training, as static data."""

    foreground_iou: float = 0.5  # IoU with an object from which an RoI is positive
    delta_weights: tuple[float, ...] = DELTA_WEIGHTS  # see `deltas.encode`
    loss_weight: float = 1.0


class RoiConfig(NamedTuple):
    """The fields of a config's section `roi` that the network depends on, as static data."""

    head: str  # a key of `roi_heads.HEADS`
    width: int
    fc_layers: int
    size: int  # see `pool_rois`, and the next ones
    canonical_size: float
    samples: int
    aligned: bool


# ---- the functions of every detector: build, loss, decode


def build(backbone: nn.Module, config: ConfigDict, classes: int) -> nn.Module:
    """Build the detector on a backbone. Raises UserError as `build_with_stages` does."""
    stages = configured_stages(config)
    return build_with_stages(backbone, config, classes, stages, class_agnostic=False)


def loss(
    apply: Callable[..., Any],
    batch: Mapping[str, Array],
    key: Array,
    weights: Mapping[str, Array],
    config: ConfigDict,
    axes: Sequence[str] = (),
) -> tuple[Array, tuple[dict[str, Array], dict[str, Array]]]:
    """Return the loss of a batch, and (new running statistics, terms of the loss), see
    `loss_with_stages`.
    """
    return loss_with_stages(apply, batch, key, weights, config, axes, configured_stages(config))


def decode(
    outputs: tuple[Array, Array, Array], image_size: tuple[int, int], config: ConfigDict
) -> dict[str, Array]:
    """Network outputs -> boxes in input pixels, clipped to the image, scores and labels, see
    `nms.class_wise_nms`. Boxes with a side below `MIN_SIDE` are dropped.
    """
    return class_wise_nms(*candidates(outputs, image_size, config), **config.nms)


def candidates(
    outputs: tuple[Array, Array, Array], image_size: tuple[int, int], config: ConfigDict
) -> tuple[Array, Array]:
    """Network outputs -> scores f32[B, T, classes] and boxes f32[B, T, classes, 4], or [B, T, 4] if
    they are class-agnostic, before suppression. Those that are dropped have a score of 0.
    """
    logits, boxes, valid = outputs
    activation = jax.nn.sigmoid if config.loss.federated_classes else jax.nn.softmax
    scores = activation(logits)[..., 1:]  # without the background
    valid = valid[..., None] & (boxes[..., 2:] - boxes[..., :2] >= MIN_SIDE).all(-1)
    return jnp.where(valid, scores, 0), boxes[:, :, 0] if boxes.shape[2] == 1 else boxes


def configured_stages(config: ConfigDict) -> tuple[Stage, ...]:
    """The single stage that a config describes."""
    return (Stage(config.roi.foreground_iou),)


# ---- any number of stages


def build_with_stages(
    backbone: nn.Module,
    config: ConfigDict,
    classes: int,
    stages: tuple[Stage, ...],
    class_agnostic: bool,
) -> nn.Module:
    """Build a detector with a box head for each stage.

    Raises UserError for invalid strides and necks, and as `network_fields` does.
    """
    fields = network_fields(config, stages)
    strides, neck = check_strides(backbone, config), neck_config(config)
    return FasterRCNN(
        backbone, classes, strides, neck=neck, **fields, class_agnostic=class_agnostic
    )


def network_fields(config: ConfigDict, stages: tuple[Stage, ...]) -> dict[str, Any]:
    """Return the fields of `FasterRCNN` that do not depend on the backbone and the neck.

    Raises UserError for invalid anchors, thresholds, fractions and counts, and for an unknown head
    of the RPN or of the RoIs.
    """
    _check_options(config, stages)
    configured_levels(config, (1, 1))  # checks the anchors
    model, roi = config.model, config.roi
    return {
        "anchors": to_tuples(model.anchors),
        "neck_width": model.neck_width,
        "rpn_head": model.head,
        "proposals": ProposalConfig(**config.proposals),
        "roi": RoiConfig(*(roi[field] for field in RoiConfig._fields)),
        "stages": stages,
        "class_bias": SIGMOID_BIAS if config.loss.federated_classes else 0.0,
    }


def _check_options(config: ConfigDict, stages: Sequence[Stage]) -> None:
    for stage in stages:
        if not 0 < stage.foreground_iou <= 1:
            raise UserError(
                f"roi.foreground_iou or foreground_ious: {stage.foreground_iou}: give more than 0, "
                "and at most 1"
            )
    check_thresholds("rpn", config.rpn.foreground_iou, config.rpn.background_iou)
    for field, value, names in (
        ("model.head", config.model.head, CONVS),
        ("roi.head", config.roi.head, HEADS),
    ):
        if value not in names:
            raise UserError(f"{field} = {value!r}: {suggest(value, names)}")
    positive = {
        "rpn": ["sample_size"],
        "proposals": ["max_proposals", "pre_nms_top_k"],
        "roi": ["width", "fc_layers", "size", "samples", "sample_size"],
    }
    for section, fields in positive.items():
        for field in fields:
            if config[section][field] < 1:
                raise UserError(f"{section}.{field} = {config[section][field]}: give at least 1")
    for section in ("rpn", "roi"):
        size, fraction = config[section].sample_size, config[section].positive_fraction
        if not 1 <= int(size * fraction) <= size:
            raise UserError(
                f"{section}.positive_fraction = {fraction}: give at least 1 / sample_size = "
                f"{1 / size:g}, and at most 1"
            )


def loss_with_stages(
    apply: Callable[..., Any],
    batch: Mapping[str, Array],
    key: Array,
    weights: Mapping[str, Array],
    config: ConfigDict,
    axes: Sequence[str],
    stages: Sequence[Stage],
) -> tuple[Array, tuple[dict[str, Array], dict[str, Array]]]:
    """Return the loss of a batch, and (new running statistics, terms of the loss).

    The RoIs of the first stage are a sample of the proposals and the objects. Those of the next
    stages are the boxes that the previous stage predicts, matched to objects again.

    Args:
        apply: `apply(*inputs, method=None) -> (outputs, stats)`, the network in training.
        batch: image float32 [B, H, W, C]; boxes float32 [B, G, 4] (xyxy pixels), labels int [B, G],
            valid bool [B, G], ignore bool [B, G].
        key: of the samples of anchors, RoIs, and classes of the federated loss.
        weights: scalars of `config.loss`, and the arrays of `long_tail.loss_arrays`.
        axes: mesh axes that the batch is sharded over; `batch` is then one shard, and loss and
            terms must be summed over shards.

    Returns:
        The terms are rpn_class_loss and rpn_box_loss, class_loss and box_loss, summed over stages
        with their weights, and positives, the number of positive RoIs of the first stage.
    """
    # Not 0 and 1: these keys may be those of the first images in `augment_detection`.
    rpn_key, roi_key = (jax.random.fold_in(key, zlib.crc32(name)) for name in (b"rpn", b"roi"))
    _, height, width, _ = batch["image"].shape
    image_size = height, width
    # Only the first call updates running statistics: box heads have no BatchNorm.
    (levels, logits, deltas, proposals), stats = apply(batch["image"], method="propose")
    anchors = jnp.asarray(all_boxes(configured_levels(config, image_size)))
    rpn_class_loss, rpn_box_loss = rpn_loss(
        rpn_key, logits, deltas, anchors, batch, **config.rpn, axes=axes
    )

    targets = sample_rois(
        roi_key, proposals.boxes, proposals.valid, batch,
        size=config.roi.sample_size, positive_fraction=config.roi.positive_fraction,
        foreground_iou=stages[0].foreground_iou, axes=axes,
    )  # fmt: skip
    classes = class_terms(key, batch, weights, config, axes)
    sigmoid = bool(config.loss.federated_classes)
    sampled, num_positives = targets.valid, (targets.valid & (targets.labels > 0)).sum()
    losses = []
    for n, stage in enumerate(stages):
        if n > 0:
            boxes = lax.stop_gradient(refine(targets.rois, deltas, stages[n - 1], image_size))
            targets = label_rois(boxes[:, :, 0], sampled, batch, stage.foreground_iou)
        (logits, deltas), _ = apply(levels, targets.rois, n, method="predict")
        stage_losses = roi_loss(
            logits, deltas, targets, stage.delta_weights, axes, classes, sigmoid
        )
        losses.append(stage.loss_weight * jnp.stack(stage_losses))
    class_loss, box_loss = jnp.stack(losses).sum(0)

    value = (
        weights["class"] * class_loss + weights["box"] * box_loss
        + weights["rpn_class"] * rpn_class_loss + weights["rpn_box"] * rpn_box_loss
    )  # fmt: skip
    terms = {
        "class_loss": class_loss, "box_loss": box_loss,
        "rpn_class_loss": rpn_class_loss, "rpn_box_loss": rpn_box_loss, "positives": num_positives,
    }  # fmt: skip
    return value, (stats, terms)


def refine(rois: Array, deltas: Array, stage: Stage, image_size: tuple[int, int]) -> Array:
    """Apply deltas [B, T, K, 4] to RoIs [B, T, 4]: boxes [B, T, K, 4], clipped to the image."""
    return coder.clip(coder.decode(deltas, rois[:, :, None], stage.delta_weights), image_size)


def pool(levels: Mapping[int, Array], rois: Array, roi: RoiConfig) -> Array:
    """Features [B, T, P, P, D] of RoIs f32[B, T, 4] in pixels, see `pool_rois`."""
    return pool_rois(levels, rois, roi.size, roi.canonical_size, roi.samples, roi.aligned)


def run_stages(
    proposals: Proposals,
    stages: Sequence[Stage],
    image_size: tuple[int, int],
    predict: Callable[[Array, int], tuple[Array, Array]],
) -> tuple[Array, Array, Array]:
    """The outputs of `FasterRCNN`.

    predict: RoIs f32[B, T, 4] and the index of a stage -> its logits and deltas, see `BoxHead`.
    """
    rois, logits = proposals.boxes, []
    for n, stage in enumerate(stages):
        stage_logits, deltas = predict(rois, n)
        logits.append(stage_logits)
        boxes = refine(rois, deltas, stage, image_size)
        rois = boxes[:, :, 0]
    return jnp.stack(logits).mean(0), boxes, proposals.valid


# ---- the network


class FasterRCNN(nn.Module):
    """Images [B, H, W, 1 or 3] -> class logits f32[B, T, classes + 1], boxes f32[B, T, K, 4] in
    pixels, and bool [B, T], whether a proposal is valid.

    Logit 0 is the background. K is `classes`, or 1 if boxes are class-agnostic. With several
    stages, each one refines the boxes of the previous one, and logits are means over stages.
    Training calls `propose`, and then `predict` for each stage.
    """

    preserves_zeros = True

    backbone: nn.Module
    classes: int
    strides: tuple[int, ...]
    anchors: tuple[Any, ...]  # see `make_levels`
    neck_width: int  # channels of neck and RPN; 0: of the stride-16 features, at least 16
    neck: NeckConfig
    rpn_head: str  # a key of `rpn.CONVS`
    proposals: ProposalConfig
    roi: RoiConfig
    stages: tuple[Stage, ...]
    class_agnostic: bool
    class_bias: float  # see `BoxHead`

    def setup(self) -> None:
        self.box_heads = [
            BoxHead(
                self.classes, self.roi.width, self.roi.fc_layers, **HEADS[self.roi.head],
                class_agnostic=self.class_agnostic, class_bias=self.class_bias,
                name=f"box_head{n}",
            )
            for n in range(1, len(self.stages) + 1)
        ]  # fmt: skip

    def __call__(self, x: Array, train: bool) -> tuple[Array, Array, Array]:
        levels, _, _, proposals = self.propose(x, train)

        def predict(rois, stage):
            return self.predict(levels, rois, stage, train)

        return run_stages(proposals, self.stages, (x.shape[1], x.shape[2]), predict)

    def propose(self, x: Array, train: bool) -> tuple[dict[int, Array], Array, Array, Proposals]:
        """Images -> levels for RoIs {stride: [B, h, w, D]}, outputs of the RPN, and proposals."""
        roi_levels, *outputs = self.first_stage(x, train)
        logits, deltas = (jnp.concatenate(levels, 1) for levels in outputs)
        image_size = x.shape[1], x.shape[2]
        levels = make_levels(image_size, self.strides, self.anchors)
        proposals = make_proposals(logits, deltas, image_size, levels, self.proposals)
        return roi_levels, logits, deltas, proposals

    @nn.compact
    def first_stage(
        self, x: Array, train: bool
    ) -> tuple[dict[int, Array], list[Array], list[Array]]:
        """Images -> levels for RoIs {stride: [B, h, w, D]}, and the outputs of the RPN for each
        level, finest first: logits [B, h w A] and deltas [B, h w A, 4].
        """
        levels, roi_levels = self.pyramid(x, train)
        anchors = make_levels((x.shape[1], x.shape[2]), self.strides, self.anchors)
        rpn = RPN(tuple(len(level.cell) for level in anchors), self.rpn_head, name="rpn")
        return roi_levels, *rpn.level_outputs(levels, train)

    def pyramid(self, x: Array, train: bool) -> tuple[dict[int, Array], dict[int, Array]]:
        """Images -> levels {stride: [B, h, w, D]}, and those that RoIs are pooled from.

        As in torchvision and detectron2, the latter have no level coarser than all features.
        """
        _, features = self.backbone(x, train)
        width = self.neck_width or max(16, features[16].shape[-1])
        levels = build_neck(self.neck, self.strides, width, name="neck")(features, train)
        return levels, {s: level for s, level in levels.items() if s <= MAX_FEATURE_STRIDE}

    def predict(
        self, levels: dict[int, Array], rois: Array, stage: int, train: bool
    ) -> tuple[Array, Array]:
        """RoIs f32[B, T, 4] in pixels -> the logits and deltas of a stage, see `BoxHead`.

        Each stage contributes its fraction of the gradient of the levels (Cascade R-CNN).
        """
        pooled = pool(levels, rois, self.roi)
        if len(self.stages) > 1:
            constant = lax.stop_gradient(pooled)
            pooled = constant + (pooled - constant) / len(self.stages)
        return self.classify(pooled, stage, train)

    def classify(self, pooled: Array, stage: int, train: bool) -> tuple[Array, Array]:
        """Features of RoIs [B, T, P, P, D] -> the logits and deltas of a stage, see `BoxHead`."""
        return self.box_heads[stage](pooled, train)
