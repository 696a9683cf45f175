"""Non-maximum suppression of detections and proposals with fixed shapes, on the device."""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from tinyjax.detectors.boxes import iou
from tinyjax.detectors.deltas import clip

MIN_SIDE = 1e-3  # pixels; smaller proposals are dropped, as in torchvision


def class_wise_nms(
    scores: Array,
    boxes: Array,
    iou_threshold: float,
    max_detections: int,
    pre_nms_top_k: int,
    score_threshold: float = 0.0,
) -> dict[str, Array]:
    """Greedy non-maximum suppression within each class, for a batch.

    Args:
        scores: float32 [B, N, C] of N candidate boxes.
        boxes: float32 [B, N, 4] xyxy pixels, for all classes; or [B, N, C, 4], one for each class.
        iou_threshold: if two boxes of a class have a larger IoU, the one with the lower score is
            suppressed.
        max_detections: K, maximum number of detections per image.
        pre_nms_top_k: number of (box, class) pairs per image, those with the highest scores, that
            NMS considers.
        score_threshold: detections with this score or a lower one are dropped.

    Returns:
        boxes float32 [B, K, 4], scores float32 [B, K] (descending, 0 in empty slots), labels
        int32 [B, K].
    """
    top_k = min(pre_nms_top_k, scores.shape[1] * scores.shape[2])
    boxes = boxes.reshape(*scores.shape[:2], -1, 4)
    nms = partial(
        _nms, iou_threshold=iou_threshold, max_detections=min(max_detections, top_k), top_k=top_k,
        score_threshold=score_threshold,
    )  # fmt: skip
    boxes, scores, labels = jax.vmap(nms)(scores, boxes)
    return {"boxes": boxes, "scores": scores, "labels": labels}


def _nms(scores, boxes, *, iou_threshold, max_detections, top_k, score_threshold):
    classes = scores.shape[1]
    scores, index = lax.top_k(scores.reshape(-1), top_k)
    labels = index % classes
    boxes = boxes[index // classes, jnp.minimum(labels, boxes.shape[1] - 1)]
    kept = nms_mask(boxes, labels, iou_threshold) & (scores > score_threshold)
    scores = jnp.where(kept, scores, 0)
    scores, order = lax.top_k(scores, max_detections)
    return boxes[order], scores, labels[order].astype(jnp.int32)


@jax.jit  # a call of this name in a traced function, which ONNX files have an operator for
def nms_mask(boxes: Array, labels: Array, iou_threshold: ArrayLike) -> Array:
    """Return which boxes [P, 4], sorted by descending score, NMS keeps: bool [P].

    It runs P iterations of one vector operation; the number is fixed, so it can be vmapped.
    """
    same_class = labels[:, None] == labels[None]
    suppresses = (iou(boxes[:, None], boxes[None]) > iou_threshold) & same_class
    rank = jnp.arange(boxes.shape[0])
    suppresses &= rank[:, None] < rank[None]  # [higher score, lower score]

    def step(i, keep):
        return keep & ~(suppresses[i] & keep[i])

    return lax.fori_loop(0, boxes.shape[0], step, jnp.ones(boxes.shape[0], bool))


class Proposals(NamedTuple):
    """K proposals per image, sorted by descending logit; empty slots are at the end."""

    boxes: Array  # float [B, K, 4] xyxy pixels, clipped to the image; 0 in empty slots
    logits: Array  # float [B, K]; -inf in empty slots
    valid: Array  # bool [B, K], False in empty slots


def select_proposals(
    logits: Array,
    boxes: Array,
    level_sizes: Sequence[int],
    *,
    image_size: tuple[int, int],
    iou_threshold: float,
    max_proposals: int,
    pre_nms_top_k: int,
    score_threshold: float = 0.0,
) -> Proposals:
    """Select the proposals of a region proposal network (arXiv 1506.01497, section 3.3).

    As in torchvision, the candidates of each level with the highest logits are clipped to the
    image, those with a side below `MIN_SIDE` are dropped, and greedy NMS runs within each level.
    Not differentiable: use `stop_gradient`.

    Args:
        logits: float [B, N], one score per anchor.
        boxes: float [B, N, 4] decoded boxes, xyxy pixels.
        level_sizes: number of anchors of each level; their sum is N.
        image_size: (height, width), pixels.
        iou_threshold: if two boxes of a level have a larger IoU, the one with the lower logit is
            dropped.
        max_proposals: K, maximum number of proposals per image.
        pre_nms_top_k: number of candidates per image and level.
        score_threshold: candidates with a lower sigmoid of the logit are dropped.
    """
    top_k = min(pre_nms_top_k, max(level_sizes))
    select = partial(
        _select, level_sizes=level_sizes, image_size=image_size, iou_threshold=iou_threshold,
        max_proposals=min(max_proposals, top_k * len(level_sizes)), top_k=top_k,
        score_threshold=score_threshold,
    )  # fmt: skip
    return Proposals(*jax.vmap(select)(logits, boxes))


def _select(
    logits, boxes, *, level_sizes, image_size, iou_threshold, max_proposals, top_k, score_threshold
):
    logits, boxes = _highest(logits, boxes, level_sizes, top_k)
    boxes = clip(boxes, image_size)
    is_candidate = (boxes[..., 2:] - boxes[..., :2] >= MIN_SIDE).all(-1)
    is_candidate &= jax.nn.sigmoid(logits) >= score_threshold
    suppress = jax.vmap(partial(nms_mask, iou_threshold=iou_threshold))
    kept = suppress(boxes, is_candidate) & is_candidate  # dropped boxes suppress no others
    logits, boxes, kept = logits.reshape(-1), boxes.reshape(-1, 4), kept.reshape(-1)
    logits, order = lax.top_k(jnp.where(kept, logits, -jnp.inf), max_proposals)
    valid = kept[order]
    return jnp.where(valid[:, None], boxes[order], 0), logits, valid


def _highest(logits, boxes, level_sizes, top_k):
    """The candidates of each level, sorted: logits [L, top_k] and boxes [L, top_k, 4].

    A level with fewer anchors is filled with empty boxes.
    """
    ends = list(accumulate(level_sizes))
    levels = []
    for start, end in zip([0, *ends], ends, strict=False):
        highest, index = lax.top_k(logits[start:end], min(top_k, end - start))
        missing = top_k - len(index)
        highest = jnp.pad(highest, (0, missing), constant_values=-jnp.inf)
        levels.append((highest, jnp.pad(boxes[start + index], ((0, missing), (0, 0)))))
    return map(jnp.stack, zip(*levels, strict=True))
