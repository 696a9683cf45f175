"""Relative gradient norm: the size of a gradient relative to the weights that it would change.

Two unrelated definitions share the name:

    kernel_rgn  L1 over L1 of each spatial kernel, as the authors of Mind the Backbone compute it
                (arXiv 2303.14744): high values are regularized most, see `regularizers`
    tensor_rgn  L2 over L2 of a whole tensor, as in surgical fine-tuning (arXiv 2210.11466): high
                values learn fastest, see `auto_lr_multipliers`
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from tinyjax.transfer.freezing import PRESETS

EPSILON = 1e-8  # as in Mind the Backbone
AVERAGING_STEPS = 5  # in the running mean of ratios, as in surgical fine-tuning
# Layers of the blocks of all families, from the input to the output.
BLOCK_LAYERS = (
    *("downsample", "conv1", "conv2", "conv3", "ghost1"),
    *("expand", "attention", "depthwise", "se", "project", "ghost2", "mlp", "shortcut"),
)


def kernel_rgn(gradient: Array, weights: Array) -> Array:
    """Return sum |gradient| / sum |weights| of each spatial kernel: [h, w, I, O] -> [1, 1, I, O].

    In arrays of any other rank each entry is a kernel. The ratio is unbounded where weights are
    near zero, so a few kernels can dominate a layer's mean.
    """
    axes = (0, 1) if weights.ndim == 4 else ()
    l1_norm = lambda x: jnp.abs(x).sum(axes, keepdims=True)  # noqa: E731
    return l1_norm(gradient) / (l1_norm(weights) + EPSILON)


def tensor_rgn(gradient: Array, weights: Array) -> Array:
    """Return the Euclidean norm of the gradient over that of the weights: a scalar, 0 if all
    weights are 0.
    """
    norm = jnp.linalg.norm(weights.ravel())
    return jnp.where(norm > 0, jnp.linalg.norm(gradient.ravel()) / jnp.where(norm > 0, norm, 1), 0)


def measure(loss: Any, params: Mapping[str, Array], batch: Any) -> dict[str, dict[str, Array]]:
    """Return both relative norms on one batch, "kernels" and "tensors": path -> array.

    loss: (params, batch) -> scalar.
    """
    gradient = jax.grad(loss)(params, batch)
    return {
        "kernels": {path: kernel_rgn(gradient[path], leaf) for path, leaf in params.items()},
        "tensors": {path: tensor_rgn(gradient[path], leaf) for path, leaf in params.items()},
    }


def auto_lr_multipliers(ratios: Array, mask: np.ndarray, power: Array) -> Array:
    """Return learning rate multipliers in 0..1 from `tensor_rgn` of each tensor: f32[tensors].

    A multiplier is the tensor's ratio over the largest ratio, raised to `power`.

    mask: bool[tensors]; tensors where it is False have multiplier 1, as all do if `power` is 0.
    """
    largest = jnp.where(mask, ratios, 0).max()
    relative = ratios / jnp.maximum(largest, jnp.finfo(jnp.float32).tiny)
    return jnp.where(mask, relative**power, 1)


def in_backbone_rgn(path: str) -> bool:
    """Return whether a tensor counts in `backbone_rgn`: a kernel outside of squeeze-excite.

    The authors freeze BatchNorm and leave out squeeze-excite; that biases, LayerNorm and position
    embeddings do not count either, in the families that have them, is our choice.
    """
    is_backbone = re.fullmatch(PRESETS["backbone"], path)
    return bool(is_backbone) and path.endswith("/kernel") and "/se/" not in path


def layer_rows(
    kernels: Mapping[str, np.ndarray], tensors: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the rows of rgn.csv for one member, one per tensor, in the order of depth.

    kernels, tensors: mean over batches of `measure`, without padding. A row holds the mean, median,
    5th and 95th percentile over kernels, and the tensor's L2 ratio.
    """
    rows = []
    for path in sorted(kernels, key=depth_key):
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


def backbone_rgn(rows: list[dict[str, Any]]) -> float:
    """Return the mean over tensors of their means; every tensor has the same weight."""
    return float(np.mean([row["mean"] for row in rows]))


def depth_key(path: str) -> tuple:
    """Sort key of a tensor of the backbone by depth: stage, block, layer of the block."""
    match = re.match(r"backbone/(?:infrared/)?(?:stem|stage(\d+)/block(\d+)/(\w+))", path)
    if not match:
        return (99, 0, 0, path)
    if not match[1]:
        return (0, 0, 0, path)
    layer = BLOCK_LAYERS.index(match[3]) if match[3] in BLOCK_LAYERS else len(BLOCK_LAYERS)
    return (int(match[1]), int(match[2]), layer, path)
