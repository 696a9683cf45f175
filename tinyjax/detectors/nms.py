"""From raw head outputs to a fixed number of detections, on the device."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from tinyjax.detectors.boxes import decode, iou
from tinyjax.detectors.grid import Grid


def detections(
    logits: Array,
    offsets: Array,
    grid: Grid,
    iou_threshold: float,
    max_detections: int,
    pre_nms_top_k: int,
) -> dict[str, Array]:
    """Class-wise non-maximum suppression of a batch.

    Args:
        logits: float32 [B, N, C].
        offsets: float32 [B, N, 4], see `boxes.encode`.
        grid: geometry of the N cells.
        iou_threshold: IoU above which the lower-scored of two boxes of a class goes.
        max_detections: K, detections kept per image.
        pre_nms_top_k: (cell, class) pairs that enter, the best by score.

    Returns:
        boxes float32 [B, K, 4] (xyxy pixels), scores float32 [B, K] (descending, 0 in empty slots),
        labels int32 [B, K].
    """
    pre_nms_top_k = min(pre_nms_top_k, logits.shape[1] * logits.shape[2])
    one = partial(
        _detect,
        grid=grid,
        iou_threshold=iou_threshold,
        max_detections=min(max_detections, pre_nms_top_k),
        pre_nms_top_k=pre_nms_top_k,
    )
    boxes, scores, labels = jax.vmap(one)(logits, offsets)
    return {"boxes": boxes, "scores": scores, "labels": labels}


def _detect(logits, offsets, *, grid, iou_threshold, max_detections, pre_nms_top_k):
    classes = logits.shape[1]
    scores, index = lax.top_k(jax.nn.sigmoid(logits).reshape(-1), pre_nms_top_k)
    cell, labels = index // classes, index % classes
    boxes = decode(offsets[cell], jnp.asarray(grid.centers)[cell], jnp.asarray(grid.stride)[cell])
    scores = jnp.where(suppress(boxes, labels, iou_threshold), scores, 0)
    scores, order = lax.top_k(scores, max_detections)
    return boxes[order], scores, labels[order].astype(jnp.int32)


def suppress(boxes: Array, labels: Array, iou_threshold: float) -> Array:
    """Greedy non-maximum suppression of boxes [P, 4] in descending order of score -> bool [P],
    those that stay.

    P trips, each one vector operation: a fixed count, so it vmaps.
    """
    rivals = (iou(boxes[:, None], boxes[None]) > iou_threshold) & (labels[:, None] == labels[None])
    rank = jnp.arange(boxes.shape[0])
    rivals &= rank[:, None] < rank[None]  # [winner, loser]

    def visit(i, stay):
        return stay & ~(rivals[i] & stay[i])

    return lax.fori_loop(0, boxes.shape[0], visit, jnp.ones(boxes.shape[0], bool))
