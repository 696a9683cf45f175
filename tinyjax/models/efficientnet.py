"""EfficientNet-B0 (arXiv 1905.11946) and its smaller siblings B-1..B-7, as timm builds them."""

from functools import partial

from tinyjax.models import initializers, layers, scaling
from tinyjax.models.backbone import Backbone, Layers
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

    See `Backbone`; the head is a 1x1 convolution. `eps` and `momentum` are timm's.
    """

    preserves_zeros = True

    def layers(self) -> Layers:
        arch = self.arch
        conv = partial(
            layers.ConvBN,
            kernel_init=initializers.he_group_fan_out,
            eps=self.eps,
            momentum=self.momentum,
        )
        excite = partial(layers.SqueezeExcite, act="silu", gate="sigmoid")

        def stem(x, train):
            x = conv(arch.stem, 3, 2, act="silu", name="stem")(x, train)
            return x, {2: x}

        def head(x, train):
            return self.pooling(conv(arch.head, act="silu", name="head")(x, train))

        return Layers(
            stem,
            block=partial(InvertedResidual, conv=conv, excite=excite),
            head=head,
            classifier=partial(layers.Dense, kernel_init=initializers.uniform_fan_out),
        )
