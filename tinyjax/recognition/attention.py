"""Attention of feature maps, [B, H, W, C] -> the same shape, by name in `build_attention`."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from tinyjax.errors import UserError, suggest
from tinyjax.models.initializers import he_fan_out
from tinyjax.models.layers import Dense, SqueezeExcite, interleave, spatial_mean
from tinyjax.ops.conv import conv2d
from tinyjax.ops.pooling import spatial_max

# "grouped": shuffle attention without the channel shuffle at its end.
ATTENTIONS = ("shuffle", "grouped", "se", "cbam")
REDUCTION = 16  # channels of the hidden layers of squeeze-excite and CBAM
GROUP_NORM_EPS = 1e-5
SPATIAL_KERNEL = 7  # of CBAM


def build_attention(attention: str, channels: int, groups: int, name: str) -> nn.Module:
    """Build the module. Raises UserError for an unknown name, or groups that do not fit."""
    match attention:
        case "shuffle" | "grouped":
            return ShuffleAttention(groups, attention == "shuffle", name=name)
        case "se":
            return SqueezeExcite(max(channels // REDUCTION, 1), "relu", "sigmoid", name=name)
        case "cbam":
            return Cbam(name=name)
    raise UserError(f"attention = {attention!r}: {suggest(attention, ATTENTIONS)}")


class ShuffleAttention(nn.Module):
    """Shuffle attention (SA-Net, arXiv 2102.00240), as in its authors' code.

    Each of the `groups` groups of channels has two halves: the gates of the first are computed from
    its spatial means, those of the second from its instance normalization, with parameters that all
    groups share. Finally channels are shuffled in two groups, if `shuffle`. It has 3 C / groups
    parameters; at first all gates are sigmoid(1).

    Raises UserError unless C is a multiple of 2 groups.
    """

    groups: int
    shuffle: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = x.shape[-1]
        if self.groups < 1 or c % (2 * self.groups):
            raise UserError(
                f"groups = {self.groups}: shuffle attention splits {c} channels into groups of two "
                f"halves; give a divisor of {c / 2:g}"
            )
        size = c // (2 * self.groups)

        def param(name, init):
            return self.param(name, init, (size,)).astype(x.dtype)

        zeros, ones = nn.initializers.zeros, nn.initializers.ones
        halves = x.reshape(*x.shape[:-1], self.groups, 2, size)
        first, second = halves[..., 0, :], halves[..., 1, :]
        means = first.mean((1, 2), keepdims=True)
        gate = param("channel_scale", zeros) * means + param("channel_bias", ones)
        first = first * nn.sigmoid(gate)
        normalized = _instance_norm(second) * param("norm_scale", ones) + param("norm_bias", zeros)
        gate = param("spatial_scale", zeros) * normalized + param("spatial_bias", ones)
        second = second * nn.sigmoid(gate)
        y = jnp.stack([first, second], -2).reshape(x.shape)
        return interleave(y[..., : c // 2], y[..., c // 2 :]) if self.shuffle else y


def _instance_norm(x: Array) -> Array:
    """Normalize each map of x [B, H, W, ...] over its positions, in at least float32."""
    x32 = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    centered = x32 - x32.mean((1, 2), keepdims=True)
    var = (centered * centered).mean((1, 2), keepdims=True)
    return (centered / jnp.sqrt(var + GROUP_NORM_EPS)).astype(x.dtype)


class Cbam(nn.Module):
    """Convolutional block attention (CBAM, arXiv 1807.06521): channel gates, then spatial gates.

    As in the paper, no BatchNorm follows the 7x7 convolution; the authors' code has one.
    """

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = x.shape[-1]
        reduce = Dense(max(c // REDUCTION, 1), name="reduce")
        expand = Dense(c, name="expand")
        pooled = spatial_mean(x).astype(x.dtype), spatial_max(x)[:, 0, 0]
        gate = nn.sigmoid(sum(expand(nn.relu(reduce(vector))) for vector in pooled))
        x = x * gate[:, None, None]
        kernel = self.param("kernel", he_fan_out, (SPATIAL_KERNEL, SPATIAL_KERNEL, 2, 1))
        maps = jnp.concatenate([x.mean(-1, keepdims=True), _channel_max(x)], -1)
        return x * nn.sigmoid(conv2d(maps, kernel.astype(x.dtype)))


def _channel_max(x: Array) -> Array:
    """[B, H, W, C] -> [B, H, W, 1]; the first of several equal values receives the gradient."""
    is_first = jnp.arange(x.shape[-1]) == jnp.argmax(x, -1)[..., None]
    return jnp.where(is_first, x, 0).sum(-1, keepdims=True)
