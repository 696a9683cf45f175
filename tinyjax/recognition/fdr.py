"""Feature decoupling and reasoning, the module FDR of TOPLight (CVPR 2023).

A map is pooled to vectors, from which maps are rebuilt; attention combines these. The poster
states: horizontal and vertical slices, average pooling, two upsampling layers, concatenation over
channels, shuffle attention. All else is our choice:

    - each stripe is pooled to its mean, [B, n, 1, C] and [B, 1, m, C]; stripes are those of torch's
      adaptive pooling, which may overlap where a side is no multiple of their number
    - upsampling is bilinear without parameters; without upsampling a position has the mean of its
      stripe
    - BatchNorm and a 1x1 convolution return to C channels, and are added to the input. The
      convolution starts at zero, so that at first FDR changes nothing in a pretrained network
    - the numbers of stripes and groups

`POOLINGS` has the poster's alternatives to slices in our reading of their names.
"""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from tinyjax.errors import UserError, suggest
from tinyjax.models.layers import BatchNorm, Dense
from tinyjax.recognition.attention import build_attention

# stripes: horizontal and vertical slices; gap: the mean of the map; context: its mean with learned
# weights, a softmax over positions (GCNet, arXiv 1904.11492); hap: the mean of each row
POOLINGS = ("stripes", "gap", "context", "hap")


class FdrConfig(NamedTuple):
    """The settings of `Fdr`."""

    pooling: str = "stripes"  # one of POOLINGS
    horizontal: int = 6  # number of horizontal stripes; 0: none
    vertical: int = 3  # number of vertical stripes; 0: none
    upsample: bool = True  # interpolate between stripes
    attention: str = "shuffle"  # one of attention.ATTENTIONS
    groups: int = 8  # of shuffle attention


class Fdr(nn.Module):
    """x [B, H, W, C] -> the same shape.

    Raises UserError for invalid settings, and groups that do not fit the number of channels.
    """

    config: FdrConfig

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        config = self.config
        y = Rebuild(config, name="rebuild")(x)
        y = build_attention(config.attention, y.shape[-1], config.groups, "attention")(y)
        y = BatchNorm(name="bn")(y, train)
        zeros = nn.initializers.zeros
        return x + Dense(x.shape[-1], zeros, use_bias=False, name="project")(y)


class Rebuild(nn.Module):
    """Pool x [B, H, W, C] and rebuild maps: [B, H, W, C], or 2 C with both kinds of stripes."""

    config: FdrConfig

    @nn.compact
    def __call__(self, x: Array) -> Array:
        config = self.config
        match config.pooling:
            case "gap":
                return jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)
            case "hap":
                return jnp.broadcast_to(x.mean(2, keepdims=True), x.shape)
            case "context":
                b, height, width, c = x.shape
                positions = x.reshape(b, height * width, c)
                weights = nn.softmax(Dense(1, name="context")(positions), axis=1)
                return jnp.broadcast_to((weights * positions).sum(1)[:, None, None], x.shape)
            case "stripes":
                return rebuild_stripes(x, config.horizontal, config.vertical, config.upsample)
        raise UserError(f"fdr.pooling = {config.pooling!r}: {suggest(config.pooling, POOLINGS)}")


def rebuild_stripes(x: Array, horizontal: int, vertical: int, upsample: bool) -> Array:
    """Rebuild x [B, H, W, C] from these numbers of stripes: [B, H, W, C or 2 C]. See `FdrConfig`.

    Raises UserError for a negative number, or without stripes.
    """
    if min(horizontal, vertical) < 0 or horizontal + vertical == 0:
        raise UserError(
            f"fdr.horizontal = {horizontal}, fdr.vertical = {vertical}: give numbers of stripes of "
            "0 or more, at least one above 0"
        )
    maps = []
    if horizontal:
        rows = stripe_means(x.mean(2), horizontal, upsample)
        maps.append(jnp.broadcast_to(rows[:, :, None], x.shape))
    if vertical:
        columns = stripe_means(x.mean(1), vertical, upsample)
        maps.append(jnp.broadcast_to(columns[:, None], x.shape))
    return jnp.concatenate(maps, -1)


def stripe_means(x: Array, stripes: int, upsample: bool) -> Array:
    """Pool x [B, N, C] to the means of stripes, and rebuild it: [B, N, C].

    upsample: interpolate linearly between the centers of stripes, instead of repeating their means.
    """
    n = x.shape[1]
    resize = linear_matrix if upsample else nearest_matrix
    matrix = resize(stripes, n) @ pooling_matrix(n, stripes)
    return jnp.einsum("nm,bmc->bnc", matrix.astype(x.dtype), x)


def pooling_matrix(size: int, bins: int) -> np.ndarray:
    """float64 [bins, size]: means over bins, as torch's `adaptive_avg_pool1d`."""
    i, position = np.arange(bins)[:, None], np.arange(size)
    is_inside = (position >= i * size // bins) & (position < -(-(i + 1) * size // bins))
    return is_inside / is_inside.sum(1, keepdims=True)


def linear_matrix(bins: int, size: int) -> np.ndarray:
    """float64 [size, bins]: linear interpolation, as torch's with `align_corners=False`."""
    center = np.clip((np.arange(size) + 0.5) * bins / size - 0.5, 0, bins - 1)
    return np.maximum(0, 1 - np.abs(center[:, None] - np.arange(bins)))


def nearest_matrix(bins: int, size: int) -> np.ndarray:
    """float64 [size, bins]: the value of the bin at each position, as torch's "nearest"."""
    return (np.arange(size)[:, None] * bins // size == np.arange(bins)).astype(np.float64)
