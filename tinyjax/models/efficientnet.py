"""EfficientNet-B0 (arXiv 1905.11946) and its shrunken siblings B-1..B-7, as timm builds them."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from tinyjax.models import initializers, layers, scaling

BASES = {"b0": scaling.efficientnet}
VARIANTS = {
    f"b-{k}" if k else "b0": scaling.efficientnet(scaling.WIDTH**-k, scaling.DEPTH**-k)
    for k in range(8)
}


class Model(nn.Module):
    """x [B, H, W, C] -> (logits f32[B, classes] or None, {stride: features}), see `layers.trunk`.

    Without `classes` there is no classifier, and neither is its 1x1 convolution (`head`). Features
    are of `dtype`, the dtype computed in. `eps` and torch's `momentum` are timm's.
    """

    arch: scaling.Architecture
    classes: int | None = None
    dtype: DTypeLike = jnp.float32
    eps: float = 1e-5
    momentum: float = 0.1
    added: layers.Added = layers.PLAIN

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array | None, dict[int, Array]]:
        conv = partial(
            layers.ConvBN,
            initial=initializers.he_group_fan_out,
            eps=self.eps,
            momentum=self.momentum,
        )
        excite = partial(layers.SqueezeExcite, act="silu", gate="sigmoid")
        features = layers.trunk(
            x.astype(self.dtype), train, self.arch, "silu", conv, excite, self.added
        )
        if self.classes is None:
            return None, features
        y = conv(self.arch.head, act="silu", name="head")(features[32], train)
        y = y.mean((1, 2)).astype(jnp.promote_types(y.dtype, jnp.float32))
        return layers.Dense(self.classes, initializers.uniform_fan_out, name="classifier")(
            y
        ), features
