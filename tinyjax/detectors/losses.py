"""The detection loss: quality focal loss on classes, DIoU and L1 on boxes, in float32 and in fixed
shapes.
"""

from collections.abc import Mapping, Sequence
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
    batch: Mapping[str, Array],
    weights: Mapping[str, Array],
    grid: Grid,
    axes: Sequence[str] = (),
):
    """Loss of a batch of B images.

    No dense target [cells, classes] is built: all cells have the negative term, and the few
    positive pairs replace it with their positive term.

    Args:
        logits: float32 [B, N, C] class scores before the sigmoid.
        offsets: float32 [B, N, 4], see `boxes.encode`.
        batch: boxes float32 [B, G, 4] (xyxy pixels), labels int [B, G], valid bool [B, G], ignore
            bool [B, G].
        weights: scalars `class`, `box` and `offset`, weights of the three terms.
        grid: geometry of the N cells.
        axes: mesh axes that the batch is spread over; `batch` is then a shard, and all returned
            values are its terms of sums.

    Returns:
        The loss f32[] and its terms: class_loss, box_loss, offset_loss, and positives, the number
        of positive pairs.
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

    # Normalized by the whole batch, over all its shards: an image may have no object.
    quality = jnp.maximum(lax.psum(target.sum(), axes), 1)

    # b n c -> b g p: the logit of the class of each pair's object
    image = jnp.arange(logits.shape[0])[:, None, None]
    label = jnp.broadcast_to(batch["labels"][:, :, None], pairs.cell.shape)
    logit = logits[image, pairs.cell, label]
    counted = ~covered(jnp.where(batch["ignore"][..., None], batch["boxes"], 0), grid)  # [B, N]
    negative = (focal(logits, 0.0) * counted[..., None]).sum()
    replaced = focal(logit, target) - focal(logit, 0.0) * jnp.take_along_axis(
        counted, pairs.cell.reshape(counted.shape[0], -1), 1
    ).reshape(keep.shape)
    class_loss = (negative + jnp.where(keep, replaced, 0).sum()) / quality

    # Box terms are weighted by the target, so that well-placed cells count most. Padding pairs get
    # a unit box: a `where` on the inputs, unlike one on the loss, keeps NaN out of the gradient.
    unit = jnp.array([0.0, 0.0, 1.0, 1.0])
    truth = jnp.where(keep[..., None], batch["boxes"][:, :, None], unit)
    predicted = offsets[image, pairs.cell]
    decoded = jnp.where(
        keep[..., None], decode(predicted, cells[pairs.cell], strides[pairs.cell]), unit
    )
    expected = encode(truth, cells[pairs.cell], strides[pairs.cell])
    box_loss = (jnp.where(keep, target, 0) * (1 - diou(decoded, truth))).sum() / quality
    distance = jnp.abs(predicted - expected).sum(-1)
    offset_loss = (jnp.where(keep, target, 0) * distance).sum() / quality

    loss = (
        weights["class"] * class_loss + weights["box"] * box_loss + weights["offset"] * offset_loss
    )
    terms = {"class_loss": class_loss, "box_loss": box_loss, "offset_loss": offset_loss}
    return loss, {**terms, "positives": keep.sum()}


def focal(logit: Array, target) -> Array:
    """Quality focal loss, |target - p|^2 BCE(p, target) (arXiv 2006.04388, eq. 3, beta = 2);
    elementwise.
    """
    p = jax.nn.sigmoid(logit)
    cross_entropy = jax.nn.softplus(logit) - logit * target
    return (target - p) ** 2 * cross_entropy


def covered(boxes: Array, grid: Grid) -> Array:
    """Whether a cell's center lies in any of the boxes: [B, G, 4] -> bool [B, N].

    Empty boxes cover no cell. A box smaller than a cell is widened to the cell's size: otherwise it
    would mostly fall between cell centers, and its object would be trained as background. A box
    covers an interval of rows times an interval of columns, so one small matrix product per level
    replaces a matrix of cells x boxes.
    """
    center, size = center_size(boxes)
    nonempty = (size > 0).all(-1)[..., None]  # [B, G, 1]
    levels = []
    for stride, (h, w) in zip(grid.strides, grid.shapes, strict=True):
        half = jnp.maximum(size, stride) / 2
        low, high = center - half, center + half
        x, y = ((jnp.arange(n) + 0.5) * stride for n in (w, h))
        columns = (x >= low[..., :1]) & (x < high[..., :1])  # [B, G, w]
        rows = (y >= low[..., 1:]) & (y < high[..., 1:]) & nonempty  # [B, G, h]
        hits = jnp.einsum("bgh,bgw->bhw", rows.astype(jnp.float32), columns.astype(jnp.float32))
        levels.append(hits.reshape(boxes.shape[0], h * w) > 0)
    return jnp.concatenate(levels, 1)
