"""Batches of P identities with K visible and K infrared images each, as functions of (seed, step).

"P x K" sampling is that of AGW (arXiv 2001.04193), which draws images independently. Here
identities and the images of each identity come from shuffled epochs, so that none is left out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from tinyjax.data.sampling import permute, stream_key
from tinyjax.errors import UserError, shorten

VISIBLE, INFRARED = 0, 1


class IdentityTables(NamedTuple):
    """The images of I identities. Identities that have images of both modalities come first; the
    rows after them are 0.
    """

    images: ArrayLike  # int32 [I, 2, max], indices of samples by identity and modality, 0-padded
    counts: ArrayLike  # int32 [I, 2]


def identity_tables(
    labels: np.ndarray,
    modality: np.ndarray,
    classes: Sequence[str],
    identities_per_batch: int,
    mask: np.ndarray | None = None,
) -> tuple[IdentityTables, tuple[str, ...]]:
    """The tables that `sample_identities` draws from, on the host.

    Args:
        labels: int [N], the identity of each sample.
        modality: uint8 [N], 0 visible, 1 infrared.
        classes: names of the I identities.
        identities_per_batch: P.
        mask: bool [N], the samples to use; the shapes of the tables do not depend on it.

    Returns:
        The tables, and the names of the identities that are left out because they have no image of
        one modality.

    Raises UserError if fewer than P identities remain.
    """
    sizes = _count_images(labels, modality, len(classes))
    mask = np.ones(len(labels), bool) if mask is None else mask
    counts = _count_images(labels[mask], modality[mask], len(classes))
    complete = counts.min(1) > 0
    left_out = tuple(name for name, keep in zip(classes, complete, strict=True) if not keep)
    if complete.sum() < identities_per_batch:
        incomplete = f"; {shorten(left_out)} lack one of them" if left_out else ""
        raise UserError(
            f"batch: {identities_per_batch} identities per batch, but only {complete.sum()} for "
            f"training have visible and infrared images{incomplete}; use at most as many"
        )
    images = np.zeros((len(classes), 2, sizes.max()), np.int32)
    row = np.cumsum(complete) - 1  # of each complete identity
    for label in np.flatnonzero(complete):
        for m in (VISIBLE, INFRARED):
            indices = np.flatnonzero(mask & (labels == label) & (modality == m))
            images[row[label], m, : len(indices)] = indices
    table_counts = np.zeros_like(counts)
    table_counts[: complete.sum()] = counts[complete]
    return IdentityTables(images, table_counts), left_out


def _count_images(labels, modality, num_identities):
    """int32 [I, 2]"""
    pairs = 2 * labels.astype(np.int64) + modality
    return np.bincount(pairs, minlength=2 * num_identities).reshape(-1, 2).astype(np.int32)


def sample_identities(
    seed: Array, step: Array, tables: IdentityTables, identities: int, images: int
) -> Array:
    """The sample indices of step `step`: int32 [2 * P * K], visible and then infrared images.

    The I identities of the tables are drawn in epochs of ceil(I / P) steps. A batch has P different
    identities. Every identity occurs once per epoch; if P does not divide I, the last batch repeats
    identities from the start of the epoch. The n images of an identity and modality are drawn in
    the same manner, K per epoch of identities: every image occurs once in ceil(n / K) epochs, and a
    batch has an image twice only if n < K.

    Rows i and i + P * K have the same identity. If K is even, rows i and 2 * P * K - 1 - i do, too,
    so that each shard of `data.sampling.shard_rows` has the same identities in both modalities.

    Args:
        seed: the member's seed, uint32 or int32 scalar.
        step: int32 scalar, counted from 0.
        tables: at least P complete identities.
        identities, images: P and K.
    """
    table, counts = (jnp.asarray(array) for array in tables)
    num_identities = (counts[:, VISIBLE] > 0).sum()
    drawn = _draw(stream_key(seed, "identities"), step, identities, num_identities)
    epoch = step // -(-num_identities // identities)

    keys = jax.vmap(jax.random.fold_in, (None, 0))(stream_key(seed, "images"), drawn)
    keys = jax.vmap(lambda key: jax.random.split(key))(keys)  # [P, 2]
    draw_images = jax.vmap(jax.vmap(lambda key, n: _draw(key, epoch, images, n)))
    positions = draw_images(keys, counts[drawn])  # [P, 2, K]

    slot = np.arange(identities * images)
    column, image = slot % identities, slot // identities
    identity = np.where(2 * image < images, column, identities - 1 - column)
    index = jnp.take_along_axis(table[drawn], positions, 2)[identity, :, image]  # [P * K, 2]
    return index.T.reshape(-1)


def _draw(key: Array, turn: Array, count: int, size: Array) -> Array:
    """int32 [count], the items of turn `turn` out of 0 .. `size` - 1: consecutive slices of one
    shuffle per epoch of ceil(size / count) turns. The last slice continues at the shuffle's start.
    """
    turns = -(-size // count)
    offset = (turn % turns * count + jnp.arange(count)) % size
    epoch_key = jax.random.fold_in(key, turn // turns)
    return permute(jnp.broadcast_to(epoch_key, (count,)), offset, size)
