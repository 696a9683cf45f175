"""EfficientNet-B0 (arXiv 1905.11946) and its smaller siblings B-1..B-7, as timm builds them."""

from functools import partial

import flax.linen as nn
from jax import Array

from tinyjax.models import initializers, layers, scaling
from tinyjax.models.backbone import Backbone
from tinyjax.models.inverted_residual import InvertedResidual, timm_name, torchvision_name
from tinyjax.models.torch_names import TorchFormat

BASES = {"b0": scaling.efficientnet}
VARIANTS = {
    f"b-{k}" if k else "b0": scaling.efficientnet(scaling.WIDTH_RATIO**-k, scaling.DEPTH_RATIO**-k)
    for k in range(8)
}
TORCH_FORMATS = {
    "timm": TorchFormat(timm_name, eps=1e-5),
    "torchvision": TorchFormat(torchvision_name, eps=1e-5),
}


class Model(Backbone):
    """x [B, H, W, C] -> (logits f32[B, classes] or None, {2, 4, 8, 16, 32: features}).

    Features are the last outputs at each stride, [B, H/stride, W/stride, C], in the compute dtype
    `dtype`; odd sizes are rounded up at each level. Without `classes` the network ends after its
    stages: it has no 1x1 convolution (`head`) and no classifier. `eps` and `momentum` (torch's
    convention) are timm's.
    """

    preserves_zeros = True

    @nn.compact
    def __call__(self, x: Array, train: bool) -> tuple[Array | None, dict[int, Array]]:
        conv = partial(
            layers.ConvBN,
            kernel_init=initializers.he_group_fan_out,
            eps=self.eps,
            momentum=self.momentum,
        )
        excite = partial(layers.SqueezeExcite, act="silu", gate="sigmoid")
        block = partial(InvertedResidual, conv=conv, excite=excite)
        x = conv(self.arch.stem, 3, 2, act="silu", name="stem")(x.astype(self.dtype), train)
        features = {2: x} | self.forward_stages(x, train, block)
        if self.classes is None:
            return None, features
        y = conv(self.arch.head, act="silu", name="head")(features[32], train)
        y = layers.spatial_mean(y)
        classifier = layers.Dense(self.classes, initializers.uniform_fan_out, name="classifier")
        return classifier(y), features
