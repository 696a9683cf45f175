"""Batches as a pure function of (seed, step): the data position is the step, so nothing about the
input is saved.
"""

import zlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array


def stream_key(seed: Array, name: str) -> Array:
    """The key of one of a member's streams of random numbers: streams share no draw."""
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def batch_indices(seed: Array, step: Array, batch: int, n: int, used: Array | None = None) -> Array:
    """Which samples step `step` sees: consecutive pieces of one shuffle per epoch, with no sample
    dropped.

    Args:
        seed: uint32 or int32 scalar, the member's.
        step: int32 scalar, counted from 0.
        batch: samples per step, at most `n`.
        n: size of the set.
        used: bool [n], the samples there are for this member, at least `batch`; None: all of them,
            which gives the same order as n times True.

    Returns:
        int32 [batch]; a batch that straddles two epochs takes from both shuffles.
    """
    if batch > n:
        raise ValueError(f"a batch of {batch} from {n} samples: at most {n}")
    position, size = step * batch + jnp.arange(batch), n if used is None else used.sum()
    epoch, place = position // size, position % size

    def shuffle(epoch):
        key = jax.random.fold_in(stream_key(seed, "order"), epoch)
        order = jax.random.permutation(key, n)
        # what is used comes first, in the order that the whole set has
        return order if used is None else order[jnp.argsort(~used[order], stable=True)]

    return jnp.where(epoch == epoch[0], shuffle(epoch[0])[place], shuffle(epoch[0] + 1)[place])


def own_rows(whole: Array, axes: Sequence[str] = ()) -> Array:
    """A shard's rows of an array [batch, ..], where batches are spread over these axes of a mesh.

    They are a piece of the first half and, mirrored, the same piece of the second: a row and the
    one opposite, which may be mixed with it, stay together, and are opposite in the shard.
    """
    if not axes:
        return whole
    half = len(whole) // jax.lax.axis_size(axes) // 2
    first = jax.lax.axis_index(axes) * half + jnp.arange(half)
    return whole[jnp.concatenate([first, len(whole) - 1 - first[::-1]])]


def gather(arrays: dict[str, Array], index: Array) -> dict[str, Array]:
    """Samples `index` [B] of a set that lives on the device, each array [N, ...] -> [B, ...]."""
    return {name: array[index] for name, array in arrays.items()}
