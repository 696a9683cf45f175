"""The detector: any backbone, a depthwise neck that only adds, a depthwise head shared by all
levels.

Sizes follow the backbone: the neck is as wide as its stride-16 features. Heads sit at the finest
strides, where a 6-pixel person has a cell to answer for it; deeper stages enter as context through
the neck.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from tinyjax.models.initializers import he_group_fan_out, small_normal
from tinyjax.models.layers import BatchNorm, ConvBN
from tinyjax.ops.conv import conv2d

ACT = "hard_swish"
PRIOR = 0.002  # of an object of one class at one cell, the score of an untrained head


class Detector(nn.Module):
    """Images [B, H, W, 1 or 3] -> class logits f32[B, N, classes] and box offsets f32[B, N, 4].

    N runs over the cells of all levels, in the order of `grid.make_grid`; offsets are those of
    `boxes.encode`.
    """

    backbone: nn.Module
    classes: int
    strides: tuple[int, ...] = (4, 8)
    width: int = 0  # of neck and head; 0: that of the backbone's stride-16 features, at least 16
    fusions: int = 1  # of the neck

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array, Array]:
        _, features = self.backbone(x, train)
        width = self.width or max(16, features[16].shape[-1])
        levels = Neck(width, self.strides, self.fusions, name="neck")(features, train)
        return Head(self.classes, name="head")(levels, train)


class Separable(nn.Module):
    """Depthwise k x k, BatchNorm, pointwise, BatchNorm, activation: [B, H, W, C] -> [B, H/s, W/s,
    width].
    """

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

    A feature pyramid (arXiv 1612.03144) from stride 32 up, fused by sums, which keep zero-padded
    channels exact where concatenation would not, and one step back down between the head's levels
    (arXiv 1803.01534). With several `fusions` each further one goes through all levels again.
    """

    width: int
    strides: tuple[int, ...]
    fusions: int = 1

    @nn.compact
    def __call__(self, features: dict[int, Array], train: bool) -> dict[int, Array]:
        used = sorted((s for s in features if s >= min(self.strides)), reverse=True)
        levels: dict[int, Array] = {}
        above = None
        for s in used:
            y = ConvBN(self.width, name=f"lateral{s}")(features[s], train)
            if above is not None:
                y = y + upsample(above, y.shape[1:3])
            size = 3 if s == min(self.strides) else 5
            levels[s] = above = y + Separable(self.width, size, name=f"smooth{s}")(y, train)
        # In between all levels are joined, at the end only those that the head looks at.
        ends = [max(used)] * (self.fusions - 1) + [max(self.strides)]
        self._down(levels, ends[0], "down", train)
        for n, last in enumerate(ends[1:], start=2):
            above = None
            for s in used:
                y = (
                    levels[s]
                    if above is None
                    else levels[s] + upsample(above, levels[s].shape[1:3])
                )
                levels[s] = above = y + Separable(self.width, name=f"fusion{n}_up{s}")(y, train)
            self._down(levels, last, f"fusion{n}_down", train)
        return {s: levels[s] for s in self.strides}

    def _down(self, levels: dict[int, Array], last: int, name: str, train: bool) -> None:
        """Each level up to stride `last` joined with that of half its stride."""
        for s in sorted(levels):
            if 2 * s <= last:
                down = Separable(self.width, stride=2, name=f"{name}{2 * s}")
                levels[2 * s] = levels[2 * s] + down(levels[s], train)


class Head(nn.Module):
    """{stride: [B, h, w, D]} -> logits f32[B, N, classes], offsets f32[B, N, 4].

    Convolutions are shared by the levels, BatchNorm is each level's own: it absorbs the levels'
    different statistics (RTMDet).
    """

    classes: int

    @nn.compact
    def __call__(self, levels: dict[int, Array], train: bool) -> tuple[Array, Array]:
        width = next(iter(levels.values())).shape[-1]
        stem, class_tower, box_tower = (
            SharedSeparable(width, name=n) for n in ("stem", "class_tower", "box_tower")
        )
        prior = nn.initializers.constant(math.log(PRIOR / (1 - PRIOR)))
        class_out = Output(self.classes, prior, name="class_out")
        box_out = Output(4, _first_boxes, name="box_out")
        logits, offsets = [], []
        for stride in sorted(levels):
            x = stem(levels[stride], stride, train)
            logits.append(class_out(class_tower(x, stride, train)))
            offsets.append(box_out(box_tower(x, stride, train)))
        return jnp.concatenate(logits, 1), jnp.concatenate(offsets, 1)


def _first_boxes(key, shape):
    """Boxes of an untrained head: on the cell, 2 strides wide, so that overlap ranks candidates
    from the first step.
    """
    return jnp.array([0, 0, math.log(2), math.log(2)])


class Kernel(nn.Module):
    """A convolution alone, to be called at several levels."""

    width: int
    size: int = 1
    groups: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1] // self.groups, self.width)
        kernel = self.param("kernel", he_group_fan_out, shape, self.groups)
        return conv2d(x, kernel.astype(x.dtype), 1, self.groups)


class SharedSeparable(nn.Module):
    """`Separable` of size 3 with one pair of kernels and a BatchNorm per level, named by its
    stride.
    """

    width: int

    @nn.compact
    def __call__(self, x: Array, level: int, train: bool) -> Array:
        c = x.shape[-1]
        x = Kernel(c, 3, groups=c, name="depthwise")(x)
        x = BatchNorm(name=f"depthwise_bn{level}")(x, train)
        x = Kernel(self.width, name="pointwise")(x)
        return nn.hard_swish(BatchNorm(name=f"pointwise_bn{level}")(x, train))


class Output(nn.Module):
    """Last layer: [B, h, w, D] -> [B, h w, features] in float32 at least, small weights and a
    chosen bias.
    """

    features: int
    bias_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, h, w, d = x.shape
        kernel = self.param("kernel", small_normal, (d, self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32)).reshape(
            b, h * w, d
        )  # b h w d -> b (h w) d
        return x @ kernel + bias


def upsample(x: Array, shape: tuple[int, ...]) -> Array:
    """Nearest-neighbor doubling of [B, h, w, C], cropped to `shape`: [B, H, W, C] with H <= 2 h, W
    <= 2 w.
    """
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)
    return x[:, : shape[0], : shape[1]]
