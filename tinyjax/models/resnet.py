"""ResNet-18, 34, 50 and 101 (arXiv 1512.03385), as torchvision and timm build them: the stride of a
bottleneck is in its 3x3 convolution ("V1.5").
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
from jax import Array

from tinyjax.models import initializers, layers, scaling
from tinyjax.models.backbone import Backbone, Layers
from tinyjax.models.torch_names import TorchFormat, parse_number, split_path
from tinyjax.ops.pooling import max_pool

BASES = {
    "18": scaling.resnet18,
    "34": scaling.resnet34,
    "50": scaling.resnet50,
    "101": scaling.resnet101,
}
VARIANTS = {name: base() for name, base in BASES.items()}


class ResidualBlock(nn.Module):
    """Convolutions 3x3, 3x3 or 1x1, 3x3, 1x1, added to the input or to its 1x1 projection.

    conv: ConvBN with the settings of the network. In a supernet, `spec.gates` may hold "alive", see
    `models.supernet`: then an absent block is the identity.
    """

    preserves_zeros = True

    spec: scaling.Residual
    conv: Callable
    adapter: Callable | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        stride, width, out = self.spec.stride, self.spec.width, self.spec.out
        if self.spec.bottleneck:
            y = self.conv(width, act="relu", name="conv1")(x, train)
            y = self.conv(width, 3, stride, act="relu", name="conv2")(y, train)
            y = self.conv(out, name="conv3")(y, train)
        else:
            y = self.conv(width, 3, stride, act="relu", name="conv1")(x, train)
            y = self.conv(out, 3, name="conv2")(y, train)
        if self.spec.is_transition or x.shape[-1] != out:
            x = self.conv(out, 1, stride, name="shortcut")(x, train)
        alive = None
        y = nn.relu(x + y)
        if "alive" in self.spec.gates:
            alive = self.param("alive", nn.initializers.ones, ()).astype(x.dtype)
            # An adapter's output may be negative, so that relu(x) is not the identity.
            y = alive * y + (1 - alive) * x
        return layers.add_adapter(self.adapter, y, train, alive)


class Model(Backbone):
    """x [B, H, W, C] -> (logits f32[B, classes] or None, {2, 4, 8, 16, 32: features}).

    See `Backbone`; feature 2 is the stem's output before pooling. There is no head.
    """

    preserves_zeros = True

    def layers(self) -> Layers:
        conv = partial(layers.ConvBN, eps=self.eps, momentum=self.momentum)

        def stem(x, train):
            x = conv(self.arch.stem, 7, 2, act="relu", name="stem")(x, train)
            return max_pool(x), {2: x}

        return Layers(
            stem,
            block=partial(ResidualBlock, conv=conv),
            head=lambda x, train: self.pooling(x),
            classifier=partial(layers.Dense, kernel_init=initializers.uniform_fan_in),
        )


def torchvision_name(path: str, arch: scaling.Architecture) -> str:
    """E.g. "stage3/block0/conv2/bn/mean" -> "layer3.0.bn2.running_mean"; also timm's name."""
    layer, is_norm, leaf = split_path(path)
    match layer:
        case ["stem"]:
            module = "bn1" if is_norm else "conv1"
        case ["classifier"]:
            module = "fc"
        case [stage, block, "shortcut"]:
            module = f"layer{parse_number(stage)}.{parse_number(block)}.downsample.{is_norm:d}"
        case [stage, block, conv]:
            module = f"layer{parse_number(stage)}.{parse_number(block)}."
            module += f"{'bn' if is_norm else 'conv'}{parse_number(conv)}"
        case _:
            raise ValueError(f"{path!r} is not a path of a backbone")
    return f"{module}.{leaf}"


TORCH_FORMATS = {"torchvision": TorchFormat(torchvision_name, eps=1e-5)}
