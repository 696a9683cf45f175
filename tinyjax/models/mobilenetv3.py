"""MobileNetV3 (arXiv 1905.02244) Large and Small, and Small's siblings S-1..S-6, as torchvision
builds them.
"""

from functools import partial

import flax.linen as nn
from jax import Array

from tinyjax.models import initializers, layers, scaling
from tinyjax.models.backbone import Backbone
from tinyjax.models.inverted_residual import InvertedResidual, timm_name, torchvision_name
from tinyjax.models.torch_names import TorchFormat

BASES = {"large": scaling.mobilenetv3_large, "small": scaling.mobilenetv3_small}
VARIANTS = {
    **{name: base() for name, base in BASES.items()},
    **{f"s-{k}": scaling.mobilenetv3_small(scaling.WIDTH_RATIO**-k) for k in range(7)},
}
TORCH_FORMATS = {
    "torchvision": TorchFormat(torchvision_name, eps=1e-3),
    "timm": TorchFormat(timm_name, eps=1e-5),
}


class Model(Backbone):
    """x [B, H, W, C] -> (logits f32[B, classes] or None, {2, 4, 8, 16, 32: features}).

    Features are those of `efficientnet.Model`. Without `classes` the network ends after its stages:
    it has no 1x1 convolution (`head`), no hidden layer and no classifier. There is no dropout.
    `eps` is torchvision's; weights trained in timm need 1e-5. `momentum` (torch's convention) is
    timm's: with torchvision's 0.01 the running statistics lag behind in runs of a few hundred
    steps.
    """

    preserves_zeros = True

    eps: float = 1e-3

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array | None, dict[int, Array]]:
        conv = partial(layers.ConvBN, eps=self.eps, momentum=self.momentum)
        excite = partial(layers.SqueezeExcite, act="relu", gate="hard_sigmoid")
        block = partial(InvertedResidual, conv=conv, excite=excite)
        x = conv(self.arch.stem, 3, 2, act="hard_swish", name="stem")(x.astype(self.dtype), train)
        features = {2: x} | self.forward_stages(x, train, block)
        if self.classes is None:
            return None, features
        dense = partial(layers.Dense, kernel_init=initializers.small_normal)
        y = conv(self.arch.head, act="hard_swish", name="head")(features[32], train)
        y = nn.hard_swish(dense(self.arch.hidden, name="hidden")(layers.spatial_mean(y)))
        return dense(self.classes, name="classifier")(y), features
