"""The region proposal network of Faster R-CNN (arXiv 1506.01497, section 3): its head, its loss,
and the selection of proposals.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax

from tinyjax.detectors import deltas as coder
from tinyjax.detectors.anchor_heads import AnchorOutputs, SharedDenseConv
from tinyjax.detectors.anchor_losses import smooth_l1_loss
from tinyjax.detectors.anchor_matching import match
from tinyjax.detectors.anchors import AnchorLevel, all_boxes, level_sizes
from tinyjax.detectors.nms import Proposals, select_proposals
from tinyjax.detectors.point import SharedSeparableConv
from tinyjax.detectors.sampling import balanced_sample, image_keys
from tinyjax.ops.gather import take_rows

BETA = 1 / 9  # of the smooth L1 loss, as in torchvision

# `model.head` -> the 3 x 3 convolution before the outputs
CONVS: dict[str, Callable[..., nn.Module]] = {
    "separable": SharedSeparableConv,
    "dense": SharedDenseConv,
}


class RPN(nn.Module):
    """{stride: [B, h, w, D]} -> objectness logits f32[B, N], box deltas f32[B, N, 4].

    A convolution and the two 1 x 1 outputs after it are shared by the levels; each level has its
    own BatchNorm, if any. The order of the anchors is that of `make_anchors`.
    """

    preserves_zeros = True

    anchors_per_cell: tuple[int, ...]  # of each level
    head: str  # a key of CONVS

    def __call__(self, levels: dict[int, Array], train: bool) -> tuple[Array, Array]:
        logits, deltas = self.level_outputs(levels, train)
        return jnp.concatenate(logits, 1), jnp.concatenate(deltas, 1)

    @nn.compact
    def level_outputs(
        self, levels: dict[int, Array], train: bool
    ) -> tuple[list[Array], list[Array]]:
        """The outputs of each level, finest first."""
        width = next(iter(levels.values())).shape[-1]
        conv = CONVS[self.head](width, name="conv")
        object_out = AnchorOutputs(1, 1, nn.initializers.zeros, name="object_out")
        box_out = AnchorOutputs(4, 1, nn.initializers.zeros, name="box_out")
        logits, deltas = [], []
        for stride, num_anchors in zip(sorted(levels), self.anchors_per_cell, strict=True):
            x = conv(levels[stride], stride, train)
            logits.append(object_out(x, num_anchors)[..., 0])
            deltas.append(box_out(x, num_anchors))
        return logits, deltas


class ProposalConfig(NamedTuple):
    """The section `proposals` of a config as static data, see `select_proposals`."""

    iou_threshold: float
    max_proposals: int
    pre_nms_top_k: int
    score_threshold: float = 0.0


def make_proposals(
    logits: Array,
    deltas: Array,
    image_size: tuple[int, int],
    levels: Sequence[AnchorLevel],
    config: ProposalConfig,
) -> Proposals:
    """Return the proposals of an RPN's outputs, see `select_proposals`. They have no gradient.

    Args:
        logits, deltas: see `RPN`.
        image_size: (height, width), pixels.
        levels: the anchors.
    """
    logits, deltas = lax.stop_gradient((logits, deltas))
    boxes = coder.decode(deltas, jnp.asarray(all_boxes(levels)))
    sizes = level_sizes(levels)
    return select_proposals(logits, boxes, sizes, image_size=image_size, **config._asdict())


@jax.named_scope("rpn_loss")
def rpn_loss(
    key: Array,
    logits: Array,
    deltas: Array,
    anchors: Array,
    batch: Mapping[str, Array],
    *,
    foreground_iou: float,
    background_iou: float,
    sample_size: int,
    positive_fraction: float,
    axes: Sequence[str] = (),
) -> tuple[Array, Array]:
    """Return the class loss and the box loss, both per sampled anchor of the whole batch.

    They are the binary cross-entropy, and for positives the smooth L1 loss summed over the four
    deltas, as in torchvision.

    Args:
        logits: float [B, N].
        deltas: float [B, N, 4], see `deltas.encode`.
        anchors: float [N, 4] xyxy pixels.
        batch: boxes [B, G, 4], valid and ignore bool [B, G].
        foreground_iou, background_iou: see `match`; the best anchors of each object are positive.
        sample_size: number of anchors per image, see `balanced_sample`.
        positive_fraction: maximum fraction of positives among them.
        axes: mesh axes that the batch is sharded over; the losses must be summed over shards.
    """
    match_image = partial(
        match, anchors,
        foreground_iou=foreground_iou, background_iou=background_iou, low_quality=True,
    )  # fmt: skip
    matches = jax.vmap(match_image)(batch["boxes"], batch["valid"], batch["ignore"])
    max_positives = int(sample_size * positive_fraction)
    draw = partial(balanced_sample, size=sample_size, max_positives=max_positives)
    keys = image_keys(key, len(logits), axes)
    index, is_positive, is_valid = jax.vmap(draw)(keys, matches.is_positive, matches.is_negative)
    count = jnp.maximum(lax.psum(is_valid.sum(), axes), 1)

    logit = jnp.take_along_axis(logits, index, 1)
    cross_entropy = jax.nn.softplus(jnp.where(is_positive, -logit, logit))
    class_loss = jnp.where(is_valid, cross_entropy, 0).sum() / count

    object_index = jnp.take_along_axis(matches.object_index, index, 1)
    boxes = jax.vmap(take_rows)(batch["boxes"], object_index)
    predicted = jax.vmap(take_rows)(deltas, index)
    distance = smooth_l1_loss(predicted - coder.encode(boxes, anchors[index]), BETA).sum(-1)
    return class_loss, jnp.where(is_positive, distance, 0).sum() / count
