"""The inverted residual of EfficientNet and MobileNetV3, and its names in timm and torchvision.

The names are exact for timm's efficientnet_b0 and mobilenetv3_*_100 (not the tf_ variants, which
pad differently), for torchvision's efficientnet_b0 and mobilenet_v3_*, and for scaled networks
built with these libraries.
"""

from collections.abc import Callable
from functools import cache

import flax.linen as nn
from jax import Array

from tinyjax.models.layers import add_adapter, resize_channels
from tinyjax.models.scaling import Architecture, MBConv
from tinyjax.models.torch_names import parse_number, split_path


class InvertedResidual(nn.Module):
    """MBConv: expand 1x1, depthwise, squeeze-excite, project 1x1, and a skip if shapes are equal.

    `conv` and `excite` are ConvBN and SqueezeExcite with the family's settings. `spec.gates` names
    the block's gates: untrained 0/1 numbers among the parameters, see `models.supernet`.
    """

    preserves_zeros = True

    spec: MBConv
    conv: Callable
    excite: Callable
    adapter: Callable | None = None  # an `Adapter` with the family's settings

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        expand, out, act, gates = self.spec.expand, self.spec.out, self.spec.act, self.spec.gates

        @cache
        def gate(name):
            return self.param(name, nn.initializers.ones, ()).astype(x.dtype)

        y = x
        if expand != x.shape[-1]:
            y = self.conv(expand, act=act, name="expand")(y, train)
        if "expands" in gates:
            expands = gate("expands")
            y = expands * y + (1 - expands) * resize_channels(x, expand)
        depthwise = self.conv(
            expand, self.spec.kernel, self.spec.stride, groups=expand, act=act, name="depthwise"
        )
        y = depthwise(y, train)
        if self.spec.squeeze:
            y = self.excite(self.spec.squeeze, name="se")(y)
        y = self.conv(out, name="project")(y, train)
        if "alive" in gates:
            y = gate("alive") * y
        if "skip" in gates:
            y = gate("skip") * resize_channels(x, out) + y
        elif not self.spec.is_transition and x.shape[-1] == out:
            y = x + y
        alive = gate("alive") if "alive" in gates else None
        return add_adapter(self.adapter, y, train, alive)


# ---- names in state dicts


def timm_name(path: str, arch: Architecture) -> str:
    """E.g. "stage3/block0/expand/bn/mean" -> "blocks.2.0.bn1.running_mean".

    timm stores the `head` of MobileNetV3 as one more stage, and `hidden` as the convolution
    `conv_head`.
    """
    layer, is_norm, leaf = split_path(path)
    match layer:
        case ["stem"]:
            module = "bn1" if is_norm else "conv_stem"
        case ["head"] if arch.hidden:
            module = f"blocks.{len(arch.stages)}.0." + ("bn1" if is_norm else "conv")
        case ["head"]:
            module = "bn2" if is_norm else "conv_head"
        case ["hidden"]:
            module = "conv_head"
        case ["classifier"]:
            module = "classifier"
        case [stage, block, "se", se_layer]:
            module = f"blocks.{parse_number(stage) - 1}.{parse_number(block)}.se.conv_{se_layer}"
        case [stage, block, conv]:
            convs = [layer for layer in _block_layers(arch, stage, block) if layer != "se"]
            # In a block without expansion, timm counts the layers from the depthwise convolution.
            has_expansion = "expand" in convs
            names = ["conv_pw", "conv_dw", "conv_pwl"] if has_expansion else ["conv_dw", "conv_pw"]
            i = convs.index(conv)
            module = f"blocks.{parse_number(stage) - 1}.{parse_number(block)}."
            module += f"bn{i + 1}" if is_norm else names[i]
        case _:
            raise ValueError(f"{path!r} is not a path of a backbone")
    return f"{module}.{leaf}"


def torchvision_name(path: str, arch: Architecture) -> str:
    """E.g. "stage3/block0/expand/bn/mean" -> "features.3.0.block.0.1.running_mean".

    torchvision counts EfficientNet's blocks within a stage, MobileNetV3's across stages.
    """
    layer, is_norm, leaf = split_path(path)
    depths = [len(stage) for stage in arch.stages]
    match layer:
        case ["stem"]:
            module = f"features.0.{is_norm:d}"
        case ["head"]:
            module = f"features.{1 + (sum(depths) if arch.hidden else len(depths))}.{is_norm:d}"
        case ["hidden"]:
            module = "classifier.0"
        case ["classifier"]:
            module = "classifier.3" if arch.hidden else "classifier.1"
        case [stage, block, name, *se_layer]:
            s, b = parse_number(stage), parse_number(block)
            index = f"{1 + sum(depths[: s - 1]) + b}" if arch.hidden else f"{s}.{b}"
            module = f"features.{index}.block.{_block_layers(arch, stage, block).index(name)}."
            fc_names = {"reduce": "fc1", "expand": "fc2"}
            module += fc_names[se_layer[0]] if se_layer else f"{is_norm:d}"
        case _:
            raise ValueError(f"{path!r} is not a path of a backbone")
    return f"{module}.{leaf}"


def _block_layers(arch: Architecture, stage: str, block: str) -> list[str]:
    """Return a block's layers in order; "expand" and "se" may be absent."""
    s, b = parse_number(stage) - 1, parse_number(block)
    preceding = [spec for specs in arch.stages[:s] for spec in specs] + [*arch.stages[s][:b]]
    inputs = preceding[-1].out if preceding else arch.stem
    spec = arch.stages[s][b]
    layers = ["expand"] if spec.expand != inputs else []
    return [*layers, "depthwise", *(["se"] if spec.squeeze else []), "project"]
