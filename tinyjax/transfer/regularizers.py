"""Regularizers of a backbone toward its starting weights.

In a step with learning rate r, a weight w moves by

    - r s (w - start),    s = min(strength * importance, 1 / r),

a gradient step on 1/2 s (w - start)^2 that never overshoots the start. The importance of a weight
is 1 (L2-SP, arXiv 1802.01483), or measured on batches before training:

    ewc     the mean of |gradient|, which Mind the Backbone calls EWC (arXiv 2303.14744)
    fisher  the mean over examples of the squared gradient: EWC (arXiv 1612.00796)
    rgn     the relative gradient norm of its kernel, proposed by Mind the Backbone
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from tinyjax.transfer import rgn
from tinyjax.transfer.freezing import PRESETS

REGULARIZERS = ("l2sp", "ewc", "fisher", "rgn")


def is_regularized(path: str) -> bool:
    """Return whether a parameter is regularized: it is in the backbone's stem or stages."""
    return bool(re.fullmatch(PRESETS["backbone"], path))


def measure_importance(
    regularizer: str, loss: Callable[..., Array], params: Mapping[str, Array], batch: Any
) -> dict[str, Array]:
    """Return the importances on one batch, to be averaged over batches.

    Args:
        regularizer: "ewc", "fisher" or "rgn".
        loss: (params, batch, running_stats) -> scalar. `running_stats` is True for a batch of one
            example: BatchNorm must then normalize with its running statistics.

    Returns:
        path -> array in the shape of the parameter.
    """
    if regularizer == "fisher":

        def squared_gradient(example):
            batch_of_one = jax.tree.map(lambda leaf: leaf[None], example)
            return jax.tree.map(jnp.square, jax.grad(loss)(params, batch_of_one, True))

        squares = jax.lax.map(squared_gradient, batch)
        return jax.tree.map(lambda leaf: leaf.mean(0), squares)
    gradient = jax.grad(loss)(params, batch, False)
    measure = {"ewc": lambda g, w: jnp.abs(g), "rgn": rgn.kernel_rgn}[regularizer]
    return {
        path: jnp.broadcast_to(measure(gradient[path], leaf), leaf.shape)
        for path, leaf in params.items()
    }


def penalty_coefficients(strength: Array, importance: Array, lr: Array) -> Array:
    """Return s of the module's formula. It is not capped at a learning rate of 0."""
    return jnp.minimum(strength * importance, 1 / lr)


def penalty(coefficients: Array, weights: Array, start: Array) -> Array:
    """Return the sum of 1/2 s (w - start)^2."""
    return (coefficients * (weights - start) ** 2).sum() / 2
