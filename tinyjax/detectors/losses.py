"""The detection loss: a quality-aware focal loss on classes, DIoU and L1 on boxes. All float32, all
fixed shapes.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from tinyjax.detectors.boxes import center_size, decode, diou, encode
from tinyjax.detectors.grid import Grid
from tinyjax.detectors.matching import assign


@jax.named_scope("loss")
def detection_loss(
    logits: Array,
    offsets: Array,
    batch: dict,
    weights: dict,
    grid: Grid,
    axes: Sequence[str] = (),
):
    """Loss of a batch of B images.

    No target of the size cells x classes is built: every cell pays the negative term, and the
    positives' few pairs replace it by their own.

    Args:
        logits: float32 [B, N, C] class scores before the sigmoid.
        offsets: float32 [B, N, 4], see `boxes.encode`.
        batch: boxes float32 [B, G, 4] (xyxy pixels), labels int [B, G], valid bool [B, G], ignore
            bool [B, G].
        weights: scalars `class`, `box`, `offset` of the three parts.
        grid: geometry of the N cells.
        axes: of a mesh that the batch is spread over: these are a shard's images, and all that is
            returned is its part of a sum.

    Returns:
        The loss f32[] and its parts: class_loss, box_loss, offset_loss, positives (a count of
        pairs).
    """
    cells, strides = jnp.asarray(grid.centers), jnp.asarray(grid.stride)
    boxes = decode(offsets, cells, strides)
    pairs = jax.vmap(partial(assign, grid=grid))(
        *lax.stop_gradient((jax.nn.sigmoid(logits), boxes)),
        batch["boxes"],
        batch["labels"],
        batch["valid"],
    )
    keep, target = pairs.keep, pairs.target  # [B, G, P]

    # Of the whole batch, over all its shards: an image may be empty.
    quality = jnp.maximum(lax.psum(target.sum(), axes), 1)

    # b n c -> b g p, the logit of each pair's own class
    image = jnp.arange(logits.shape[0])[:, None, None]
    label = jnp.broadcast_to(batch["labels"][:, :, None], pairs.cell.shape)
    logit = logits[image, pairs.cell, label]
    counted = ~covered(jnp.where(batch["ignore"][..., None], batch["boxes"], 0), grid)  # [B, N]
    negative = (focal(logits, 0.0) * counted[..., None]).sum()
    replaced = focal(logit, target) - focal(logit, 0.0) * jnp.take_along_axis(
        counted, pairs.cell.reshape(counted.shape[0], -1), 1
    ).reshape(keep.shape)
    class_loss = (negative + jnp.where(keep, replaced, 0).sum()) / quality

    # Boxes are weighted by their target, so that well-placed cells shape them most. A padding pair
    # is given a unit box first: the `where` on the inputs keeps NaN out of the gradient.
    unit = jnp.array([0.0, 0.0, 1.0, 1.0])
    truth = jnp.where(keep[..., None], batch["boxes"][:, :, None], unit)
    predicted = offsets[image, pairs.cell]
    decoded = jnp.where(
        keep[..., None], decode(predicted, cells[pairs.cell], strides[pairs.cell]), unit
    )
    wanted = encode(truth, cells[pairs.cell], strides[pairs.cell])
    box_loss = (jnp.where(keep, target, 0) * (1 - diou(decoded, truth))).sum() / quality
    offset_loss = (jnp.where(keep, target, 0) * jnp.abs(predicted - wanted).sum(-1)).sum() / quality

    loss = (
        weights["class"] * class_loss + weights["box"] * box_loss + weights["offset"] * offset_loss
    )
    parts = {"class_loss": class_loss, "box_loss": box_loss, "offset_loss": offset_loss}
    return loss, {**parts, "positives": keep.sum()}


def focal(logit: Array, target) -> Array:
    """Quality focal loss, |target - p|^2 BCE(p, target) (arXiv 2006.04388, eq. 3, beta = 2);
    elementwise.
    """
    p = jax.nn.sigmoid(logit)
    cross_entropy = jax.nn.softplus(logit) - logit * target
    return (target - p) ** 2 * cross_entropy


def covered(boxes: Array, grid: Grid) -> Array:
    """Cells that lie in any of the boxes [B, G, 4] -> bool [B, N]; an empty box covers none.

    A box smaller than a cell is widened to one, or it would mostly fall between the cells' centers
    and its object be punished as background. A box covers the outer product of an interval of rows
    and one of columns, so the cells x boxes matrix is never made: one small matrix product a level.
    """
    center, size = center_size(boxes)
    there = (size > 0).all(-1)[..., None]  # [B, G, 1]
    levels = []
    for stride, (h, w) in zip(grid.strides, grid.shapes, strict=True):
        half = jnp.maximum(size, stride) / 2
        low, high = center - half, center + half
        x, y = ((jnp.arange(n) + 0.5) * stride for n in (w, h))
        columns = (x >= low[..., :1]) & (x < high[..., :1])  # [B, G, w]
        rows = (y >= low[..., 1:]) & (y < high[..., 1:]) & there  # [B, G, h]
        hits = jnp.einsum("bgh,bgw->bhw", rows.astype(jnp.float32), columns.astype(jnp.float32))
        levels.append(hits.reshape(boxes.shape[0], h * w) > 0)
    return jnp.concatenate(levels, 1)
