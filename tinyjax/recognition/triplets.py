"""Triplet losses over a batch whose first half is visible and second half infrared.

Distances are Euclidean, of features before BNNeck. As in AGW's code, an anchor counts as a positive
of itself. It has an effect if the anchor has no other positive, whose distance is then 0, and in
the softmax of `weighted_triplet`.

In all functions, features are float [B, D], labels int [B], and a loss is a mean over the B
anchors, to which an anchor without a triplet contributes 0. axes: mesh axes that the batch is
sharded over. A shard's anchors are compared with the rows of all shards, and the result is the
shard's term of the mean.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

MIN_SQUARE = 1e-12  # squared distances are clamped, as in AGW: below it, the gradient is 0


@jax.named_scope("loss")
def batch_hard_triplet(
    features: Array, labels: Array, margin: ArrayLike, axes: Sequence[str] = ()
) -> Array:
    """The mean of max(0, furthest positive - closest negative + margin) over all rows, of either
    modality (Hermans et al., arXiv 1703.07737; AGW's baseline with a margin of 0.3).
    """
    candidates, candidate_labels = (_all_rows(array, axes) for array in (features, labels))
    same_identity = labels[:, None] == candidate_labels
    return _batch_hard(features, candidates, same_identity, ~same_identity, margin).sum() / len(
        candidates
    )


@jax.named_scope("loss")
def four_way_triplet(
    features: Array, labels: Array, margin: ArrayLike, axes: Sequence[str] = ()
) -> Array:
    """The mean of four batch-hard losses, by the modality of the anchor and of its candidates:
    visible-visible, infrared-infrared, visible-infrared, infrared-visible.

    Labels and features are those of a batch whose first half of rows is visible, in each shard.
    """
    infrared = jnp.arange(len(labels)) >= len(labels) // 2
    candidates, candidate_labels, candidate_infrared = (
        _all_rows(array, axes) for array in (features, labels, infrared)
    )
    same_identity = labels[:, None] == candidate_labels
    same_modality = infrared[:, None] == candidate_infrared
    within, across = (
        _batch_hard(features, candidates, same_identity & mask, ~same_identity & mask, margin)
        for mask in (same_modality, ~same_modality)
    )
    return (within + across).sum() / (2 * len(candidates))


@jax.named_scope("loss")
def weighted_triplet(features: Array, labels: Array, axes: Sequence[str] = ()) -> Array:
    """The weighted regularized triplet loss of AGW (arXiv 2001.04193): the mean of
    log(1 + exp(positive - negative)), where positive is the mean distance to the positives with
    weights softmax(distance), and negative to the negatives with weights softmax(-distance).
    """
    candidates, candidate_labels = (_all_rows(array, axes) for array in (features, labels))
    distance = pairwise_distances(features, candidates)
    same_identity = labels[:, None] == candidate_labels
    valid = same_identity.any(1) & ~same_identity.all(1)
    # A softmax over nothing is not a number, nor is its gradient.
    positive = _weighted_mean(distance, distance, same_identity | ~valid[:, None])
    negative = _weighted_mean(distance, -distance, ~same_identity | ~valid[:, None])
    return jnp.where(valid, jax.nn.softplus(positive - negative), 0).sum() / len(candidates)


def pairwise_distances(x: Array, y: Array) -> Array:
    """Euclidean distances of x [N, D] from y [M, D]: [N, M], at least sqrt(`MIN_SQUARE`)."""
    # Squared distances are differences of squared norms: smaller norms have smaller errors.
    center = lax.stop_gradient(y.mean(0))
    x, y = x - center, y - center
    product = jnp.matmul(x, y.T, precision="highest")
    return _safe_sqrt((x * x).sum(1)[:, None] + (y * y).sum(1) - 2 * product)


def _batch_hard(features, candidates, positive, negative, margin):
    """The hinge [N] of each anchor.

    features: [N, D]; candidates: [M, D]; positive, negative: bool [N, M].
    """
    distance = lax.stop_gradient(pairwise_distances(features, candidates))
    furthest = jnp.where(positive, distance, -jnp.inf).argmax(1)
    closest = jnp.where(negative, distance, jnp.inf).argmin(1)

    # Not gathered from `distance`, whose small values are less exact.
    def distance_to(index):
        return _safe_sqrt(((features - candidates[index]) ** 2).sum(1))

    hinge = jax.nn.relu(distance_to(furthest) - distance_to(closest) + margin)
    return jnp.where(positive.any(1) & negative.any(1), hinge, 0)


def _weighted_mean(distance, logits, mask):
    """The means [N] of distance [N, M] over `mask`, with weights softmax(logits)."""
    return (jax.nn.softmax(logits, where=mask) * distance).sum(1)


def _safe_sqrt(square):
    return jnp.sqrt(jnp.maximum(square, MIN_SQUARE))


def _all_rows(array, axes):
    """The rows of all shards: [b, ...] -> [B, ...]."""
    return lax.all_gather(array, axes, tiled=True) if axes else array
