"""MobileNetV3 (arXiv 1905.02244) Large and Small, and Small's siblings S-1..S-6, as torchvision
builds them.
"""

from functools import partial

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from tinyjax.models import initializers, layers, scaling

BASES = {"large": scaling.mobilenetv3_large, "small": scaling.mobilenetv3_small}
VARIANTS = {
    **{name: base() for name, base in BASES.items()},
    **{f"s-{k}": scaling.mobilenetv3_small(scaling.WIDTH_RATIO**-k) for k in range(7)},
}


class Model(nn.Module):
    """x [B, H, W, C] -> (logits f32[B, classes] or None, {stride: features}).

    For the features see `layers.forward_features`; they have the compute dtype `dtype`. Without
    `classes` the network ends after its stages: it has no 1x1 convolution (`head`), no hidden layer
    and no classifier. There is no dropout. `eps` is torchvision's; weights trained in timm need
    1e-5. `momentum` (torch's convention) is timm's: with torchvision's 0.01 the running statistics
    lag behind in runs of a few hundred steps.
    """

    preserves_zeros = True

    arch: scaling.Architecture
    classes: int | None = None
    dtype: DTypeLike = jnp.float32
    eps: float = 1e-3
    momentum: float = 0.1
    extra_layers: layers.ExtraLayers = layers.NO_EXTRA_LAYERS

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array | None, dict[int, Array]]:
        conv = partial(layers.ConvBN, eps=self.eps, momentum=self.momentum)
        excite = partial(layers.SqueezeExcite, act="relu", gate="hard_sigmoid")
        features = layers.forward_features(
            x.astype(self.dtype), train, self.arch, "hard_swish", conv, excite, self.extra_layers
        )
        if self.classes is None:
            return None, features
        dense = partial(layers.Dense, kernel_init=initializers.small_normal)
        y = conv(self.arch.head, act="hard_swish", name="head")(features[32], train)
        y = y.mean((1, 2)).astype(jnp.promote_types(y.dtype, jnp.float32))
        y = nn.hard_swish(dense(self.arch.hidden, name="hidden")(y))
        return dense(self.classes, name="classifier")(y), features
