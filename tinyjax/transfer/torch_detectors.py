"""Names and layouts of necks and heads in the state dicts of torchvision's detectors.

All layers of retinanet_resnet50_fpn, fasterrcnn_resnet50_fpn, fasterrcnn_mobilenet_v3_large_fpn and
fasterrcnn_mobilenet_v3_large_320_fpn have an equivalent here; of other detectors with a ResNet,
only those modules that have the same layers.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from tinyjax.models.torch_names import from_flattened_layout, from_torch_layout

COARSEST_STRIDE = 32  # of a ResNet's features
ROI_SIZE = 7  # bins per side
LEAVES = {"weight": "kernel", "bias": "bias"}
LAST_CONV = "backbone.body.16."  # of MobileNetV3-Large, a part of the pyramid
LAST_CONV_PATHS = {  # with BatchNorm
    "0.weight": "kernel",
    "1.weight": "bn/scale",
    "1.bias": "bn/bias",
    "1.running_mean": "bn/mean",
    "1.running_var": "bn/var",
}

# Our module -> the prefix of its names in torchvision, and pattern of a layer -> our layer. With
# the number n in the name, {number} is n + 1, {feature} the stride of the n-th feature, or n for a
# MobileNet, {level} the stride 2^n, and {anchors} their number per cell. Convolutions in a block
# have an inner ".0", which older files lack.
MODULES: dict[str, tuple[str, dict[str, str]]] = {
    "neck": (
        "backbone.fpn.",
        {
            r"inner_blocks\.(?P<n>\d)(\.0)?": "lateral{feature}",
            r"layer_blocks\.(?P<n>\d)(\.0)?": "output{feature}",
            r"extra_blocks\.p(?P<n>\d)": "extra{level}",
        },
    ),
    "head": (
        "head.",
        {
            r"classification_head\.conv\.(?P<n>\d)(\.0)?": "class_tower{number}",
            r"classification_head\.cls_logits": "class_out/anchors9",
            r"regression_head\.conv\.(?P<n>\d)(\.0)?": "box_tower{number}",
            r"regression_head\.bbox_reg": "box_out/anchors9",
        },
    ),
    "rpn": (
        "rpn.head.",
        {
            r"conv(\.0\.0)?": "conv",
            r"cls_logits": "object_out/anchors{anchors}",
            r"bbox_pred": "box_out/anchors{anchors}",
        },
    ),
    "box_head1": (
        "roi_heads.box_",
        {
            r"head\.fc6": "fc1",
            r"head\.fc7": "fc2",
            r"predictor\.cls_score": "class_out",
            r"predictor\.bbox_pred": "box_out",
        },
    ),
}


def convert_detector(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert the neck and the heads of a detector by torchvision.

    Args:
        state: of the whole detector, or of any other network.

    Returns:
        path -> float32 array in our layout; nothing for another network. A module with a layer
        that ours does not have, such as GroupNorm, is left out. RetinaNet has as many classes as in
        torchvision, whose class 0 is not used; Faster R-CNN has one less, without the background.
    """
    laterals = [name for name in state if re.match(r"backbone\.fpn\.inner_blocks\..*bias", name)]
    arrays: dict[str, np.ndarray] = {}
    if "backbone.body.conv1.weight" in state:  # a ResNet
        finest = COARSEST_STRIDE >> max(len(laterals) - 1, 0)
        features = [finest << n for n in range(len(laterals))]
    elif f"{LAST_CONV}0.weight" in state and len(laterals) == 2:
        features = [0, 1]
        for name, path in LAST_CONV_PATHS.items():
            arrays[f"last_conv/{path}"] = _convert(path, state[LAST_CONV + name])
    else:
        return {}
    anchors = len(state.get("rpn.head.cls_logits.bias", ()))
    for module, (prefix, _) in MODULES.items():
        names = [name for name in state if name.startswith(prefix)]
        paths = {name: _path(name, module, features, anchors) for name in names}
        if all(paths.values()):
            arrays |= {path: _convert(path, state[name]) for name, path in paths.items()}
    return arrays


def _path(name: str, module: str, features: Sequence[int], anchors: int) -> str:
    """Our path of an entry of the state dict, or "" if we do not have this layer."""
    prefix, layers = MODULES[module]
    name, _, leaf = name.removeprefix(prefix).rpartition(".")
    for pattern, layer in layers.items():
        if (match := re.fullmatch(pattern, name)) and leaf in LEAVES:
            n = int(match.groupdict().get("n", 0))
            feature = features[n] if n < len(features) else 0
            layer = layer.format(number=n + 1, feature=feature, level=1 << n, anchors=anchors)
            return f"{module}/{layer}/{LEAVES[leaf]}"
    return ""


def _convert(path: str, value: np.ndarray) -> np.ndarray:
    if path.startswith("box_head1/box_out/"):
        value = value[4:]  # without the box of the background
    if path == "box_head1/fc1/kernel":
        array = from_flattened_layout(value, ROI_SIZE, ROI_SIZE)
    else:
        array = from_torch_layout(path, value, value.shape)
    return np.array(array, np.float32, order="C")
