"""Training of the second stage: targets of sampled proposals (RoIs), and their loss."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from tinyjax.detectors.anchor_losses import smooth_l1_loss
from tinyjax.detectors.anchor_matching import match
from tinyjax.detectors.boxes import area
from tinyjax.detectors.deltas import encode
from tinyjax.detectors.long_tail import EQUAL_CLASSES, ClassTerms
from tinyjax.detectors.sampling import balanced_sample, image_keys
from tinyjax.ops.gather import take_rows

BETA = 1 / 9  # of the smooth L1 loss, as in torchvision


class RoiTargets(NamedTuple):
    """S RoIs per image, and what they are trained to predict."""

    rois: Array  # float [B, S, 4] xyxy pixels
    labels: Array  # int32 [B, S]: 0 for background, k + 1 for class k
    boxes: Array  # float [B, S, 4] of the matched objects; arbitrary for background
    valid: Array  # bool [B, S]; other RoIs have no loss


def sample_rois(
    key: Array,
    proposals: Array,
    valid: Array,
    batch: Mapping[str, Array],
    *,
    size: int,
    positive_fraction: float,
    foreground_iou: float,
    axes: Sequence[str] = (),
) -> RoiTargets:
    """Sample RoIs for training from the proposals and from the objects themselves.

    At most `positive_fraction` of the `size` RoIs of an image are positive, and random background
    RoIs fill the rest, see `balanced_sample`. Not differentiable: use `stop_gradient`.

    Args:
        proposals: float [B, T, 4] xyxy pixels.
        valid: bool [B, T], False in empty slots.
        batch: boxes [B, G, 4], labels int [B, G], valid and ignore bool [B, G].
        foreground_iou: see `label_rois`.
        axes: mesh axes that the batch is sharded over; each image has its own key.
    """
    objects = jnp.where(batch["valid"][..., None], batch["boxes"], 0).astype(proposals.dtype)
    candidates = jnp.concatenate([objects, proposals], 1)
    valid = jnp.concatenate([batch["valid"], valid], 1)
    targets = label_rois(candidates, valid, batch, foreground_iou)
    sample = partial(balanced_sample, size=size, max_positives=int(size * positive_fraction))
    keys = image_keys(key, len(proposals), axes)
    is_positive = targets.labels > 0
    chosen = jax.vmap(sample)(keys, targets.valid & is_positive, targets.valid & ~is_positive)
    image = jnp.arange(len(proposals))[:, None]
    targets = RoiTargets(*(array[image, chosen.indices] for array in targets))
    return targets._replace(valid=chosen.is_valid)


def label_rois(
    rois: Array, valid: Array, batch: Mapping[str, Array], foreground_iou: float
) -> RoiTargets:
    """Label RoIs with the object of the highest IoU, if it is at least `foreground_iou`.

    Empty RoIs, and background RoIs that an ignored box covers by more than half, are not valid.

    Args:
        rois: float [B, T, 4] xyxy pixels.
        valid: bool [B, T].
        batch: see `sample_rois`.
    """
    match_image = partial(
        match, foreground_iou=foreground_iou, background_iou=foreground_iou, low_quality=False
    )
    matches = jax.vmap(match_image)(rois, batch["boxes"], batch["valid"], batch["ignore"])
    labels = jnp.take_along_axis(batch["labels"], matches.object_index, 1) + 1
    boxes = jax.vmap(take_rows)(batch["boxes"], matches.object_index)
    has_target = matches.is_positive | matches.is_negative
    return RoiTargets(
        rois,
        jnp.where(matches.is_positive, labels, 0).astype(jnp.int32),
        boxes,
        valid & has_target & (area(rois) > 0),
    )


@jax.named_scope("roi_loss")
def roi_loss(
    logits: Array,
    deltas: Array,
    targets: RoiTargets,
    delta_weights: Sequence[float],
    axes: Sequence[str] = (),
    classes: ClassTerms = EQUAL_CLASSES,
    sigmoid: bool = False,
) -> tuple[Array, Array]:
    """Return the class loss and the box loss, both per valid RoI of the whole batch.

    They are cross-entropy, and for positives the smooth L1 loss of the deltas of the true class,
    summed over the four deltas (arXiv 1504.08083, section 2.3).

    Args:
        logits: float [B, S, classes + 1], background first.
        deltas: float [B, S, K, 4], K = classes, or 1 if boxes are class-agnostic.
        targets: see `sample_rois`.
        delta_weights: factors on the deltas, see `deltas.encode`.
        axes: mesh axes that the batch is sharded over; the losses must be summed over shards.
        classes: of the class loss; softmax includes all classes.
        sigmoid: sum of the binary cross-entropies of all classes, without the background's logit,
            as in Detectron2; else softmax.
    """
    count = jnp.maximum(lax.psum(targets.valid.sum(), axes), 1)
    cross_entropy = (_sigmoid_losses if sigmoid else _softmax_loss)(logits, targets, classes)
    class_loss = jnp.where(targets.valid[..., None], cross_entropy, 0).sum() / count

    # Other RoIs get a unit box: `where` on the loss alone would let NaN into the gradient.
    is_positive = targets.valid & (targets.labels > 0)
    unit = jnp.array([0, 0, 1, 1], targets.rois.dtype)
    truth, rois = (
        jnp.where(is_positive[..., None], boxes, unit) for boxes in (targets.boxes, targets.rois)
    )
    row = jnp.clip(targets.labels - 1, 0, deltas.shape[2] - 1)  # 0 if class-agnostic
    predicted = jnp.take_along_axis(deltas, row[..., None, None], 2)[:, :, 0]
    distance = smooth_l1_loss(predicted - encode(truth, rois, delta_weights), BETA).sum(-1)
    return class_loss, jnp.where(is_positive, distance, 0).sum() / count


def _softmax_loss(logits: Array, targets: RoiTargets, classes: ClassTerms) -> Array:
    """Return the cross-entropy of each RoI with the weight of its class, [B, S, 1]."""
    background = jnp.ones(1, logits.dtype)
    weight = jnp.broadcast_to(classes.weight, logits.shape[-1] - 1)
    weight = jnp.concatenate([background, weight])[targets.labels[..., None]]
    return -weight * jnp.take_along_axis(jax.nn.log_softmax(logits), targets.labels[..., None], 2)


def _sigmoid_losses(logits: Array, targets: RoiTargets, classes: ClassTerms) -> Array:
    """Return the binary cross-entropies of each RoI and class, [B, S, classes]."""
    logits = logits[..., 1:]
    target = targets.labels[..., None] == jnp.arange(1, logits.shape[-1] + 1)
    cross_entropy = jax.nn.softplus(jnp.where(target, -logits, logits))
    return jnp.where(classes.included, cross_entropy * jnp.where(target, classes.weight, 1), 0)
