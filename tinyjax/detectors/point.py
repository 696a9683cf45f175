"""The point detector: any backbone, any neck, and a depthwise head that all levels share.

It is anchor-free: each cell of a level predicts one box. By default the neck has as many channels
as the backbone's stride-16 features, at least 16. The head works on the finest strides, at which a
6-pixel person has its own cell; the neck adds context from deeper stages by sums.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict

from tinyjax.detectors.boxes import MAX_LOG_SIZE
from tinyjax.detectors.boxes import decode as decode_boxes
from tinyjax.detectors.grid import make_grid
from tinyjax.detectors.long_tail import class_terms
from tinyjax.detectors.losses import detection_loss
from tinyjax.detectors.necks import NeckConfig, build_neck, neck_config
from tinyjax.detectors.nms import class_wise_nms
from tinyjax.errors import UserError
from tinyjax.models.initializers import he_group_fan_out, small_normal
from tinyjax.models.layers import BatchNorm
from tinyjax.ops.conv import conv2d

STRIDES = (4, 8, 16, 32, 64, 128)
MAX_FEATURE_STRIDE = 32  # the neck makes coarser levels
MAX_LEVELS = 5  # that all necks can fuse
PRIOR_PROBABILITY = 0.002  # initial score of each class at each cell
# How `candidates` decodes an offset (dx, dy, dw, dh), for files that leave it to their reader.
BOX_FORMULA = (
    "center = (column + 0.5, row + 0.5) * stride + (dx, dy) * stride; "
    f"size = exp(clip((dw, dh), -{MAX_LOG_SIZE:g}, {MAX_LOG_SIZE:g})) * stride; "
    "box = (center - size / 2, center + size / 2), in pixels of the input"
)


# ---- the functions of every detector: build, loss, decode


def build(backbone: nn.Module, config: ConfigDict, classes: int) -> nn.Module:
    """Build the detector on a backbone. Raises UserError if `model.strides` or `model.neck` is
    invalid.
    """
    strides = check_strides(backbone, config)
    return PointDetector(backbone, classes, strides, config.model.neck_width, neck_config(config))


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
        batch: image float32 [B, H, W, C], and the objects, see `losses.detection_loss`.
        key: of the classes that the federated loss samples.
        weights: scalars of `config.loss`, and the arrays of `long_tail.loss_arrays`.
        axes: mesh axes that the batch is sharded over, see `losses.detection_loss`.
    """
    (logits, offsets), stats = apply(batch["image"])
    _, height, width, _ = batch["image"].shape
    grid = make_grid(height, width, tuple(config.model.strides))
    classes = class_terms(key, batch, weights, config, axes)
    value, terms = detection_loss(logits, offsets, batch, weights, grid, axes, classes)
    return value, (stats, terms)


def decode(
    outputs: tuple[Array, Array], image_size: tuple[int, int], config: ConfigDict
) -> dict[str, Array]:
    """Network outputs -> boxes in input pixels, scores and labels, see `nms.class_wise_nms`."""
    return class_wise_nms(*candidates(outputs, image_size, config), **config.nms)


def candidates(
    outputs: tuple[Array, Array], image_size: tuple[int, int], config: ConfigDict
) -> tuple[Array, Array]:
    """Network outputs -> scores f32[B, N, classes] and boxes f32[B, N, 4] before suppression."""
    logits, offsets = outputs
    grid = make_grid(*image_size, tuple(config.model.strides))
    boxes = decode_boxes(offsets, jnp.asarray(grid.cell_centers), jnp.asarray(grid.cell_strides))
    return jax.nn.sigmoid(logits), boxes


def check_strides(backbone: nn.Module, config: ConfigDict) -> tuple[int, ...]:
    """Return `model.strides`. Raises UserError unless they are consecutive, and the backbone has
    the features that the neck needs.
    """
    strides = tuple(config.model.strides)
    choices = {STRIDES[i : i + n] for i in range(4) for n in range(1, MAX_LEVELS + 1)}
    if strides not in choices:
        raise UserError(
            f"model.strides = {strides}: give at most {MAX_LEVELS} consecutive strides out of "
            f"{STRIDES}, the first of them at most {MAX_FEATURE_STRIDE}"
        )
    required = {s for s in strides if s <= MAX_FEATURE_STRIDE}
    if not config.model.neck_width:
        required.add(16)
    if missing := required - {*backbone.arch.feature_strides}:
        raise UserError(
            f"model.backbone = {config.model.backbone!r}: this detector needs features at strides "
            f"{', '.join(map(str, sorted(missing)))}, but the backbone has them at "
            f"{', '.join(map(str, backbone.arch.feature_strides))} only; change model.strides or "
            "model.backbone"
        )
    return strides


# ---- the network


class PointDetector(nn.Module):
    """Images [B, H, W, 1 or 3] -> class logits f32[B, N, classes] and box offsets f32[B, N, 4].

    N runs over the cells of all levels in the order of `grid.make_grid`; offsets are those of
    `boxes.encode`.
    """

    preserves_zeros = True
    backbone: nn.Module
    classes: int
    strides: tuple[int, ...] = (4, 8)
    neck_width: int = 0  # channels of neck and head; 0: of the stride-16 features, at least 16
    neck: NeckConfig = NeckConfig()

    def __call__(self, x: Array, train: bool) -> tuple[Array, Array]:
        logits, offsets = self.level_outputs(x, train).values()
        return jnp.concatenate(logits, 1), jnp.concatenate(offsets, 1)

    @nn.compact
    def level_outputs(self, x: Array, train: bool) -> dict[str, list[Array]]:
        """The outputs of each level, finest first: lists of [B, h w, n], by name."""
        _, features = self.backbone(x, train)
        width = self.neck_width or max(16, features[16].shape[-1])
        levels = build_neck(self.neck, self.strides, width, name="neck")(features, train)
        return Head(self.classes, name="head")(levels, train)


class Head(nn.Module):
    """{stride: [B, h, w, D]} -> logits f32[B, h w, classes], offsets f32[B, h w, 4] of each level.

    The levels share convolutions; each level has its own BatchNorm, because their statistics differ
    (RTMDet).
    """

    preserves_zeros = True

    classes: int

    @nn.compact
    def __call__(self, levels: dict[int, Array], train: bool) -> dict[str, list[Array]]:
        width = next(iter(levels.values())).shape[-1]
        stem, class_tower, box_tower = (
            SharedSeparableConv(width, name=n) for n in ("stem", "class_tower", "box_tower")
        )
        prior = nn.initializers.constant(math.log(PRIOR_PROBABILITY / (1 - PRIOR_PROBABILITY)))
        class_out = OutputLayer(self.classes, prior, name="class_out")
        box_out = OutputLayer(4, _box_bias_init, name="box_out")
        logits, offsets = [], []
        for stride in sorted(levels):
            x = stem(levels[stride], stride, train)
            logits.append(class_out(class_tower(x, stride, train)))
            offsets.append(box_out(box_tower(x, stride, train)))
        return {"logits": logits, "offsets": offsets}


def _box_bias_init(key, shape):
    """Initial boxes: centered on the cell, 2 strides wide, so that IoU ranks candidates from the
    first step.
    """
    return jnp.array([0, 0, math.log(2), math.log(2)])


class SharedConv(nn.Module):
    """A convolution without BatchNorm; several levels share it."""

    preserves_zeros = True

    width: int
    size: int = 1
    groups: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1] // self.groups, self.width)
        kernel = self.param("kernel", he_group_fan_out, shape, self.groups)
        return conv2d(x, kernel.astype(x.dtype), 1, self.groups)


class SharedSeparableConv(nn.Module):
    """3 x 3 `SeparableConv` with the same kernels for all levels, and BatchNorms for each level."""

    preserves_zeros = True

    width: int

    @nn.compact
    def __call__(self, x: Array, stride: int, train: bool) -> Array:
        c = x.shape[-1]
        x = SharedConv(c, 3, groups=c, name="depthwise")(x)
        x = BatchNorm(name=f"depthwise_bn{stride}")(x, train)
        x = SharedConv(self.width, name="pointwise")(x)
        return nn.hard_swish(BatchNorm(name=f"pointwise_bn{stride}")(x, train))


class OutputLayer(nn.Module):
    """Last layer: [B, h, w, D] -> [B, h w, features], in at least float32."""

    preserves_zeros = True

    features: int
    bias_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, h, w, d = x.shape
        kernel = self.param("kernel", small_normal, (d, self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        x = x.reshape(b, h * w, d)  # b h w d -> b (h w) d
        return x @ kernel + bias
