"""ShuffleNetV2 (arXiv 1807.11164) 0.5, 1.0, 1.5 and 2.0, and smaller siblings N-1..N-5 of our own,
as torchvision builds them.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
from jax import Array

from tinyjax.models import initializers, layers, scaling
from tinyjax.models.backbone import Backbone, Layers
from tinyjax.models.torch_names import TorchFormat, parse_number, split_path
from tinyjax.ops.pooling import max_pool

BASES = {"1.0": scaling.shufflenetv2}
VARIANTS = {
    **{
        name: scaling.shufflenetv2_of_channels(*channels)
        for name, channels in scaling.SHUFFLENETV2_CHANNELS.items()
    },
    **{f"n-{k}": scaling.shufflenetv2(scaling.WIDTH_RATIO**-k) for k in range(1, 6)},
}


class ShuffleUnit(nn.Module):
    """Convolutions 1x1, depthwise 3x3, 1x1 of the second half of the channels, interleaved with the
    first half.

    With a stride, they read all channels, and the first half of the output is a shortcut with
    depthwise and 1x1 convolutions. conv: ConvBN with the settings of the network.
    """

    # Only the input of a unit with a stride can have padded channels: in a supernet all networks
    # have the same `spec.out`.
    preserves_zeros = True

    spec: scaling.ShuffleUnit
    conv: Callable
    adapter: Callable | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        stride, half = self.spec.stride, self.spec.out // 2
        if self.spec.is_transition:
            shortcut = layers.DepthwiseShortcut(half, 3, stride, "relu", self.conv, name="shortcut")
            first, y = shortcut(x, train), x
        else:
            first, y = x[..., :half], x[..., half:]
        y = self.conv(half, act="relu", name="expand")(y, train)
        y = self.conv(half, 3, stride, groups=half, name="depthwise")(y, train)
        y = self.conv(half, act="relu", name="project")(y, train)
        return layers.add_adapter(self.adapter, layers.interleave(first, y), train)


class Model(Backbone):
    """x [B, H, W, C] -> (logits f32[B, classes] or None, {2, 4, 8, 16, 32: features}).

    See `Backbone`; features 2 and 4 are the stem's output before and after pooling. The head is a
    1x1 convolution.
    """

    preserves_zeros = True

    def layers(self) -> Layers:
        arch = self.arch
        conv = partial(
            layers.ConvBN,
            kernel_init=initializers.uniform_fan_in,
            eps=self.eps,
            momentum=self.momentum,
        )

        def stem(x, train):
            x = conv(arch.stem, 3, 2, act="relu", name="stem")(x, train)
            pooled = max_pool(x)
            return pooled, {2: x, 4: pooled}

        def head(x, train):
            return self.pooling(conv(arch.head, act="relu", name="head")(x, train))

        return Layers(
            stem,
            block=partial(ShuffleUnit, conv=conv),
            head=head,
            classifier=partial(layers.Dense, kernel_init=initializers.uniform_fan_in),
        )


# layer of a unit -> torchvision's branch, and number of the convolution in it
_BRANCHES = {
    "shortcut/depthwise": ("branch1", 0),
    "shortcut/project": ("branch1", 2),
    "expand": ("branch2", 0),
    "depthwise": ("branch2", 3),
    "project": ("branch2", 5),
}


def torchvision_name(path: str, arch: scaling.Architecture) -> str:
    """E.g. "stage3/block0/project/bn/mean" -> "stage4.0.branch2.6.running_mean"."""
    layer, is_norm, leaf = split_path(path)
    match layer:
        case ["stem"]:
            module = f"conv1.{is_norm:d}"
        case ["head"]:
            module = f"conv5.{is_norm:d}"
        case ["classifier"]:
            module = "fc"
        case [stage, block, *names]:
            branch, number = _BRANCHES["/".join(names)]
            module = f"stage{parse_number(stage) + 1}.{parse_number(block)}."
            module += f"{branch}.{number + is_norm}"
        case _:
            raise ValueError(f"{path!r} is not a path of a backbone")
    return f"{module}.{leaf}"


TORCH_FORMATS = {"torchvision": TorchFormat(torchvision_name, eps=1e-5)}
