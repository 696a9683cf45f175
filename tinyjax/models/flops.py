"""Parameters and multiply-adds of a network, derived from shapes without running it."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from tinyjax.models.scaling import Architecture


def count_parameters(arrays: Mapping[str, Any]) -> int:
    """Return the number of entries in a flat dict of arrays or ShapeDtypeStructs."""
    return sum(math.prod(leaf.shape) for leaf in arrays.values())


def count_multiply_adds(model: nn.Module, *shapes: Any) -> int:
    """Return the multiply-adds of convolutions and linear layers in one forward pass.

    There are twice as many FLOPs. A module with a `kernel` applies it once at every position of its
    output, or of the first of several outputs, so the count does not depend on how XLA computes the
    layer. A layer that is called twice counts twice.

    Args:
        model: any module built from `tinyjax.models.layers`, called as `model(*inputs, train)`.
        shapes: of each input, its shape, e.g. (1, 224, 224, 3), or a pytree of shapes, e.g.
            {stride: shape} for a neck.
    """
    return count_multiply_adds_and_outputs(model, *shapes)[0]


def count_multiply_adds_and_outputs(model: nn.Module, *shapes: Any) -> tuple[int, int]:
    """Return `count_multiply_adds`, and the number of values in the outputs of these layers.

    The memory of a training step is roughly proportional to the number of output values.
    """
    layers = _layer_shapes(model, shapes)
    multiply_adds = sum(math.prod(out[:-1]) * math.prod(kernel) for out, kernel in layers)
    return multiply_adds, sum(math.prod(out) for out, _ in layers)


def _layer_shapes(model: nn.Module, shapes: Any) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return (output shape, kernel shape) for every call of a layer that has a `kernel`."""
    layers = []

    def record_shapes(method, args, kwargs, context):
        out = method(*args, **kwargs)
        module = context.module
        if context.method_name == "__call__" and module.has_variable("params", "kernel"):
            kernel = nn.unbox(module.get_variable("params", "kernel"))
            layers.append((jax.tree.leaves(out)[0].shape, kernel.shape))
        return out

    def init_with_zeros():
        inputs = jax.tree.map(jnp.zeros, [*shapes], is_leaf=lambda s: isinstance(s, tuple))
        return model.init(jax.random.key(0), *inputs, train=False)

    with nn.intercept_methods(record_shapes):
        jax.eval_shape(init_with_zeros)
    return layers


def multiply_adds_per_pixel(arch: Architecture) -> float:
    """Return the multiply-adds of stem and blocks per pixel of a one-channel input.

    This is a cheap measure for comparing the architectures of a family.
    """
    total, inputs = arch.stem_kernel**2 * arch.stem / 4, arch.stem
    area = 1 / arch.stem_stride**2  # output positions per pixel of the network's input
    for block in (block for stage in arch.stages for block in stage):
        area /= block.stride**2
        total += block.multiply_adds(inputs) * area
        inputs = block.out
    return total
