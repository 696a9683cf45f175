"""EfficientNet-B0 (arXiv 1905.11946) and its smaller siblings B-1..B-7, as timm builds them."""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from tinyjax.models import initializers, layers, scaling

BASES = {"b0": scaling.efficientnet}
VARIANTS = {
    f"b-{k}" if k else "b0": scaling.efficientnet(scaling.WIDTH_RATIO**-k, scaling.DEPTH_RATIO**-k)
    for k in range(8)
}


class Model(nn.Module):
    """x [B, H, W, C] -> (logits f32[B, classes] or None, {stride: features}).

    For the features see `layers.forward_features`; they have the compute dtype `dtype`. Without
    `classes` the network ends after its stages: it has no 1x1 convolution (`head`) and no
    classifier. `eps` and `momentum` (torch's convention) are timm's.
    """

    preserves_zeros = True

    arch: scaling.Architecture
    classes: int | None = None
    dtype: DTypeLike = jnp.float32
    eps: float = 1e-5
    momentum: float = 0.1
    extra_layers: layers.ExtraLayers = layers.NO_EXTRA_LAYERS

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array | None, dict[int, Array]]:
        conv = partial(
            layers.ConvBN,
            kernel_init=initializers.he_group_fan_out,
            eps=self.eps,
            momentum=self.momentum,
        )
        excite = partial(layers.SqueezeExcite, act="silu", gate="sigmoid")
        features = layers.forward_features(
            x.astype(self.dtype), train, self.arch, "silu", conv, excite, self.extra_layers
        )
        if self.classes is None:
            return None, features
        y = conv(self.arch.head, act="silu", name="head")(features[32], train)
        y = y.mean((1, 2)).astype(jnp.promote_types(y.dtype, jnp.float32))
        classifier = layers.Dense(self.classes, initializers.uniform_fan_out, name="classifier")
        return classifier(y), features
