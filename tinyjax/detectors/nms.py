"""Class-wise non-maximum suppression with fixed shapes, on the device."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from tinyjax.detectors.boxes import iou


def class_wise_nms(
    scores: Array, boxes: Array, iou_threshold: float, max_detections: int, pre_nms_top_k: int
) -> dict[str, Array]:
    """Greedy non-maximum suppression within each class, for a batch.

    Args:
        scores: float32 [B, N, C] of N candidate boxes.
        boxes: float32 [B, N, 4] xyxy pixels, for all classes.
        iou_threshold: if two boxes of a class have a larger IoU, the one with the lower score is
            suppressed.
        max_detections: K, maximum number of detections per image.
        pre_nms_top_k: number of (box, class) pairs per image, those with the highest scores, that
            NMS considers.

    Returns:
        boxes float32 [B, K, 4], scores float32 [B, K] (descending, 0 in empty slots), labels
        int32 [B, K].
    """
    top_k = min(pre_nms_top_k, scores.shape[1] * scores.shape[2])
    nms = partial(
        _nms, iou_threshold=iou_threshold, max_detections=min(max_detections, top_k), top_k=top_k
    )
    boxes, scores, labels = jax.vmap(nms)(scores, boxes)
    return {"boxes": boxes, "scores": scores, "labels": labels}


def _nms(scores, boxes, *, iou_threshold, max_detections, top_k):
    classes = scores.shape[1]
    scores, index = lax.top_k(scores.reshape(-1), top_k)
    boxes, labels = boxes[index // classes], index % classes
    scores = jnp.where(nms_mask(boxes, labels, iou_threshold), scores, 0)
    scores, order = lax.top_k(scores, max_detections)
    return boxes[order], scores, labels[order].astype(jnp.int32)


def nms_mask(boxes: Array, labels: Array, iou_threshold: float) -> Array:
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
