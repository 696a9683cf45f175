"""The layers all networks are built from. They compute in the dtype of their input.

Parameters and statistics are float32. A module that owns a parameter named `kernel` applies it once
at every position of its output; `count.multiply_adds` relies on it.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from tinyjax.models.initializers import he_fan_out
from tinyjax.models.scaling import Architecture, Block, make_divisible
from tinyjax.ops.conv import conv2d

# All of them map 0 to 0 (save the gates), which is what makes zero-padded channels stay zero.
ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "identity": lambda x: x,
    "relu": nn.relu,
    "silu": nn.silu,
    "hard_swish": nn.hard_swish,
    "sigmoid": nn.sigmoid,
    "hard_sigmoid": nn.hard_sigmoid,
    "twice_sigmoid": lambda x: 2 * nn.sigmoid(x),  # exactly 1 at 0
}


class Dense(nn.Module):
    """x [..., C] -> x kernel + bias [..., features]; also the 1x1 convolution of pooled vectors."""

    features: int
    initial: Callable = he_fan_out

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.initial, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return x @ kernel.astype(x.dtype) + bias.astype(x.dtype)


def batch_norm(
    x: Array,
    scale: Array,
    bias: Array,
    mean: Array,
    var: Array,
    *,
    train: bool,
    eps: float,
    momentum: float | Array,
    fixed: Array | None = None,
    axes: Sequence[str] = (),
) -> tuple[Array, Array, Array]:
    """Normalize x [B, H, W, C] per channel, as torch's `BatchNorm2d` does.

    Args:
        x: any float dtype; the arithmetic is in float32 at least.
        scale, bias, mean, var: float[C].
        train: use the batch's own moments and move the running ones toward them.
        eps: added to the variance.
        momentum: torch's, the weight of the *new* value.
        fixed: bool[], whether to use and keep the running moments all the same, as a frozen layer
            does; None is no.
        axes: of a mesh that the batch is spread over; its moments are those of the whole.

    Returns:
        y in x's shape and dtype, and the running mean and variance. As in torch the running
        variance is the unbiased one, the variance normalized by is not.
    """
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if train:
        count = math.prod(x.shape[:-1]) * jax.lax.axis_size(axes)
        # Both moments in one pass over x: two passes write x - mean to memory, 8 % of a step. In
        # float32 the variance is good while the mean is below some 100 standard deviations.
        moments = wide.mean((0, 1, 2)), (wide * wide).mean((0, 1, 2))
        batch_mean, square = jax.lax.pmean(moments, axes) if axes else moments
        batch_var = jnp.maximum(square - batch_mean**2, 0)
        unbiased = batch_var * (count / max(count - 1, 1))
        new_mean = mean + momentum * (batch_mean - mean)
        new_var = var + momentum * (unbiased - var)
        if fixed is not None:
            batch_mean, new_mean = (jnp.where(fixed, mean, new) for new in (batch_mean, new_mean))
            batch_var, new_var = (jnp.where(fixed, var, new) for new in (batch_var, new_var))
    else:
        batch_mean, batch_var, new_mean, new_var = mean, var, mean, var
    slope = scale * jax.lax.rsqrt(batch_var + eps)
    y = wide * slope + (bias - batch_mean * slope)
    return y.astype(x.dtype), jax.lax.stop_gradient(new_mean), jax.lax.stop_gradient(new_var)


class BatchNorm(nn.Module):
    """`batch_norm` with its parameters and, in collection "stats", its running moments.

    In collection "fixed" a layer may be told to use and keep these: `True`, which is static, or an
    array, by which members of a population may differ; in "over", the axes of a mesh that batches
    are spread over, and perhaps another momentum.
    """

    eps: float = 1e-5
    momentum: float = 0.1

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("stats", "mean", jnp.zeros, shape)
        var = self.variable("stats", "var", jnp.ones, shape)
        fixed: Any = self.get_variable("fixed", "fixed")
        axes = self.get_variable("over", "axes", ())
        momentum: Any = self.get_variable("over", "momentum", self.momentum)
        train = train and fixed is not True
        y, new_mean, new_var = batch_norm(
            x, scale, bias, mean.value, var.value,
            train=train, eps=self.eps, momentum=momentum, fixed=fixed, axes=axes,
        )  # fmt: skip
        if train and not self.is_initializing():
            mean.value, var.value = new_mean, new_var
        return y


class ConvBN(nn.Module):
    """Convolution without bias, BatchNorm, activation: [B, H, W, C] -> [B, H/s, W/s, features]."""

    features: int
    size: int = 1
    stride: int = 1
    groups: int = 1
    act: str = "identity"
    initial: Callable = he_fan_out
    eps: float = 1e-5
    momentum: float = 0.1

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.initial, shape, self.groups)
        if self.is_initializing():  # only shapes count, and tracing takes its time
            height, width = (-(-side // self.stride) for side in x.shape[1:3])
            y = jnp.zeros((x.shape[0], height, width, self.features), x.dtype)
        else:
            y = conv2d(x, kernel.astype(x.dtype), self.stride, self.groups)
        return ACTIVATIONS[self.act](BatchNorm(self.eps, self.momentum, name="bn")(y, train))


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate in 0..1 computed from all channels' spatial means."""

    squeeze: int
    act: str
    gate: str
    initial: Callable = he_fan_out  # of the layer that the gates come from

    @nn.compact
    def __call__(self, x: Array) -> Array:
        pooled = x.mean((1, 2))  # [B, C]
        squeezed = ACTIVATIONS[self.act](Dense(self.squeeze, name="reduce")(pooled))
        gate = ACTIVATIONS[self.gate](Dense(x.shape[-1], self.initial, name="expand")(squeezed))
        return x * gate[:, None, None, :]


class Adapter(nn.Module):
    """A 1x1 convolution of BatchNorm(x), to be added to x: a residual adapter in series (arXiv
    1705.08045). The kernel starts at zero, where the authors draw it: nothing is added at first.
    """

    eps: float
    momentum: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        c = x.shape[-1]
        kernel = self.param("kernel", nn.initializers.zeros, (1, 1, c, c))
        y = BatchNorm(self.eps, self.momentum, name="bn")(x, train)
        return conv2d(y, kernel.astype(x.dtype), 1, 1)


class Added(NamedTuple):
    """What a backbone has that its weights in the world have not."""

    adapters: bool = False  # an `Adapter` at the end of every block
    excite: str = ""  # a key of `GATES`: squeeze-excite behind every stage


PLAIN = Added()
# Squeeze-excite that starts as nothing at all; or as the authors of Mind the Backbone draw it
# (arXiv 2303.14744), which halves what passes.
GATES: dict[str, dict[str, Any]] = {
    "identity": {"gate": "twice_sigmoid", "initial": nn.initializers.zeros},
    "authors": {"gate": "sigmoid"},
}


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, squeeze-excite, project 1x1; a skip where shapes allow (MBConv).

    `conv` and `excite` are ConvBN and SqueezeExcite with the family's own settings. `spec.gates`
    are 0/1 numbers among the parameters, which do not train; see `union`.
    """

    spec: Block
    conv: Callable
    excite: Callable
    adapter: Callable | None = None  # an `Adapter` with the family's own settings

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        kernel, stride, expand, out, squeeze, act, gates = self.spec

        @cache
        def gate(name):
            return self.param(name, nn.initializers.ones, ()).astype(x.dtype)

        y = x
        if expand != x.shape[-1]:
            y = self.conv(expand, act=act, name="expand")(y, train)
        if "expands" in gates:
            own = gate("expands")
            y = own * y + (1 - own) * _to_width(x, expand)
        depthwise = self.conv(expand, kernel, stride, groups=expand, act=act, name="depthwise")
        y = depthwise(y, train)
        if squeeze:
            y = self.excite(squeeze, name="se")(y)
        y = self.conv(out, name="project")(y, train)
        if "alive" in gates:
            y = gate("alive") * y
        if "skip" in gates:
            y = gate("skip") * _to_width(x, out) + y
        elif stride == 1 and x.shape[-1] == out:
            y = x + y
        if self.adapter:
            there = gate("alive") * y if "alive" in gates else y
            y = y + self.adapter(name="adapter")(there, train)
        return y


def _to_width(x: Array, channels: int) -> Array:
    """x [.., C] -> [.., channels]: cut, or filled up with zeros."""
    missing = max(channels - x.shape[-1], 0)
    return jnp.pad(x[..., :channels], [(0, 0)] * (x.ndim - 1) + [(0, missing)])


class Stage(nn.Module):
    """Blocks in a row, and what is added to them."""

    specs: tuple[Block, ...]
    conv: partial
    excite: Callable
    added: Added

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        own = {name: self.conv.keywords[name] for name in ("eps", "momentum")}
        adapter = partial(Adapter, **own) if self.added.adapters else None
        for i, spec in enumerate(self.specs):
            block = InvertedResidual(spec, self.conv, self.excite, adapter, name=f"block{i}")
            x = block(x, train)
        if self.added.excite:
            squeeze = make_divisible(x.shape[-1] / 4)
            x = SqueezeExcite(squeeze, "relu", **GATES[self.added.excite], name="excite")(x)
        return x


def trunk(
    x: Array,
    train: bool,
    arch: Architecture,
    act: str,
    conv: partial,
    excite: Callable,
    added: Added,
) -> dict[int, Array]:
    """Stem and stages, to be called inside a compact method: the last output at each stride.

    x [B, H, W, 1 or 3] -> {2: [B, H/2, W/2, C2], 4: .., 8: .., 16: .., 32: ..}, odd sizes rounded
    up at each level. At stride 2 it is the stem's output where no block keeps that resolution.
    """
    x, stride = conv(arch.stem, 3, 2, act=act, name="stem")(x, train), 2
    features = {stride: x}
    for n, specs in enumerate(arch.stages, 1):
        x = Stage(specs, conv, excite, added, name=f"stage{n}")(x, train)
        stride *= math.prod(spec.stride for spec in specs)
        features[stride] = x
    return features
