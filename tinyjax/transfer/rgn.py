"""Relative gradient norm: how large a gradient is against the weights that it would move. Two
definitions go by that name, and have nothing to do with each other's numbers:

    of_kernels  L1 over L1 of each spatial kernel, as the authors of Mind the Backbone compute it
                (arXiv 2303.14744): what is high is held back, see `pull`
    of_tensor   L2 over L2 of a whole tensor, as in surgical fine-tuning (arXiv 2210.11466): what is
                high learns more, see `auto_rates`
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from tinyjax.transfer.freezing import PRESETS

EPSILON = 1e-8  # of Mind the Backbone
MEMORY = 5  # batches that `auto_rates` looks back on; surgical fine-tuning averages over as many
PLACES = ("stem", "expand", "depthwise", "se", "project")  # in a block, from its input on


def of_kernels(gradient: Array, weights: Array) -> Array:
    """Sum of |gradient| over sum of |weights| of each spatial kernel: [h, w, I, O] -> [1, 1, I, O];
    of arrays of any other rank each entry is a kernel.

    Unbounded where weights are near zero: a few of them decide a layer's mean.
    """
    axes = (0, 1) if weights.ndim == 4 else ()
    size = lambda x: jnp.abs(x).sum(axes, keepdims=True)  # noqa: E731
    return size(gradient) / (size(weights) + EPSILON)


def of_tensor(gradient: Array, weights: Array) -> Array:
    """Euclidean norm of the gradient over that of the weights: a scalar, 0 where these are 0."""
    norm = jnp.linalg.norm(weights.ravel())
    return jnp.where(norm > 0, jnp.linalg.norm(gradient.ravel()) / jnp.where(norm > 0, norm, 1), 0)


def measure(loss: Any, params: Mapping[str, Array], batch: Any) -> dict[str, dict[str, Array]]:
    """Both of a batch, path -> array: "kernels" and "tensors". loss: (params, batch) -> scalar."""
    gradient = jax.grad(loss)(params, batch)
    return {
        "kernels": {path: of_kernels(gradient[path], leaf) for path, leaf in params.items()},
        "tensors": {path: of_tensor(gradient[path], leaf) for path, leaf in params.items()},
    }


def auto_rates(ratios: Array, learns: np.ndarray, power: Array) -> Array:
    """Multipliers of the learning rate in 0..1, float32 [tensors]: `of_tensor` over its largest, to
    a power; 1 for what is not in `learns`, and for all if the power is 0.
    """
    part = ratios / jnp.maximum(jnp.where(learns, ratios, 0).max(), jnp.finfo(jnp.float32).tiny)
    return jnp.where(learns, part**power, 1)


def counted(path: str) -> bool:
    """Whether a tensor counts in the number of a backbone: the authors freeze BatchNorm, and leave
    squeeze-excite out.
    """
    return bool(re.fullmatch(PRESETS["backbone"], path)) and not re.search(r"/(bn|se)/", path)


def layers(kernels: Mapping[str, np.ndarray], tensors: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each tensor, along depth: its kernels' mean, median, 5th and 95th percentile, and
    its L2 ratio; arrays are those of a member alone, without padding.
    """
    rows = []
    for path in sorted(kernels, key=depth):
        low, median, high = np.percentile(kernels[path], (5, 50, 95))
        rows.append(
            {
                "path": path,
                "kernels": kernels[path].size,
                "mean": float(kernels[path].mean()),
                "median": float(median),
                "p5": float(low),
                "p95": float(high),
                "l2_ratio": float(tensors[path]),
            }
        )
    return rows


def of_backbone(rows: list[dict[str, Any]]) -> float:
    """The mean over tensors of their means: every tensor counts once, whatever its size."""
    return float(np.mean([row["mean"] for row in rows]))


def depth(path: str) -> tuple:
    """How deep a tensor of the backbone is, to sort by: stage, block, place in the block."""
    found = re.match(r"backbone/(?:stem|stage(\d+)/block(\d+)/(\w+))", path)
    if not found or not found[1]:
        return (0, 0, 0, path) if found else (99, 0, 0, path)
    place = PLACES.index(found[3]) if found[3] in PLACES else len(PLACES)
    return (int(found[1]), int(found[2]), place, path)
