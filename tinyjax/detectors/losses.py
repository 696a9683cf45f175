"""The detection loss: quality focal loss of classes, DIoU and L1 of boxes, in float32."""

from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from tinyjax.detectors.boxes import center_size, decode, diou, encode
from tinyjax.detectors.grid import Grid
from tinyjax.detectors.long_tail import EQUAL_CLASSES, ClassTerms
from tinyjax.detectors.matching import assign, take_class
from tinyjax.ops.gather import take_last, take_rows


@jax.named_scope("loss")
def detection_loss(
    logits: Array,
    offsets: Array,
    batch: Mapping[str, Array],
    weights: Mapping[str, Array],
    grid: Grid,
    axes: Sequence[str] = (),
    classes: ClassTerms = EQUAL_CLASSES,
):
    """Return the loss of a batch of B images.

    No dense target [cells, classes] is built. The class loss sums the negative term over all cells
    and classes, and then replaces it by the positive term for the few positive pairs.

    Args:
        logits: float32 [B, N, C] class scores before the sigmoid.
        offsets: float32 [B, N, 4], see `boxes.encode`.
        batch: boxes float32 [B, G, 4] (xyxy pixels), labels int [B, G], valid bool [B, G], ignore
            bool [B, G].
        weights: scalars `class`, `box` and `offset`, weights of the three terms.
        grid: geometry of the N cells.
        axes: mesh axes that the batch is sharded over; `batch` is then one shard, and the
            results must be summed over shards.
        classes: of the class loss.

    Returns:
        The loss f32[], and a dict with its terms class_loss, box_loss and offset_loss, and with
        positives, the number of positive pairs.
    """
    centers, strides = jnp.asarray(grid.cell_centers), jnp.asarray(grid.cell_strides)
    boxes = decode(offsets, centers, strides)
    pairs = jax.vmap(partial(assign, grid=grid))(
        *lax.stop_gradient((jax.nn.sigmoid(logits), boxes)),
        batch["boxes"],
        batch["labels"],
        batch["valid"],
    )
    positive, target = pairs.is_positive, pairs.target  # [B, G, P]

    # Losses are normalized over all shards of the batch: a single image may have no object.
    total_quality = jnp.maximum(lax.psum(target.sum(), axes), 1)

    ignored_boxes = jnp.where(batch["ignore"][..., None], batch["boxes"], 0)
    not_ignored = ~covered_cells(ignored_boxes, grid)  # [B, N]
    negatives = jnp.where(classes.included, quality_focal_loss(logits, 0.0), 0)
    negative = (negatives * not_ignored[..., None]).sum()

    # For each pair, the logit of its object's class, and its cell in one array.
    logit = jax.vmap(take_class)(logits, pairs.cell, batch["labels"])  # [B, G, P]
    geometry = jnp.concatenate([centers, strides[:, None]], 1)
    geometry = jnp.broadcast_to(geometry, (len(offsets), *geometry.shape))
    cells = jnp.concatenate([offsets, geometry, not_ignored[..., None]], -1)  # [B, N, 8]
    rows = jax.vmap(take_rows)(cells, pairs.cell.reshape(len(offsets), -1))  # [B, G * P, 8]
    rows = rows.reshape(*positive.shape, -1)
    predicted, center, stride, counted = rows[..., :4], rows[..., 4:6], rows[..., 6], rows[..., 7]
    class_weight = jnp.broadcast_to(classes.weight, (len(logits), logits.shape[-1]))
    weight = take_last(class_weight, batch["labels"])[..., None]  # [B, G, 1]
    replacement = weight * quality_focal_loss(logit, target)
    replacement -= quality_focal_loss(logit, 0.0) * counted
    class_loss = (negative + jnp.where(positive, replacement, 0).sum()) / total_quality

    # Box terms are weighted by the target, so that the best cells have the largest weight. Pairs
    # that are not positive get a unit box: `where` on the inputs keeps NaN out of the gradient,
    # `where` on the loss would not.
    unit = jnp.array([0.0, 0.0, 1.0, 1.0])
    truth = jnp.where(positive[..., None], batch["boxes"][:, :, None], unit)
    decoded = jnp.where(positive[..., None], decode(predicted, center, stride), unit)
    expected = encode(truth, center, stride)
    box_loss = (jnp.where(positive, target, 0) * (1 - diou(decoded, truth))).sum() / total_quality
    distance = jnp.abs(predicted - expected).sum(-1)
    offset_loss = (jnp.where(positive, target, 0) * distance).sum() / total_quality

    loss = (
        weights["class"] * class_loss + weights["box"] * box_loss + weights["offset"] * offset_loss
    )
    terms = {"class_loss": class_loss, "box_loss": box_loss, "offset_loss": offset_loss}
    return loss, {**terms, "positives": positive.sum()}


def quality_focal_loss(logit: Array, target) -> Array:
    """Elementwise |target - p|^2 BCE(p, target) (arXiv 2006.04388, eq. 3, beta = 2)."""
    p = jax.nn.sigmoid(logit)
    cross_entropy = jax.nn.softplus(logit) - logit * target
    return (target - p) ** 2 * cross_entropy


def covered_cells(boxes: Array, grid: Grid) -> Array:
    """Return whether a cell's center lies in any of the boxes: [B, G, 4] -> bool [B, N].

    Empty boxes cover no cell. A box smaller than a cell is enlarged to the size of a cell:
    otherwise it would often contain no cell center, and its object would be trained as background.
    A box covers an interval of rows times an interval of columns, so one small matrix product per
    level suffices, without a matrix of cells x boxes.
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
        num_boxes = jnp.einsum(
            "bgh,bgw->bhw", rows.astype(jnp.float32), columns.astype(jnp.float32)
        )
        levels.append(num_boxes.reshape(boxes.shape[0], h * w) > 0)
    return jnp.concatenate(levels, 1)
