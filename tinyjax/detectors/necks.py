"""Necks fuse backbone features of several strides into the levels of the head.

A neck is a module `(features {stride: [B, h, w, c]}, train) -> {stride: [B, h, w, width]}` for
consecutive strides, at least the finest of which is one of the features. A level coarser than all
features is pooled. Maps have sizes ceil(H / stride) x ceil(W / stride). All necks fuse by sums:
unlike concatenation, these keep zero-padded channels at the end.

This file has the necks' shared layers, the default neck, and `build_neck`.
"""

from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from ml_collections import ConfigDict

from tinyjax.errors import UserError, suggest
from tinyjax.models.initializers import he_group_fan_out, xavier_fan_in
from tinyjax.models.layers import ConvBN
from tinyjax.ops.conv import conv2d
from tinyjax.ops.pooling import max_pool_2x2

ACT = "hard_swish"
NUM_LEVELS = 5  # levels that NAS-FPN and BiFPN fuse
NECKS = {  # `model.neck` -> module in this folder, class
    "pan": ("necks", "PAN"),
    "fpn": ("fpn", "FPN"),
    "nasfpn": ("nasfpn", "NASFPN"),
    "bifpn": ("bifpn", "BiFPN"),
}
EXTRA_LEVELS = ("pool", "p5", "c5")  # see `FPN`


# ---- selection by the config


class NeckConfig(NamedTuple):
    """The options of necks as static data; each neck has some of them as fields."""

    name: str = "pan"  # a key of `NECKS`
    repeats: int = 1
    separable: bool = True
    extra_levels: str = "pool"  # see `FPN`


def neck_config(config: ConfigDict) -> NeckConfig:
    """Return the neck that `config.model` describes.

    Raises UserError for an unknown `model.neck` or `model.neck_extra_levels`, and for an option
    that the neck does not have.
    """
    fields = config.model
    if fields.neck not in NECKS:
        raise UserError(f"model.neck = {fields.neck!r}: {suggest(fields.neck, NECKS)}")
    if fields.neck_extra_levels not in EXTRA_LEVELS:
        hint = suggest(fields.neck_extra_levels, EXTRA_LEVELS)
        raise UserError(f"model.neck_extra_levels = {fields.neck_extra_levels!r}: {hint}")
    neck = NeckConfig(
        fields.neck, fields.neck_repeats, fields.neck_separable, fields.neck_extra_levels
    )
    for option, default in NeckConfig._field_defaults.items():
        value = getattr(neck, option)
        if option != "name" and value != default and option not in _options(neck):
            raise UserError(
                f"model.neck_{option} = {value}: the neck {neck.name} does not have this option; "
                f"give {default}, or another model.neck"
            )
    return neck


def build_neck(
    config: NeckConfig, strides: tuple[int, ...], width: int, name: str | None = None
) -> nn.Module:
    """Build the neck that returns levels of `strides` with `width` channels.

    name: of the module, needed inside a compact method.
    """
    return _neck_class(config)(width, strides, **_options(config), name=name)


def _neck_class(config: NeckConfig) -> Any:
    module, name = NECKS[config.name]
    return getattr(import_module(f"tinyjax.detectors.{module}"), name)


def _options(config: NeckConfig) -> dict[str, Any]:
    """The options in `config` that are fields of its neck."""
    fields = _neck_class(config).__dataclass_fields__
    return {k: v for k, v in config._asdict().items() if k in fields and k != "name"}


# ---- layers


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


class DepthwiseConv(nn.Module):
    """3 x 3 depthwise convolution: [B, H, W, C] -> [B, H/s, W/s, C]."""

    preserves_zeros = True

    stride: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = x.shape[-1]
        kernel = self.param("kernel", he_group_fan_out, (3, 3, 1, c), c)
        return conv2d(x, kernel.astype(x.dtype), self.stride, c)


class SeparableConvBN(nn.Module):
    """3 x 3 depthwise and pointwise convolution, then one BatchNorm, as in EfficientDet.

    [B, H, W, C] -> [B, H/s, W/s, width], without an activation.
    """

    preserves_zeros = True

    width: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = DepthwiseConv(self.stride, name="depthwise")(x)
        return ConvBN(self.width, name="pointwise")(x, train)


class Conv(nn.Module):
    """Convolution with bias: [B, H, W, C] -> [B, H/s, W/s, width].

    Initialized as torchvision's FPN. It is called like `ConvBN`; `train` changes nothing.
    """

    preserves_zeros = True

    width: int
    size: int = 1
    stride: int = 1

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        shape = (self.size, self.size, x.shape[-1], self.width)
        kernel = self.param("kernel", xavier_fan_in, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.width,))
        return conv2d(x, kernel.astype(x.dtype), self.stride) + bias.astype(x.dtype)


def upsample(x: Array, shape: tuple[int, ...], factor: int = 2) -> Array:
    """Upsample [B, h, w, C] by `factor` (nearest neighbor) and crop it to `shape`.

    shape: height and width, at most (factor h, factor w).
    """
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, factor, w, factor, c))
    return x.reshape(b, factor * h, factor * w, c)[:, : shape[0], : shape[1]]


def pool_levels(
    levels: dict[int, Array], coarsest: int, pool: Callable[[Array], Array]
) -> dict[int, Array]:
    """Add levels up to stride `coarsest`: each one is the next finer level, pooled by 2."""
    levels = dict(levels)
    while (stride := max(levels)) < coarsest:
        levels[2 * stride] = pool(levels[stride])
    return levels


# ---- inputs of NAS-FPN and BiFPN


def fused_strides(strides: Sequence[int]) -> tuple[int, ...]:
    """The strides that NAS-FPN and BiFPN fuse: five, from the finest level of the head.

    Raises ValueError if the head needs others.
    """
    fused = tuple(min(strides) * 2**i for i in range(NUM_LEVELS))
    if unknown := {*strides} - {*fused}:
        raise ValueError(f"strides {sorted(unknown)} are not among the fused strides {fused}")
    return fused


def project_features(
    features: dict[int, Array],
    strides: Iterable[int],
    width: int,
    pool: Callable[[Array], Array],
    train: bool,
) -> dict[int, Array]:
    """Project features to `width` channels by a 1 x 1 convolution with BatchNorm.

    Call it inside a compact method. Levels coarser than all features are pooled after the
    projection of the coarsest one.
    """
    strides = {*strides}
    levels = {
        s: ConvBN(width, name=f"lateral{s}")(features[s], train)
        for s in sorted({min(s, max(features)) for s in strides})
    }
    return pool_levels(levels, max(strides), pool)


# ---- the default neck


class PAN(nn.Module):
    """A feature pyramid (arXiv 1612.03144), then a path that downsamples (arXiv 1803.01534).

    The first goes from the coarsest feature to the finest level, the second to the coarsest level
    of the head. Both are done `repeats` times; all paths but the last go to the coarsest feature.
    """

    preserves_zeros = True

    width: int
    strides: tuple[int, ...]
    repeats: int = 1

    @nn.compact
    def __call__(self, features: dict[int, Array], train: bool) -> dict[int, Array]:
        features = pool_levels(features, max(self.strides), max_pool_2x2)
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
