"""Pulls of a backbone toward its starting weights. In a step of rate r a weight w moves by

    - r s (w - start),    s = min(strength * importance, 1 / r),

that is down the gradient of 1/2 s (w - start)^2, and at most all the way back. The importance of a
weight is 1 (L2-SP, arXiv 1802.01483), or measured on batches before training:

    ewc     the mean of |gradient|: what Mind the Backbone calls EWC (arXiv 2303.14744)
    fisher  the mean of an example's squared gradient: EWC (arXiv 1612.00796)
    rgn     the relative gradient norm of its kernel: Mind the Backbone's own
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from tinyjax.transfer import rgn
from tinyjax.transfer.freezing import PRESETS

NAMES = ("l2sp", "ewc", "fisher", "rgn")


def is_regularized(path: str) -> bool:
    """Whether a parameter is: those of the backbone's stem and stages are."""
    return bool(re.fullmatch(PRESETS["backbone"], path))


def importance(
    kind: str, loss: Callable[..., Array], params: Mapping[str, Array], batch: Any
) -> dict[str, Array]:
    """Of one batch, path -> array in the shape of the weights; the mean over batches counts.

    loss: (params, batch, alone) -> scalar; alone: of one example, BatchNorm by its running moments.
    """
    if kind == "fisher":

        def squared(example):
            own = jax.tree.map(lambda leaf: leaf[None], example)
            return jax.tree.map(jnp.square, jax.grad(loss)(params, own, True))

        return jax.tree.map(lambda leaf: leaf.mean(0), jax.lax.map(squared, batch))
    gradient = jax.grad(loss)(params, batch, False)
    of = {"ewc": lambda g, w: jnp.abs(g), "rgn": rgn.of_kernels}[kind]
    return {
        path: jnp.broadcast_to(of(gradient[path], leaf), leaf.shape)
        for path, leaf in params.items()
    }


def stiffness(strength: Array, importance: Array, rate: Array) -> Array:
    """s of the formula above. At a rate of 0 there is nothing to hold back."""
    return jnp.minimum(strength * importance, 1 / rate)


def penalty(stiffness: Array, weights: Array, start: Array) -> Array:
    """1/2 sum of s (w - start)^2."""
    return (stiffness * (weights - start) ** 2).sum() / 2
