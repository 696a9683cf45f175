"""The neck: fuses backbone features of several strides into the levels of the head."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from tinyjax.models.layers import ConvBN

ACT = "hard_swish"


class SeparableConv(nn.Module):
    """Depthwise and pointwise convolution: [B, H, W, C] -> [B, H/s, W/s, width].

    Each has a BatchNorm; the activation is after the second.
    """

    preserves_zeros = True

    width: int
    size: int = 3
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        c = x.shape[-1]
        x = ConvBN(c, self.size, self.stride, groups=c, name="depthwise")(x, train)
        return ConvBN(self.width, act=ACT, name="pointwise")(x, train)


class Neck(nn.Module):
    """Backbone features {stride: [B, h, w, c]} -> {stride: [B, h, w, width]} for `strides`.

    A feature pyramid (arXiv 1612.03144) from stride 32 to the finest level, then a path that
    downsamples to the coarsest level of the head (arXiv 1803.01534). Both are done `repeats` times;
    all paths but the last go to stride 32. Levels are fused by sums: unlike concatenation, these
    keep zero-padded channels at the end.
    """

    preserves_zeros = True

    width: int
    strides: tuple[int, ...]
    repeats: int = 1

    @nn.compact
    def __call__(self, features: dict[int, Array], train: bool) -> dict[int, Array]:
        strides = sorted((s for s in features if s >= min(self.strides)), reverse=True)
        levels: dict[int, Array] = {}
        coarser = None
        for s in strides:
            y = ConvBN(self.width, name=f"lateral{s}")(features[s], train)
            if coarser is not None:
                y = y + upsample(coarser, y.shape[1:3])
            size = 3 if s == min(self.strides) else 5
            levels[s] = coarser = y + SeparableConv(self.width, size, name=f"smooth{s}")(y, train)
        # All repeats but the last fuse all levels; the last fuses only the levels of the head.
        coarsest = [max(strides)] * (self.repeats - 1) + [max(self.strides)]
        self._down(levels, coarsest[0], "down", train)
        for n, last in enumerate(coarsest[1:], start=2):
            coarser = None
            for s in strides:
                y = levels[s]
                if coarser is not None:
                    y = y + upsample(coarser, y.shape[1:3])
                fusion = SeparableConv(self.width, name=f"fusion{n}_up{s}")
                levels[s] = coarser = y + fusion(y, train)
            self._down(levels, last, f"fusion{n}_down", train)
        return {s: levels[s] for s in self.strides}

    def _down(self, levels: dict[int, Array], coarsest: int, name: str, train: bool) -> None:
        """Add each downsampled level to the next coarser one, up to stride `coarsest`."""
        for s in sorted(levels):
            if 2 * s <= coarsest:
                down = SeparableConv(self.width, stride=2, name=f"{name}{2 * s}")
                levels[2 * s] = levels[2 * s] + down(levels[s], train)


def upsample(x: Array, shape: tuple[int, ...]) -> Array:
    """Upsample [B, h, w, C] by 2 (nearest neighbor) and crop it to `shape`, at most (2 h, 2 w)."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)
    return x[:, : shape[0], : shape[1]]
