"""Batches as a pure function of (seed, step): the data position is the step, so nothing about the
input is saved.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from tinyjax.ops.hash import hashed

ROUNDS = 8  # of a shuffle


def stream_key(seed: Array, name: str) -> Array:
    """The key of one of a member's streams of random numbers: streams share no draw."""
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def draws(seed: Array, step: Array) -> Array:
    """The key of all that a member draws at random in a step, save its batch."""
    return jax.random.fold_in(stream_key(seed, "draws"), step)


class Streamed(NamedTuple):
    """A batch that comes from outside step by step, the same for all members: arrays [B, ...], of
    which a shard has its own rows.
    """

    rows: dict[str, Any]


class Whole(NamedTuple):
    """The same, of which every shard has all rows."""

    rows: dict[str, Any]


def batch_at(
    data: Mapping[str, Array] | Streamed | Whole,
    part: Mapping[str, Any],
    seed: Array,
    step: Array,
    batch: int,
    axes: Sequence[str] = (),
) -> dict[str, Array]:
    """A member's batch of step `step`, of a mesh's `axes` its own rows.

    data: the training set, arrays [N, ...]; or this very batch. part: what the member has of it,
    perhaps `used`, see `batch_indices`, and `own`: arrays in the place of those of `data`.
    """
    if isinstance(data, Streamed | Whole):
        return data.rows
    n = len(next(iter(data.values())))
    index = batch_indices(seed, step, batch, n, part.get("used"))
    return gather({**data, **part.get("own", {})}, own_rows(index, axes))


def batch_indices(seed: Array, step: Array, batch: int, n: int, used: Array | None = None) -> Array:
    """Which samples step `step` sees: consecutive pieces of one shuffle per epoch, with no sample
    dropped.

    Args:
        seed: uint32 or int32 scalar, the member's.
        step: int32 scalar, counted from 0.
        batch: samples per step, at most `n`.
        n: size of the set.
        used: int32 [n], the samples there are for this member, at least `batch`, and then -1; None:
            all of them.

    Returns:
        int32 [batch]; a batch that straddles two epochs takes from both shuffles.
    """
    if batch > n:
        raise ValueError(f"a batch of {batch} from {n} samples: at most {n}")
    position, size = step * batch + jnp.arange(batch), n if used is None else (used >= 0).sum()
    epoch, place = position // size, position % size
    order = stream_key(seed, "order")
    keys = jnp.stack([jax.random.fold_in(order, epoch[0] + i) for i in range(2)])
    place = shuffled(keys[epoch - epoch[0]], place, size)
    return place if used is None else used[place]


def shuffled(keys: Array, place: Array, size: ArrayLike) -> Array:
    """Where shuffles of 0 .. `size` - 1, each by its key, take these places: int32, as `place`.

    A Feistel network over the smallest square grid that holds them all, walked until it comes to
    one of them (Black and Rogaway 2002): no row of `size` numbers is ever made, whose sorting took
    a fifth of a small network's step.
    """
    rounds = jax.vmap(lambda key: jax.random.bits(key, (ROUNDS,), jnp.uint32))(keys).T
    side = jnp.ceil(jnp.sqrt(jnp.asarray(size, jnp.float32))).astype(jnp.uint32)

    def once(x):
        left, right = x // side, x % side
        for key in rounds:
            left, right = right, (left + hashed(right, key) % side) % side
        return left * side + right

    def out(x):
        return x >= jnp.asarray(size, jnp.uint32)

    walked = jax.lax.while_loop(
        lambda x: out(x).any(),
        lambda x: jnp.where(out(x), once(x), x),
        once(place.astype(jnp.uint32)),
    )
    return walked.astype(jnp.int32)


def own_rows(whole: Array, axes: Sequence[str] = ()) -> Array:
    """A shard's rows of an array [batch, ..], where batches are spread over these axes of a mesh.

    They are a piece of the first half and, mirrored, the same piece of the second: a row and the
    one opposite, which may be mixed with it, stay together, and are opposite in the shard.
    """
    if not axes:
        return whole
    return whole[rows_of(jax.lax.axis_index(axes), jax.lax.axis_size(axes), len(whole))]


def rows_of(shard: ArrayLike, shards: int, batch: int) -> Array:
    """The numbers of its rows, see `own_rows`: int32 [batch / shards]."""
    half = batch // shards // 2
    first = shard * half + jnp.arange(half)
    return jnp.concatenate([first, batch - 1 - first[::-1]])


def gather(arrays: dict[str, Array], index: Array) -> dict[str, Array]:
    """Samples `index` [B] of a set that lives on the device, each array [N, ...] -> [B, ...]."""
    return {name: array[index] for name, array in arrays.items()}
