"""Zero padding: networks of several sizes in one program, each padded to the shapes of a supernet.

Padding is exact: every padded entry stays 0 through any number of steps. This is a property of the
layers (f(0) = 0 per channel, sums instead of concatenations, statistics per channel) and of the
optimizer (no update where the gradient is 0), see docs/sweeps.md.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tinyjax.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]


def pad(tree: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Pad each array of `tree` with zeros, at the end of each axis, to its shape in `shapes`.

    A path that `tree` lacks becomes all zeros.

    Raises ValueError for a path that `shapes` lacks, or an array larger than its shape.
    """
    if unknown := tree.keys() - shapes.keys():
        raise ValueError(f"no shape to pad {min(unknown)} to")
    dtype = np.result_type(np.float32, *(np.asarray(leaf).dtype for leaf in tree.values()))
    padded = {path: np.zeros(shape, dtype) for path, shape in shapes.items()}
    for path, leaf in tree.items():
        shape, target = np.shape(leaf), shapes[path]
        if len(shape) != len(target) or any(a > b for a, b in zip(shape, target, strict=True)):
            raise ValueError(f"{path}: {shape} does not fit into {target}")
        padded[path][tuple(slice(n) for n in shape)] = leaf
    return padded


def unpad(tree: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """The inverse of `pad`: arrays by path, sliced to `shapes`."""
    return {
        path: np.asarray(tree[path])[tuple(slice(n) for n in shape)]
        for path, shape in shapes.items()
    }


def check_zero_padding(model: nn.Module, *shapes: tuple[int, ...]) -> None:
    """Raise UserError unless every module of a network declares `preserves_zeros`.

    The network is called as `model(*inputs, train)` on inputs of the given shapes. A LayerNorm, for
    example, does not keep zero channels zero.
    """
    unsafe: dict[str, str] = {}

    def inspect(call, args, kwargs, context):
        if not getattr(context.module, "preserves_zeros", False):
            unsafe["/".join(context.module.path)] = type(context.module).__name__
        return call(*args, **kwargs)

    with nn.intercept_methods(inspect):
        inputs = [*map(jnp.zeros, shapes)]
        jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs, train=False))
    if unsafe:
        path, name = unsafe.popitem()  # the innermost; the modules around it may be listed, too
        raise UserError(
            f"{path}: {name} is not known to keep zero channels zero, so networks of several sizes "
            "cannot share a program that contains it; sweep one size at a time"
        )
