"""Class weights and class masks of losses for sets with many rare classes."""

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict


class ClassTerms(NamedTuple):
    """Which classes a class loss has, and with which weights; by default all, with equal ones."""

    weight: Array | float = 1.0  # float [K], of positives of each class; negatives have weight 1
    included: Array | bool = True  # bool [K]; the other classes have no loss in this batch


EQUAL_CLASSES = ClassTerms()


def class_terms(
    key: Array,
    batch: Mapping[str, Array],
    weights: Mapping[str, Array],
    config: ConfigDict,
    axes: Sequence[str] = (),
) -> ClassTerms:
    """Return the terms of a batch by `config.loss`: class-balanced weights, federated loss.

    Args:
        key: the same on all shards.
        batch: labels int [B, G] and valid bool [B, G], of this shard.
        weights: with class_weights [K] and image_counts [K], see `loss_arrays`, where they are
            used.
        axes: mesh axes that the batch is spread over.
    """
    terms = EQUAL_CLASSES
    if config.loss.class_balance:
        terms = terms._replace(weight=weights["class_weights"])
    if num_classes := config.loss.federated_classes:
        key = jax.random.fold_in(key, zlib.crc32(b"federated"))
        labels, valid, counts = batch["labels"], batch["valid"], weights["image_counts"]
        included = federated_mask(key, labels, valid, counts, num_classes, axes=axes)
        terms = terms._replace(included=included)
    return terms


def loss_arrays(
    image_counts: Sequence[int], object_counts: Sequence[int], config: ConfigDict
) -> dict[str, np.ndarray]:
    """Return the arrays float32 [K] that `class_terms` reads.

    image_counts, object_counts: of each class in the training set.
    """
    balanced = class_balanced_weights(np.array(object_counts), config.loss.class_balance)
    arrays = {"class_weights": balanced, "image_counts": np.array(image_counts)}
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def class_balanced_weights(counts: np.ndarray, beta: float) -> np.ndarray:
    """Return a loss weight for each class: float64 [K], with mean 1.

    The weights are proportional to (1 - beta) / (1 - beta^n) (Cui et al., "Class-Balanced Loss",
    arXiv 1901.05555): equal for beta = 0, about 1 / n for beta near 1. Classes without objects have
    weight 0, and the mean is over the others.

    counts: int [K], the number n of training objects of each class. beta: in [0, 1).
    """
    counts = np.asarray(counts, np.float64)
    weights = np.zeros_like(counts)
    trained = counts > 0
    if trained.any():
        weights[trained] = (1 - beta) / (1 - beta ** counts[trained])
        weights /= weights[trained].mean()
    return weights


def federated_mask(
    key: Array,
    labels: Array,
    valid: Array,
    image_counts: Array,
    num_classes: int = 50,
    power: float = 0.5,
    axes: Sequence[str] = (),
) -> Array:
    """Return the classes that the federated loss of a batch includes: bool [K].

    These are the classes in the batch and, if they are fewer than `num_classes`, others up to this
    number, drawn without replacement with probabilities proportional to image_counts^power (Zhou et
    al., arXiv 2103.07461; `get_fed_loss_inds` in Detectron2). A class without images is not drawn.

    Args:
        key: the same on all shards.
        labels: int [...], the labels of this shard's objects.
        valid: bool, in the shape of `labels`; False marks padding.
        image_counts: [K], the number of training images with each class.
        axes: mesh axes that the batch is spread over.
    """
    count = (
        jnp.zeros(image_counts.shape, jnp.int32)
        .at[labels.ravel()]
        .add(valid.ravel().astype(jnp.int32))
    )
    present = (jax.lax.psum(count, tuple(axes)) if axes else count) > 0
    # The largest sums of log weight and Gumbel noise are a draw without replacement.
    log_weight = power * jnp.log(image_counts.astype(jnp.float32))
    sort_key = jnp.where(present, jnp.inf, log_weight + jax.random.gumbel(key, present.shape))
    largest, index = jax.lax.top_k(sort_key, min(num_classes, len(present)))
    return present.at[index].max(largest > -jnp.inf)
