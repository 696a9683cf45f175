"""The layers of all networks. They compute in the dtype of their input.

Parameters and running statistics are float32. A module with a parameter named `kernel` applies it
once at every position of its output; `flops.count_multiply_adds` relies on this.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from tinyjax.models.initializers import he_fan_out, transformer_normal
from tinyjax.ops.conv import conv2d, patch_conv

# A module class sets `preserves_zeros = True` if channels with zero inputs and zero parameters have
# outputs of exactly zero, and do not influence other channels. Zero-padded networks of several
# sizes can then share a program, see `population.pad`.

# All of these map 0 to 0, except for the sigmoids, which only gate channels.
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
    """x [..., C] -> x @ kernel + bias [..., features].

    It also replaces 1x1 convolutions of pooled vectors.
    """

    preserves_zeros = True

    features: int
    kernel_init: Callable = he_fan_out
    use_bias: bool = True
    bias_init: Callable = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        y = x @ kernel.astype(x.dtype)
        if self.use_bias:
            y = y + self.param("bias", self.bias_init, (self.features,)).astype(x.dtype)
        return y


def spatial_mean(x: Array) -> Array:
    """x [B, H, W, C] -> means [B, C], in at least float32."""
    return x.mean((1, 2)).astype(jnp.promote_types(x.dtype, jnp.float32))


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
    frozen: Array | None = None,
    axes: Sequence[str] = (),
) -> tuple[Array, Array, Array]:
    """Normalize x [B, H, W, C] per channel, as torch's `BatchNorm2d` does.

    Args:
        x: any float dtype; the arithmetic is at least float32.
        scale, bias, mean, var: float[C]; mean and var are the running statistics.
        train: normalize with the batch's statistics and update the running statistics.
        eps: added to the variance.
        momentum: weight of the *new* value, as in torch.
        frozen: bool[]; if true, normalize with the running statistics in training too, and do not
            update them. None means false.
        axes: mesh axes that the batch is sharded over; statistics are computed over all shards.

    Returns:
        y with the shape and dtype of x, and the new running mean and variance. As in torch, the
        running variance is unbiased, while the batch is normalized with the biased variance.
    """
    x32 = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if train:
        count = math.prod(x.shape[:-1]) * jax.lax.axis_size(axes)
        # Compute mean and mean square in one pass over x: two passes would write x - mean to
        # memory, which takes 8 % of a step. In float32 the variance is accurate if the mean is
        # below about 100 standard deviations.
        moments = x32.mean((0, 1, 2)), (x32 * x32).mean((0, 1, 2))
        batch_mean, mean_square = jax.lax.pmean(moments, axes) if axes else moments
        batch_var = jnp.maximum(mean_square - batch_mean**2, 0)
        unbiased_var = batch_var * (count / max(count - 1, 1))
        new_mean = mean + momentum * (batch_mean - mean)
        new_var = var + momentum * (unbiased_var - var)
        if frozen is not None:
            batch_mean, new_mean = (jnp.where(frozen, mean, new) for new in (batch_mean, new_mean))
            batch_var, new_var = (jnp.where(frozen, var, new) for new in (batch_var, new_var))
    else:
        batch_mean, batch_var, new_mean, new_var = mean, var, mean, var
    slope = scale * jax.lax.rsqrt(batch_var + eps)
    y = x32 * slope + (bias - batch_mean * slope)
    return y.astype(x.dtype), jax.lax.stop_gradient(new_mean), jax.lax.stop_gradient(new_var)


class BatchNorm(nn.Module):
    """`batch_norm` with its parameters and, in collection "stats", its running statistics.

    It reads two optional collections. "frozen" is a static `True`, or a bool[] that may differ
    between members of a population; if true, the layer normalizes with its running statistics in
    training too, and does not update them. "overrides" has the mesh axes that the batch is sharded
    over, and a momentum that replaces the layer's own.
    """

    preserves_zeros = True

    eps: float = 1e-5
    momentum: float = 0.1
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        shape, zeros = x.shape[-1:], nn.initializers.zeros
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", zeros, shape) if self.use_bias else jnp.zeros(shape, scale.dtype)
        mean = self.variable("stats", "mean", jnp.zeros, shape)
        var = self.variable("stats", "var", jnp.ones, shape)
        frozen: Any = self.get_variable("frozen", "frozen")
        axes = self.get_variable("overrides", "axes", ())
        momentum: Any = self.get_variable("overrides", "momentum", self.momentum)
        train = train and frozen is not True
        y, new_mean, new_var = batch_norm(
            x, scale, bias, mean.value, var.value,
            train=train, eps=self.eps, momentum=momentum, frozen=frozen, axes=axes,
        )  # fmt: skip
        if train and not self.is_initializing():
            mean.value, var.value = new_mean, new_var
        return y


class ConvBN(nn.Module):
    """Convolution without bias, BatchNorm, activation: [B, H, W, C] -> [B, H/s, W/s, features]."""

    preserves_zeros = True

    features: int
    size: int = 1
    stride: int = 1
    groups: int = 1
    act: str = "identity"
    kernel_init: Callable = he_fan_out
    eps: float = 1e-5
    momentum: float = 0.1

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.groups)
        if self.is_initializing():  # only shapes are needed, and tracing the convolution is slow
            height, width = (-(-side // self.stride) for side in x.shape[1:3])
            y = jnp.zeros((x.shape[0], height, width, self.features), x.dtype)
        else:
            y = conv2d(x, kernel.astype(x.dtype), self.stride, self.groups)
        return ACTIVATIONS[self.act](BatchNorm(self.eps, self.momentum, name="bn")(y, train))


class DepthwiseShortcut(nn.Module):
    """Depthwise and 1x1 convolution, each with BatchNorm, around a block with a stride or another
    number of output channels.

    act: of the 1x1 convolution. conv: ConvBN with the settings of the network.
    """

    preserves_zeros = True

    features: int
    size: int
    stride: int
    act: str
    conv: Callable

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        c = x.shape[-1]
        x = self.conv(c, self.size, self.stride, groups=c, name="depthwise")(x, train)
        return self.conv(self.features, act=self.act, name="project")(x, train)


class LayerNorm(nn.Module):
    """Normalize x [..., C] over its channels; statistics and arithmetic are at least float32."""

    eps: float

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        x32 = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        centered = x32 - x32.mean(-1, keepdims=True)
        var = (centered * centered).mean(-1, keepdims=True)
        return (centered * jax.lax.rsqrt(var + self.eps) * scale + bias).astype(x.dtype)


class PatchEmbedding(nn.Module):
    """A linear layer of patches of size x size: [B, H, W, C] -> [B, H/size, W/size, features].

    The input is padded with zeros at the bottom and right to a multiple of `size`.
    """

    preserves_zeros = True

    features: int
    size: int
    kernel_init: Callable = he_fan_out
    norm_eps: float = 0  # of a LayerNorm after it; 0: none

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        y = patch_conv(x, kernel.astype(x.dtype)) + bias.astype(x.dtype)
        return LayerNorm(self.norm_eps, name="norm")(y) if self.norm_eps else y


class Mlp(nn.Module):
    """Two linear layers with GELU between: x [..., C] -> [..., C]. hidden: units between them."""

    hidden: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        y = Dense(self.hidden, transformer_normal, name="expand")(x)
        y = 0.5 * y * (1 + jax.lax.erf(y * 0.5**0.5))  # GELU; `nn.gelu` takes twice the time
        return Dense(x.shape[-1], transformer_normal, name="project")(y)


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from the spatial means of all channels."""

    preserves_zeros = True

    squeeze: int
    act: str
    gate: str
    kernel_init: Callable = he_fan_out  # for the layer that computes the gates

    @nn.compact
    def __call__(self, x: Array) -> Array:
        pooled = x.mean((1, 2))  # b h w c -> b c
        squeezed = ACTIVATIONS[self.act](Dense(self.squeeze, name="reduce")(pooled))
        expand = Dense(x.shape[-1], self.kernel_init, name="expand")
        gate = ACTIVATIONS[self.gate](expand(squeezed))
        return x * gate[:, None, None, :]


class Adapter(nn.Module):
    """A residual adapter in series (arXiv 1705.08045): the caller adds conv1x1(BatchNorm(x)) to x.

    The kernel is initialized with zeros, so that the adapter adds nothing at first; the authors
    initialize it at random.
    """

    preserves_zeros = True

    eps: float
    momentum: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        c = x.shape[-1]
        kernel = self.param("kernel", nn.initializers.zeros, (1, 1, c, c))
        y = BatchNorm(self.eps, self.momentum, name="bn")(x, train)
        return conv2d(y, kernel.astype(x.dtype), 1, 1)


class ExtraLayers(NamedTuple):
    """Layers added to a backbone; pretrained weights do not contain them."""

    adapters: bool = False  # an `Adapter` at the end of every block
    excite: str = ""  # a key of `EXCITE_SETTINGS`: squeeze-excite after every stage


NO_EXTRA_LAYERS = ExtraLayers()
# Settings of squeeze-excite. Initially "identity" leaves its input unchanged; "authors", as in Mind
# the Backbone (arXiv 2303.14744), roughly halves it.
EXCITE_SETTINGS: dict[str, dict[str, Any]] = {
    "identity": {"gate": "twice_sigmoid", "kernel_init": nn.initializers.zeros},
    "authors": {"gate": "sigmoid"},
}


def add_adapter(
    adapter: Callable | None, y: Array, train: bool, alive: Array | None = None
) -> Array:
    """Add the adapter's output to the output of a block, inside its compact method.

    adapter: an `Adapter` with the family's settings; None: no adapter. alive: the block's gate.
    """
    if adapter is None:
        return y
    return y + adapter(name="adapter")(y if alive is None else alive * y, train)


def resize_channels(x: Array, channels: int) -> Array:
    """x [..., C] -> [..., channels]: truncate, or pad with zeros."""
    missing = max(channels - x.shape[-1], 0)
    return jnp.pad(x[..., :channels], [(0, 0)] * (x.ndim - 1) + [(0, missing)])


def interleave(first: Array, second: Array) -> Array:
    """[..., C], [..., C] -> [..., 2 C]: channels 2 i of the first, 2 i + 1 of the second.

    Unlike a concatenation it keeps the zero padding of a population at the end of the axis. A step
    of GhostNet takes about 5 % longer on CPU than with concatenations.
    """
    return jnp.stack([first, second], -1).reshape(*first.shape[:-1], 2 * first.shape[-1])
