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
    overlap: float,
    count: int,
    pool: int,
) -> dict[str, Array]:
    """Class-wise non-maximum suppression of a batch.

    Args:
        logits: float32 [B, N, C].
        offsets: float32 [B, N, 4], see `boxes.encode`.
        grid: geometry of the N cells.
        overlap: IoU above which the lower-scored of two boxes of a class goes.
        count: K, detections kept per image.
        pool: (cell, class) pairs that enter, the best by score.

    Returns:
        boxes float32 [B, K, 4] (xyxy pixels), scores float32 [B, K] (descending, 0 in empty slots),
        labels int32 [B, K].
    """
    pool = min(pool, logits.shape[1] * logits.shape[2])
    one = partial(_detect, grid=grid, overlap=overlap, count=min(count, pool), pool=pool)
    boxes, scores, labels = jax.vmap(one)(logits, offsets)
    return {"boxes": boxes, "scores": scores, "labels": labels}


def _detect(logits, offsets, *, grid, overlap, count, pool):
    classes = logits.shape[1]
    scores, index = lax.top_k(jax.nn.sigmoid(logits).reshape(-1), pool)
    cell, labels = index // classes, index % classes
    boxes = decode(offsets[cell], jnp.asarray(grid.centers)[cell], jnp.asarray(grid.stride)[cell])
    scores = jnp.where(suppress(boxes, labels, overlap), scores, 0)
    scores, order = lax.top_k(scores, count)
    return boxes[order], scores, labels[order].astype(jnp.int32)


def suppress(boxes: Array, labels: Array, overlap: float) -> Array:
    """Greedy non-maximum suppression of boxes [P, 4] in descending order of score -> bool [P],
    those that stay.

    P trips, each one vector operation: a fixed count, so it vmaps.
    """
    rivals = (iou(boxes[:, None], boxes[None]) > overlap) & (labels[:, None] == labels[None])
    rank = jnp.arange(boxes.shape[0])
    rivals &= rank[:, None] < rank[None]  # [winner, loser]

    def visit(i, stay):
        return stay & ~(rivals[i] & stay[i])

    return lax.fori_loop(0, boxes.shape[0], visit, jnp.ones(boxes.shape[0], bool))
