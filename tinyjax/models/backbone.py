"""What the networks of all families share: their fields, and stages of blocks."""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from tinyjax.models.layers import (
    EXCITE_SETTINGS,
    NO_EXTRA_LAYERS,
    Adapter,
    ExtraLayers,
    LayerNorm,
    SqueezeExcite,
)
from tinyjax.models.scaling import Architecture, make_divisible


class Stage(nn.Module):
    """A sequence of blocks, with their extra layers.

    block: builds the module of a block, `block(spec, adapter=adapter, name=name)`.
    norm_eps: of a LayerNorm after the blocks; 0: none.
    """

    preserves_zeros = True

    specs: tuple[Any, ...]
    block: Callable
    extra_layers: ExtraLayers
    eps: float
    momentum: float
    norm_eps: float = 0

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        adapter = None
        if self.extra_layers.adapters:
            adapter = partial(Adapter, self.eps, self.momentum)
        for i, spec in enumerate(self.specs):
            x = self.block(spec, adapter=adapter, name=f"block{i}")(x, train)
        if self.norm_eps:
            x = LayerNorm(self.norm_eps, name="norm")(x)
        if self.extra_layers.excite:
            squeeze = make_divisible(x.shape[-1] / 4)
            settings = EXCITE_SETTINGS[self.extra_layers.excite]
            x = SqueezeExcite(squeeze, "relu", **settings, name="excite")(x)
        return x


class Backbone(nn.Module):
    """x [B, H, W, C] -> (logits f32[B, classes] or None, {stride: features}).

    Features are the last outputs at each stride, [B, H/stride, W/stride, C], in the compute dtype
    `dtype`; odd sizes are rounded up at each level. Without `classes` the network ends after its
    stages: it has no head, no hidden layer and no classifier. `eps` and `momentum` (torch's
    convention) are those of BatchNorm; in families without it, of adapters.
    """

    arch: Architecture
    classes: int | None = None
    dtype: DTypeLike = jnp.float32
    eps: float = 1e-5
    momentum: float = 0.1
    extra_layers: ExtraLayers = NO_EXTRA_LAYERS

    def forward_stages(
        self, x: Array, train: bool, block: Callable, norm_eps: float = 0
    ) -> dict[int, Array]:
        """Apply the stages to the output of the stem, and return the last output at each stride.

        Call it inside a compact method. block, norm_eps: see `Stage`.
        """
        features = {}
        for n, (specs, stride) in enumerate(
            zip(self.arch.stages, self.arch.strides, strict=True), start=1
        ):
            stage = Stage(
                specs, block, self.extra_layers, self.eps, self.momentum, norm_eps, name=f"stage{n}"
            )
            x = stage(x, train)
            features[stride] = x
        return features
