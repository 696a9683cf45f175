"""Random samples of anchors or proposals with fixed shapes."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from tinyjax.data.sampling import shard_rows


class Sample(NamedTuple):
    """K slots: positives first, then negatives, then empty slots."""

    indices: Array  # int32 [K]; arbitrary, but in range, in empty slots
    is_positive: Array  # bool [K]
    is_valid: Array  # bool [K], False in empty slots


def balanced_sample(
    key: Array, is_positive: Array, is_negative: Array, size: int, max_positives: int
) -> Sample:
    """Sample candidates of one image without replacement, as torchvision's
    `BalancedPositiveNegativeSampler` does.

    All positives are taken, or `max_positives` random ones; random negatives fill the other slots.
    Each subset of the right size is equally likely, because the candidates with the largest of
    independent random numbers are taken.

    Args:
        is_positive, is_negative: bool [N], disjoint.
        size: K, number of slots; K may exceed N.
        max_positives: at most `size`.
    """
    n = len(is_positive)
    numbers = jax.random.uniform(key, (n,))

    def choose(is_candidate, count):
        _, index = lax.top_k(jnp.where(is_candidate, numbers, -1), min(count, n))
        return index, jnp.minimum(is_candidate.sum(), count)

    positives, num_positives = choose(is_positive, max_positives)
    negatives, num_negatives = choose(is_negative, size)
    slot = jnp.arange(size)
    from_positives = slot < num_positives
    index = jnp.where(
        from_positives,
        positives[jnp.minimum(slot, len(positives) - 1)],
        negatives[jnp.clip(slot - num_positives, 0, len(negatives) - 1)],
    )
    return Sample(index, from_positives, slot < num_positives + num_negatives)


def image_keys(key: Array, num_images: int, axes: Sequence[str] = ()) -> Array:
    """Return a key for each of a shard's images [B], whose draws do not depend on the sharding.

    axes: mesh axes that the batch is sharded over.
    """
    return shard_rows(jax.random.split(key, num_images * lax.axis_size(axes)), axes)
