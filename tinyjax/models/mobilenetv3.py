"""MobileNetV3 (arXiv 1905.02244) Large and Small, and Small's siblings S-1..S-6, as torchvision
builds them.
"""

from functools import partial

import flax.linen as nn

from tinyjax.models import initializers, layers, scaling
from tinyjax.models.backbone import Backbone, Layers
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

    See `Backbone`; the head is a 1x1 convolution, and a hidden layer after pooling. There is no
    dropout. `eps` is torchvision's; weights trained in timm need 1e-5. `momentum` is timm's: with
    torchvision's 0.01 the running statistics lag behind in runs of a few hundred steps.
    """

    preserves_zeros = True

    eps: float = 1e-3

    def layers(self) -> Layers:
        arch = self.arch
        conv = partial(layers.ConvBN, eps=self.eps, momentum=self.momentum)
        excite = partial(layers.SqueezeExcite, act="relu", gate="hard_sigmoid")
        dense = partial(layers.Dense, kernel_init=initializers.small_normal)

        def stem(x, train):
            x = conv(arch.stem, 3, 2, act="hard_swish", name="stem")(x, train)
            return x, {2: x}

        def head(x, train):
            y = self.pooling(conv(arch.head, act="hard_swish", name="head")(x, train))
            return nn.hard_swish(dense(arch.hidden, name="hidden")(y)) if arch.hidden else y

        block = partial(InvertedResidual, conv=conv, excite=excite)
        return Layers(stem, block, head, classifier=dense)
