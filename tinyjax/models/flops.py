"""Sizes of a network, by arithmetic on shapes: nothing is computed."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tinyjax.models.scaling import Architecture


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
    return counted(model, shape)[0]


def counted(model: nn.Module, shape: Any) -> tuple[int, int]:
    """`multiply_adds`, and the numbers that these layers put out: what a training step keeps is
    some multiple of them.
    """
    layers = _layers(model, shape)
    adds = sum(math.prod(out[:-1]) * math.prod(kernel) for out, kernel in layers)
    return adds, sum(math.prod(out) for out, _ in layers)


def _layers(model: nn.Module, shape: Any) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The shapes of output and kernel of every call of a layer that owns a `kernel`."""
    found = []

    def note(call, args, kwargs, context):
        out = call(*args, **kwargs)
        module = context.module
        if context.method_name == "__call__" and module.has_variable("params", "kernel"):
            kernel = nn.unbox(module.get_variable("params", "kernel"))
            found.append((out.shape, kernel.shape))
        return out

    def evaluate():
        x = jax.tree.map(jnp.zeros, shape, is_leaf=lambda leaf: isinstance(leaf, tuple))
        return model.init(jax.random.key(0), x, train=False)

    with nn.intercept_methods(note):
        jax.eval_shape(evaluate)
    return found


def per_pixel(arch: Architecture) -> float:
    """Multiply-adds of a backbone's stem and blocks for a pixel of a one-channel input, without
    those of squeeze-excite, which do not grow with the input: to compare architectures by.
    """
    area, inputs = 1 / 4, arch.stem  # positions per pixel
    total = 9 * arch.stem * area
    for block in (block for stage in arch.stages for block in stage):
        if block.expand != inputs:
            total += inputs * block.expand * area
        area /= block.stride**2
        total += (block.kernel**2 + block.out) * block.expand * area
        inputs = block.out
    return total
