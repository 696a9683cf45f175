"""The feature pyramid network (arXiv 1612.03144)."""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
from jax import Array

from tinyjax.detectors.necks import Conv, SeparableConvBN, upsample
from tinyjax.models.layers import ConvBN


class FPN(nn.Module):
    """Backbone features {stride: [B, h, w, c]} -> {stride: [B, h, w, width]} for `strides`.

    All features at the finest of `strides` and coarser are projected to `width` channels; each one
    is added to the next finer one, and a 3 x 3 convolution follows. There is no activation.

    separable: separable 3 x 3 convolutions, and BatchNorm after every convolution. If false, dense
        convolutions with bias and without BatchNorm, as torchvision's `FeaturePyramidNetwork`.
    extra_levels: levels coarser than all features. "pool": each is every second row and column of
        the next finer level (`LastLevelMaxPool` of torchvision). "p5" and "c5": each is a 3 x 3
        convolution with stride 2, the first one of the coarsest output or of the coarsest feature,
        further ones of relu(next finer level) (`LastLevelP6P7`).
    """

    preserves_zeros = True

    width: int
    strides: tuple[int, ...]
    separable: bool = True
    extra_levels: str = "pool"

    @nn.compact
    def __call__(self, features: dict[int, Array], train: bool) -> dict[int, Array]:
        lateral: Callable[..., nn.Module] = ConvBN if self.separable else Conv
        levels: dict[int, Array] = {}
        coarser = None
        for s in sorted((s for s in features if s >= min(self.strides)), reverse=True):
            y = lateral(self.width, name=f"lateral{s}")(features[s], train)
            if coarser is not None:
                y = y + upsample(coarser, y.shape[1:3])
            coarser = y
            if s in self.strides:
                levels[s] = self._conv3x3(name=f"output{s}")(y, train)
        self._add_extra_levels(levels, features, train)
        return {s: levels[s] for s in self.strides}

    def _conv3x3(self, **options) -> nn.Module:
        conv = SeparableConvBN if self.separable else partial(Conv, size=3)
        return conv(self.width, **options)

    def _add_extra_levels(
        self, levels: dict[int, Array], features: dict[int, Array], train: bool
    ) -> None:
        """Add the levels of `strides` that are coarser than all features."""
        coarsest = max(features)
        for s in sorted(s for s in self.strides if s > coarsest):
            x = levels[s // 2]
            if self.extra_levels == "pool":
                levels[s] = x[:, ::2, ::2]
                continue
            if s > 2 * coarsest:
                x = nn.relu(x)
            elif self.extra_levels == "c5":
                x = features[coarsest]
            levels[s] = self._conv3x3(stride=2, name=f"extra{s}")(x, train)
