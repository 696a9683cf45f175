"""Batches and random keys as pure functions of (seed, step).

The step is the position in the data, so a checkpoint holds no state of the input.
"""

import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from tinyjax.ops.hash import hash_uint32

FEISTEL_ROUNDS = 8


def stream_key(seed: Array, name: str) -> Array:
    """The key of one of a member's random streams, which are independent by name."""
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def step_key(seed: Array, step: Array) -> Array:
    """The key of a member's random draws in a step, except for the choice of its batch."""
    return jax.random.fold_in(stream_key(seed, "draws"), step)


class StreamedBatch(NamedTuple):
    """A batch read from disk for one step, the same for all members: arrays [B, ...], of which
    each shard holds its own rows.
    """

    rows: dict[str, Any]


class ReplicatedBatch(NamedTuple):
    """As `StreamedBatch`, but each shard holds all rows."""

    rows: dict[str, Any]


def batch_indices(
    seed: Array, step: Array, batch: int, n: int, subset: Array | None = None
) -> Array:
    """The samples of step `step`: consecutive slices of one shuffle per epoch; none is dropped.

    Args:
        seed: uint32 or int32 scalar, the member's.
        step: int32 scalar, counted from 0.
        batch: samples per step, at most `n`.
        n: size of the set.
        subset: int32 [n], the samples that the member draws from, at least `batch`, followed by -1;
            None: all samples.

    Returns:
        int32 [batch]; a batch that straddles two epochs takes from both shuffles.

    Raises ValueError if `batch` exceeds `n`.
    """
    if batch > n:
        raise ValueError(f"a batch of {batch} from {n} samples: at most {n}")
    position, size = step * batch + jnp.arange(batch), n if subset is None else (subset >= 0).sum()
    epoch, offset = position // size, position % size
    order = stream_key(seed, "order")
    keys = jnp.stack([jax.random.fold_in(order, epoch[0] + i) for i in range(2)])
    index = permute(keys[epoch - epoch[0]], offset, size)
    return index if subset is None else subset[index]


def permute(keys: Array, positions: Array, size: ArrayLike) -> Array:
    """The values at `positions` of random permutations of 0 .. `size` - 1.

    A Feistel network over the smallest square grid with at least `size` cells, repeated until the
    result is below `size` (cycle walking; Black and Rogaway 2002). Sorting an array of `size` keys
    instead took a fifth of a small network's step.

    Args:
        keys: typed PRNG keys [n], one per position: each selects a permutation.
        positions: int [n].

    Returns:
        int32 [n].
    """
    rounds = jax.vmap(lambda key: jax.random.bits(key, (FEISTEL_ROUNDS,), jnp.uint32))(keys).T
    side = jnp.ceil(jnp.sqrt(jnp.asarray(size, jnp.float32))).astype(jnp.uint32)

    def feistel(x):
        left, right = x // side, x % side
        for key in rounds:
            left, right = right, (left + hash_uint32(right, key) % side) % side
        return left * side + right

    def outside(x):
        return x >= jnp.asarray(size, jnp.uint32)

    walked = jax.lax.while_loop(
        lambda x: outside(x).any(),
        lambda x: jnp.where(outside(x), feistel(x), x),
        feistel(positions.astype(jnp.uint32)),
    )
    return walked.astype(jnp.int32)


def shard_rows(array: Array, axes: Sequence[str] = ()) -> Array:
    """This shard's rows of an array [batch, ..] that is spread over mesh `axes`.

    The rows are a slice of the first half of the batch and the mirrored slice of the second half:
    a row and its opposite, with which it may be mixed, stay on one shard, again as opposites.
    """
    if not axes:
        return array
    return array[shard_row_indices(jax.lax.axis_index(axes), jax.lax.axis_size(axes), len(array))]


def shard_row_indices(shard: ArrayLike, shards: int, batch: int) -> Array:
    """The row numbers of `shard_rows`: int32 [batch / shards]."""
    half = batch // shards // 2
    first = shard * half + jnp.arange(half)
    return jnp.concatenate([first, batch - 1 - first[::-1]])


def gather(arrays: dict[str, Array], index: Array) -> dict[str, Array]:
    """Samples `index` [B] of a set on the device, each array [N, ...] -> [B, ...]."""
    return {name: array[index] for name, array in arrays.items()}
