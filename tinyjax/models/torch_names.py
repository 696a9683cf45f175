"""Names of our backbones' weights in the state dicts of timm and torchvision.

A path and its architecture determine the name; `from_torch_layout` converts the array. The names
are exact for timm's efficientnet_b0 and mobilenetv3_*_100 (not the tf_ variants, which pad
differently), for torchvision's efficientnet_b0 and mobilenet_v3_*, and for scaled networks built
with these libraries. Paths are relative to the backbone ("stem/kernel", without "backbone/"); any
other path raises ValueError.
"""

import re
from collections.abc import Callable

import numpy as np

from tinyjax.models.scaling import Architecture

_LEAF_NAMES = {
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
    layer, is_norm, leaf = _split_path(path)
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
            module = f"blocks.{_parse_number(stage) - 1}.{_parse_number(block)}.se.conv_{se_layer}"
        case [stage, block, conv]:
            convs = [layer for layer in _block_layers(arch, stage, block) if layer != "se"]
            # In a block without expansion, timm counts the layers from the depthwise convolution.
            has_expansion = "expand" in convs
            names = ["conv_pw", "conv_dw", "conv_pwl"] if has_expansion else ["conv_dw", "conv_pw"]
            i = convs.index(conv)
            module = f"blocks.{_parse_number(stage) - 1}.{_parse_number(block)}."
            module += f"bn{i + 1}" if is_norm else names[i]
        case _:
            raise ValueError(f"{path!r} is not a path of a backbone")
    return f"{module}.{leaf}"


def torchvision_name(path: str, arch: Architecture) -> str:
    """E.g. "stage3/block0/expand/bn/mean" -> "features.3.0.block.0.1.running_mean".

    torchvision counts EfficientNet's blocks within a stage, MobileNetV3's across stages.
    """
    layer, is_norm, leaf = _split_path(path)
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
            s, b = _parse_number(stage), _parse_number(block)
            index = f"{1 + sum(depths[: s - 1]) + b}" if arch.hidden else f"{s}.{b}"
            module = f"features.{index}.block.{_block_layers(arch, stage, block).index(name)}."
            fc_names = {"reduce": "fc1", "expand": "fc2"}
            module += fc_names[se_layer[0]] if se_layer else f"{is_norm:d}"
        case _:
            raise ValueError(f"{path!r} is not a path of a backbone")
    return f"{module}.{leaf}"


# library -> (path, architecture) -> name in its state dict
NAME_FUNCTIONS: dict[str, Callable[[str, Architecture], str]] = {
    "timm": timm_name,
    "torchvision": torchvision_name,
}


def from_torch_layout(value: np.ndarray, ndim: int) -> np.ndarray:
    """Convert an array from torch's layout to ours.

    ndim: number of axes in our layout: 4 for convolutions, (out, in, k, k) -> (k, k, in, out);
    2 for linear layers, (out, in) -> (in, out). In squeeze-excite and `hidden`, torch may have the
    equivalent convolution, (out, in, 1, 1) -> (in, out). Vectors are unchanged.
    """
    if ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if ndim == 2:
        return value.reshape(value.shape[:2]).T
    return value


def _split_path(path: str) -> tuple[list[str], bool, str]:
    """E.g. "stem/bn/mean" -> (["stem"], True, "running_mean")."""
    *layer, leaf = path.split("/")
    is_norm = layer[-1] == "bn"
    return (layer[:-1] if is_norm else layer), is_norm, _LEAF_NAMES[leaf]


def _parse_number(name: str) -> int:
    """E.g. "stage3" -> 3."""
    return int(re.sub(r"\D", "", name))


def _block_layers(arch: Architecture, stage: str, block: str) -> list[str]:
    """Return a block's layers in order; "expand" and "se" may be absent."""
    s, b = _parse_number(stage) - 1, _parse_number(block)
    preceding = [spec for specs in arch.stages[:s] for spec in specs] + [*arch.stages[s][:b]]
    inputs = preceding[-1].out if preceding else arch.stem
    spec = arch.stages[s][b]
    layers = ["expand"] if spec.expand != inputs else []
    return [*layers, "depthwise", *(["se"] if spec.squeeze else []), "project"]
