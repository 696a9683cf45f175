"""Names that timm and torchvision give to the weights of our backbones.

A path and its architecture determine the name in a `state_dict`; `from_torch_layout` converts the
array. Exact for timm's efficientnet_b0 and mobilenetv3_*_100 (not the tf_ variants, which pad
differently), torchvision's efficientnet_b0 and mobilenet_v3_*, and the scaled networks built by
those libraries. Paths are relative to the backbone ("stem/kernel", without "backbone/"); any other
path raises ValueError.
"""

import re
from collections.abc import Callable

import numpy as np

from tinyjax.models.scaling import Architecture

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def timm_name(path: str, arch: Architecture) -> str:
    """E.g. "stage3/block0/expand/bn/mean" -> "blocks.2.0.bn1.running_mean".

    timm stores the `head` of MobileNetV3 as one more stage, and `hidden` as the convolution
    `conv_head`.
    """
    layer, is_norm, leaf = _split(path)
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
        case [stage, block, "se", side]:
            module = f"blocks.{_number(stage) - 1}.{_number(block)}.se.conv_{side}"
        case [stage, block, conv]:
            convs = [layer for layer in _block_layers(arch, stage, block) if layer != "se"]
            # In a block without expansion, timm numbers the layers from the depthwise one.
            without_expansion = ["conv_dw", "conv_pw"]
            names = ["conv_pw", "conv_dw", "conv_pwl"] if "expand" in convs else without_expansion
            i = convs.index(conv)
            module = f"blocks.{_number(stage) - 1}.{_number(block)}."
            module += f"bn{i + 1}" if is_norm else names[i]
        case _:
            raise ValueError(f"{path!r} is not a path of a backbone")
    return f"{module}.{leaf}"


def torchvision_name(path: str, arch: Architecture) -> str:
    """E.g. "stage3/block0/expand/bn/mean" -> "features.3.0.block.0.1.running_mean".

    torchvision numbers EfficientNet's blocks per stage, MobileNetV3's consecutively.
    """
    layer, is_norm, leaf = _split(path)
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
        case [stage, block, name, *side]:
            s, b = _number(stage), _number(block)
            index = f"{1 + sum(depths[: s - 1]) + b}" if arch.hidden else f"{s}.{b}"
            module = f"features.{index}.block.{_block_layers(arch, stage, block).index(name)}."
            module += {"reduce": "fc1", "expand": "fc2"}[side[0]] if side else f"{is_norm:d}"
        case _:
            raise ValueError(f"{path!r} is not a path of a backbone")
    return f"{module}.{leaf}"


# library -> (path, architecture) -> name in its state dict
NAME_FUNCTIONS: dict[str, Callable[[str, Architecture], str]] = {
    "timm": timm_name,
    "torchvision": torchvision_name,
}


def from_torch_layout(value: np.ndarray, ndim: int) -> np.ndarray:
    """Convert an array from torch's layout to ours, which has `ndim` axes.

    Convolutions (out, in, k, k) -> (k, k, in, out). Linear layers (out, in), or the convolutions
    (out, in, 1, 1) that replace them in squeeze-excite and `hidden`, -> (in, out). Vectors are
    unchanged.
    """
    if ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if ndim == 2:
        return value.reshape(value.shape[:2]).T
    return value


def _split(path: str) -> tuple[list[str], bool, str]:
    """E.g. "stem/bn/mean" -> (["stem"], True, "running_mean")."""
    *layer, leaf = path.split("/")
    is_norm = layer[-1] == "bn"
    return (layer[:-1] if is_norm else layer), is_norm, _LEAVES[leaf]


def _number(name: str) -> int:
    """E.g. "stage3" -> 3."""
    return int(re.sub(r"\D", "", name))


def _block_layers(arch: Architecture, stage: str, block: str) -> list[str]:
    """Return the layers of a block in order; expansion and squeeze-excite may be absent."""
    s, b = _number(stage) - 1, _number(block)
    before = [spec for specs in arch.stages[:s] for spec in specs] + [*arch.stages[s][:b]]
    inputs = before[-1].out if before else arch.stem
    spec = arch.stages[s][b]
    layers = ["expand"] if spec.expand != inputs else []
    return [*layers, "depthwise", *(["se"] if spec.squeeze else []), "project"]
