"""Where timm and torchvision keep the weights that we keep under our own paths.

A path and the architecture it belongs to give their name in a `state_dict`; `from_torch` gives the
layout. Exact for timm's efficientnet_b0 and mobilenetv3_*_100 (not the tf_ ones: other padding),
torchvision's efficientnet_b0 and mobilenet_v3_*, and the scaled networks built by those libraries.
Paths are the backbone's own ("stem/kernel"), without what a detector puts before them; anything
else is a ValueError.
"""

import re

import numpy as np

from tinyjax.models.scaling import Architecture

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def timm(path: str, arch: Architecture) -> str:
    """E.g. "stage3/block0/expand/bn/mean" -> "blocks.2.0.bn1.running_mean".

    MobileNetV3 keeps its `head` as one more stage, and `hidden` as the convolution `conv_head`.
    """
    layer, norm, leaf = _split(path)
    match layer:
        case ["stem"]:
            owner = "bn1" if norm else "conv_stem"
        case ["head"] if arch.hidden:
            owner = f"blocks.{len(arch.stages)}.0." + ("bn1" if norm else "conv")
        case ["head"]:
            owner = "bn2" if norm else "conv_head"
        case ["hidden"]:
            owner = "conv_head"
        case ["classifier"]:
            owner = "classifier"
        case [stage, block, "se", side]:
            owner = f"blocks.{_number(stage) - 1}.{_number(block)}.se.conv_{side}"
        case [stage, block, conv]:
            parts = [part for part in _parts(arch, stage, block) if part != "se"]
            # A block without expansion calls its projection by the name of the expansion.
            short = ["conv_dw", "conv_pw"]
            theirs = ["conv_pw", "conv_dw", "conv_pwl"] if "expand" in parts else short
            i = parts.index(conv)
            owner = f"blocks.{_number(stage) - 1}.{_number(block)}."
            owner += f"bn{i + 1}" if norm else theirs[i]
        case _:
            raise ValueError(f"{path!r} is no path of a backbone")
    return f"{owner}.{leaf}"


def torchvision(path: str, arch: Architecture) -> str:
    """E.g. "stage3/block0/expand/bn/mean" -> "features.3.0.block.0.1.running_mean".

    EfficientNet's blocks are numbered by stage, MobileNetV3's through.
    """
    layer, norm, leaf = _split(path)
    depths = [len(stage) for stage in arch.stages]
    match layer:
        case ["stem"]:
            owner = f"features.0.{norm:d}"
        case ["head"]:
            owner = f"features.{1 + (sum(depths) if arch.hidden else len(depths))}.{norm:d}"
        case ["hidden"]:
            owner = "classifier.0"
        case ["classifier"]:
            owner = "classifier.3" if arch.hidden else "classifier.1"
        case [stage, block, part, *side]:
            s, b = _number(stage), _number(block)
            index = f"{1 + sum(depths[: s - 1]) + b}" if arch.hidden else f"{s}.{b}"
            owner = f"features.{index}.block.{_parts(arch, stage, block).index(part)}."
            owner += {"reduce": "fc1", "expand": "fc2"}[side[0]] if side else f"{norm:d}"
        case _:
            raise ValueError(f"{path!r} is no path of a backbone")
    return f"{owner}.{leaf}"


def from_torch(value: np.ndarray, ndim: int) -> np.ndarray:
    """Their layout to ours, which has `ndim` axes.

    Convolutions (out, in, k, k) -> (k, k, in, out). Linear layers (out, in), or the convolutions
    (out, in, 1, 1) in their place in squeeze-excite and `hidden`, -> (in, out). Vectors stay.
    """
    if ndim == 4:
        return value.transpose(2, 3, 1, 0)
    if ndim == 2:
        return value.reshape(value.shape[:2]).T
    return value


def _split(path: str) -> tuple[list[str], bool, str]:
    """E.g. "stem/bn/mean" -> (["stem"], True, "running_mean")."""
    *layer, leaf = path.split("/")
    norm = layer[-1] == "bn"
    return (layer[:-1] if norm else layer), norm, _LEAVES[leaf]


def _number(name: str) -> int:
    """The 3 of "stage3"."""
    return int(re.sub(r"\D", "", name))


def _parts(arch: Architecture, stage: str, block: str) -> list[str]:
    """The parts in order of that block, which has no expansion or squeeze-excite unless needed."""
    s, b = _number(stage) - 1, _number(block)
    before = [spec for specs in arch.stages[:s] for spec in specs] + [*arch.stages[s][:b]]
    inputs = before[-1].out if before else arch.stem
    spec = arch.stages[s][b]
    parts = ["expand"] if spec.expand != inputs else []
    return [*parts, "depthwise", *(["se"] if spec.squeeze else []), "project"]
