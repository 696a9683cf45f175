"""Sizes of a network, by arithmetic on shapes: nothing is computed."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def parameters(flat: Mapping[str, Any]) -> int:
    """How many numbers a flat dict of arrays, or of shapes, holds."""
    return sum(math.prod(leaf.shape) for leaf in flat.values())


def multiply_adds(model: nn.Module, shape: Any) -> int:
    """Multiply-adds of convolutions and linear layers in one evaluation; FLOPs are twice that.

    A layer that owns a `kernel` applies it once at every position of its output, so it is counted
    right in whatever form it is lowered, and once for every time it is called.

    Args:
        model: any module built from `tinyjax.models.layers`, called as `model(x, train)`.
        shape: of x, e.g. (1, 224, 224, 3), or a tree of such, e.g. a neck's {stride: shape}.
    """
    total = 0

    def count(call, args, kwargs, context):
        nonlocal total
        out = call(*args, **kwargs)
        module = context.module
        if context.method_name == "__call__" and module.has_variable("params", "kernel"):
            kernel = nn.unbox(module.get_variable("params", "kernel"))
            total += math.prod(out.shape[:-1]) * math.prod(kernel.shape)
        return out

    def evaluate():
        x = jax.tree.map(jnp.zeros, shape, is_leaf=lambda leaf: isinstance(leaf, tuple))
        return model.init(jax.random.key(0), x, train=False)

    with nn.intercept_methods(count):
        jax.eval_shape(evaluate)
    return total
