"""GhostNet (arXiv 1911.11907) 0.5, 1.0 and 1.3, and smaller siblings G-1..G-7 of our own, as timm
and the authors build them, without dropout.

A ghost module computes half of its output channels from its input, and the other half from the
first. timm concatenates the halves; we interleave them, because a concatenation of zero-padded
halves is not the zero-padded concatenation. Therefore all features, from the stem on, have timm's
channels in another order, in which `from_timm_layout` stores the weights.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import numpy as np
from jax import Array

from tinyjax.models import initializers, layers, scaling
from tinyjax.models.backbone import Backbone, Layers
from tinyjax.models.torch_names import TorchFormat, from_torch_layout, parse_number, split_path

BASES = {"1.0": scaling.ghostnet}
VARIANTS = {
    **{name: scaling.ghostnet(float(name))._replace(hidden=1280) for name in ("0.5", "1.0", "1.3")},
    **{f"g-{k}": scaling.ghostnet(scaling.WIDTH_RATIO**-k) for k in range(1, 8)},
}


class GhostModule(nn.Module):
    """A 1x1 convolution, interleaved with a depthwise 3x3 convolution of its output.

    features: channels of the output, an even number. act: of both convolutions.
    """

    preserves_zeros = True

    features: int
    act: str
    conv: Callable

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        half = self.features // 2
        primary = self.conv(half, act=self.act, name="primary")(x, train)
        cheap = self.conv(half, 3, groups=half, act=self.act, name="cheap")(primary, train)
        return layers.interleave(primary, cheap)


class GhostBottleneck(nn.Module):
    """Ghost module, depthwise convolution if there is a stride, squeeze-excite, ghost module, added
    to the input or to its depthwise and 1x1 convolution.

    `conv` and `excite` are ConvBN and SqueezeExcite with the settings of the network.
    """

    preserves_zeros = True

    spec: scaling.GhostBottleneck
    conv: Callable
    excite: Callable
    adapter: Callable | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        kernel, stride, out = self.spec.kernel, self.spec.stride, self.spec.out
        expand = self.spec.expand
        y = GhostModule(expand, "relu", self.conv, name="ghost1")(x, train)
        if self.spec.is_transition:
            y = self.conv(expand, kernel, stride, groups=expand, name="depthwise")(y, train)
        if self.spec.squeeze:
            y = self.excite(self.spec.squeeze, name="se")(y)
        y = GhostModule(out, "identity", self.conv, name="ghost2")(y, train)
        if self.spec.is_transition or x.shape[-1] != out:
            x = layers.DepthwiseShortcut(
                out, kernel, stride, "identity", self.conv, name="shortcut"
            )(x, train)
        return layers.add_adapter(self.adapter, x + y, train)


class Model(Backbone):
    """x [B, H, W, C] -> (logits f32[B, classes] or None, {2, 4, 8, 16, 32: features}).

    See `Backbone`; the head is a 1x1 convolution, and a hidden layer after pooling.
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
        excite = partial(layers.SqueezeExcite, act="relu", gate="hard_sigmoid")
        dense = partial(layers.Dense, kernel_init=initializers.uniform_fan_in)

        def stem(x, train):
            x = conv(arch.stem, 3, 2, act="relu", name="stem")(x, train)
            return x, {2: x}

        def head(x, train):
            y = self.pooling(conv(arch.head, act="relu", name="head")(x, train))
            return nn.relu(dense(arch.hidden, name="hidden")(y)) if arch.hidden else y

        block = partial(GhostBottleneck, conv=conv, excite=excite)
        return Layers(stem, block, head, classifier=dense)


# ---- names and layout in timm's and the authors' state dicts

# layer of a bottleneck -> timm's convolution and BatchNorm
_MODULES = {
    "ghost1/primary": ("ghost1.primary_conv.0", "ghost1.primary_conv.1"),
    "ghost1/cheap": ("ghost1.cheap_operation.0", "ghost1.cheap_operation.1"),
    "depthwise": ("conv_dw", "bn_dw"),
    "se/reduce": ("se.conv_reduce", ""),
    "se/expand": ("se.conv_expand", ""),
    "ghost2/primary": ("ghost2.primary_conv.0", "ghost2.primary_conv.1"),
    "ghost2/cheap": ("ghost2.cheap_operation.0", "ghost2.cheap_operation.1"),
    "shortcut/depthwise": ("shortcut.0", "shortcut.1"),
    "shortcut/project": ("shortcut.2", "shortcut.3"),
}
# layers that read interleaved channels, other than depthwise convolutions
_INTERLEAVED_INPUTS = ("ghost1/primary", "ghost2/primary", "se/reduce", "shortcut/project", "head")
# layers whose outputs are in the order of interleaved channels
_INTERLEAVED_OUTPUTS = ("stem", "depthwise", "se/expand", "shortcut/depthwise", "shortcut/project")


def timm_name(path: str, arch: scaling.Architecture) -> str:
    """E.g. "stage3/block0/ghost1/cheap/bn/mean" ->
    "blocks.2.0.ghost1.cheap_operation.1.running_mean".

    timm stores the `head` as one more stage, and `hidden` as the convolution `conv_head`.
    """
    layer, is_norm, leaf = split_path(path)
    match layer:
        case ["stem"]:
            module = "bn1" if is_norm else "conv_stem"
        case ["head"]:
            module = f"blocks.{len(arch.stages)}.0." + ("bn1" if is_norm else "conv")
        case ["hidden"]:
            module = "conv_head"
        case ["classifier"]:
            module = "classifier"
        case [stage, block, *names]:
            module = f"blocks.{parse_number(stage) - 1}.{parse_number(block)}."
            module += _MODULES["/".join(names)][is_norm]
        case _:
            raise ValueError(f"{path!r} is not a path of a backbone")
    return f"{module}.{leaf}"


def from_timm_layout(path: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Convert the array of `path` to our layout and order of channels; see `from_torch_layout`.

    Channel 2 i is timm's channel i, and 2 i + 1 is timm's channel n / 2 + i of n.
    """
    array = from_torch_layout(path, value, shape)
    if array.shape != shape:
        return array  # the caller reports it
    layer, *_ = split_path(path)
    name = "/".join(layer[2:]) or layer[0]
    axes = [-1] if name in _INTERLEAVED_OUTPUTS else []
    if name in _INTERLEAVED_INPUTS and path.endswith("/kernel"):
        axes.append(-2)
    for axis in axes:
        order = np.arange(shape[axis]).reshape(2, -1).T.ravel()
        array = array.take(order, axis)
    return array


TORCH_FORMATS = {"timm": TorchFormat(timm_name, eps=1e-5, convert=from_timm_layout)}
