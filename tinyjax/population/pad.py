"""Networks of several sizes in one program: each is padded with zeros to the shapes of their union,
and cut out of it again.

That this is exact, that every padded entry stays 0 through any number of steps, is a property of
the layers (f(0) = 0 per channel, sums and never concatenations, statistics per channel) and of the
optimizer (no update where the gradient is 0): see docs/sweeps.md.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from tinyjax.detectors import point as detector
from tinyjax.errors import UserError
from tinyjax.models import efficientnet, layers, mobilenetv3
from tinyjax.models.classifier import Classifier

Shapes = Mapping[str, tuple[int, ...]]

# Modules that keep zero channels zero; see `refuse_unfit`.
FIT = (
    Classifier,
    efficientnet.Model,
    mobilenetv3.Model,
    *(layers.Dense, layers.BatchNorm, layers.ConvBN, layers.SqueezeExcite),
    *(layers.InvertedResidual, layers.Adapter, layers.Stage),
    *(detector.Detector, detector.Separable, detector.Neck, detector.Head),
    *(detector.Kernel, detector.SharedSeparable, detector.Output),
)


def pad(tree: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """Arrays by path, each filled up with zeros at the ends of its axes to the shape that `shapes`
    has for its path, and all zeros where `tree` has none.

    Raises ValueError for a path that `shapes` does not have, or an array too large for its shape.
    """
    if unknown := tree.keys() - shapes.keys():
        raise ValueError(f"no shape to pad {min(unknown)} to")
    dtype = np.result_type(*(np.asarray(leaf).dtype for leaf in tree.values()))
    padded = {path: np.zeros(shape, dtype) for path, shape in shapes.items()}
    for path, leaf in tree.items():
        own, most = np.shape(leaf), shapes[path]
        if len(own) != len(most) or any(a > b for a, b in zip(own, most, strict=True)):
            raise ValueError(f"{path}: {own} does not fit into {most}")
        padded[path][tuple(slice(n) for n in own)] = leaf
    return padded


def unpad(tree: Mapping[str, Any], shapes: Shapes) -> dict[str, Any]:
    """The arrays of `shapes` out of padded ones: `cut(pad(t, big), own) == t`."""
    return {
        path: np.asarray(tree[path])[tuple(slice(n) for n in shape)]
        for path, shape in shapes.items()
    }


def check_zero_padding(model: nn.Module, shape: tuple[int, ...]) -> None:
    """Raise UserError if a network, called as `model(x, train)` on x of that shape, holds a module
    that is not known to keep zero channels zero, as a LayerNorm does not.
    """
    unfit: dict[str, str] = {}

    def look(call, args, kwargs, context):
        if not isinstance(context.module, FIT):
            unfit["/".join(context.module.path)] = type(context.module).__name__
        return call(*args, **kwargs)

    with nn.intercept_methods(look):
        jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(shape), train=False))
    if unfit:
        path, name = unfit.popitem()  # the innermost: what holds it is not known either
        raise UserError(
            f"{path}: a {name} is not known to keep channels that are all zeros at zero, so "
            "networks of several sizes cannot share a program with it; sweep one size at a time"
        )
