"""Batches and random keys as pure functions of (seed, step).

The step is the position in the data, so a checkpoint holds no state of the input.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from tinyjax.ops.hash import hash_uint32

FEISTEL_ROUNDS = 8


def stream_key(seed: Array, name: str) -> Array:
    """The key of a member's random stream `name`; streams of different names are independent."""
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def step_key(seed: Array, step: Array) -> Array:
    """The key of all of a member's random draws in a step, except the choice of its batch."""
    return jax.random.fold_in(stream_key(seed, "draws"), step)


class StreamedBatch(NamedTuple):
    """A batch read from disk for one step, the same for all members: arrays [B, ...], sharded by
    row.
    """

    rows: dict[str, Any]


class ReplicatedBatch(NamedTuple):
    """As `StreamedBatch`, but each shard holds all rows."""

    rows: dict[str, Any]


def shuffled_epochs(
    seed: Array, step: Array, config: Any, data: Mapping[str, Array], subset: Array | None = None
) -> Array:
    """A `Task.sample` that does not depend on the labels: `batch_indices` over `data`."""
    return batch_indices(seed, step, config.batch, len(next(iter(data.values()))), subset)


def batch_indices(
    seed: Array, step: Array, batch_size: int, n: int, subset: Array | None = None
) -> Array:
    """The sample indices of step `step`: consecutive slices of one shuffle per epoch. No sample is
    dropped.

    Args:
        seed: the member's seed, uint32 or int32 scalar.
        step: int32 scalar, counted from 0.
        batch_size: at most `n`.
        n: number of samples in the data set.
        subset: int32 [L], the indices of the samples of the member's epochs, at least `batch_size`
            of which are different, padded with -1; an index may be repeated. None: all samples.

    Returns:
        int32 [batch_size]; a batch that straddles two epochs takes from both shuffles.

    Raises ValueError if `batch_size` exceeds `n`.
    """
    if batch_size > n:
        raise ValueError(f"a batch of {batch_size} from {n} samples: at most {n}")
    position = step * batch_size + jnp.arange(batch_size)
    size = n if subset is None else (subset >= 0).sum()
    epoch, offset = position // size, position % size
    order = stream_key(seed, "order")
    keys = jnp.stack([jax.random.fold_in(order, epoch[0] + i) for i in range(2)])
    index = permute(keys[epoch - epoch[0]], offset, size)
    return index if subset is None else subset[index]


def permute(keys: Array, positions: Array, size: ArrayLike) -> Array:
    """The values at `positions` of random permutations of 0 .. `size` - 1.

    A Feistel network over the smallest square grid with at least `size` cells, repeated until the
    result is below `size` (cycle walking; Black and Rogaway 2002). Sorting an array of `size` keys
    instead took a fifth of a small network's step time.

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

    def out_of_range(x):
        return x >= jnp.asarray(size, jnp.uint32)

    values = jax.lax.while_loop(
        lambda x: out_of_range(x).any(),
        lambda x: jnp.where(out_of_range(x), feistel(x), x),
        feistel(positions.astype(jnp.uint32)),
    )
    return values.astype(jnp.int32)


def shard_rows(array: Array, axes: Sequence[str] = ()) -> Array:
    """This shard's rows of an array [B, ..] that is sharded over mesh `axes`.

    The rows are a slice of the first half of the batch and the mirrored slice of the second half.
    A row i and its opposite B - 1 - i, which `augmentation.mix` combines, are thus opposites in a
    shard, too.
    """
    if not axes:
        return array
    return array[shard_row_indices(jax.lax.axis_index(axes), jax.lax.axis_size(axes), len(array))]


def shard_row_indices(shard: ArrayLike, num_shards: int, batch_size: int) -> Array:
    """The row indices of `shard_rows`: int32 [batch_size / num_shards]."""
    half = batch_size // num_shards // 2
    first = shard * half + jnp.arange(half)
    return jnp.concatenate([first, batch_size - 1 - first[::-1]])


def gather(arrays: Mapping[str, Any], index: Array) -> dict[str, Array]:
    """Samples `index` [B] of a data set on the device: each array [N, ...] -> [B, ...].

    Entry "tables" is left out, see `Task.device_arrays`.
    """
    return {name: array[index] for name, array in arrays.items() if name != "tables"}
