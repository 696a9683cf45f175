"""Names and layouts of necks and heads in the state dicts of torchvision's detectors.

They are those of detectors with a ResNet and the norm-free layers of the papers:
retinanet_resnet50_fpn and fasterrcnn_resnet50_fpn. Other detectors there have GroupNorm in the
heads, BatchNorm in box heads, or features with equal strides.
"""

import re
from collections.abc import Mapping

import numpy as np

from tinyjax.models.torch_names import from_flattened_layout, from_torch_layout

COARSEST_STRIDE = 32  # of a ResNet's features
ROI_SIZE = 7  # bins per side
LEAVES = {"weight": "kernel", "bias": "bias"}

# Our module -> pattern of torchvision's name -> our path. With the number n in the name, {number} is
# n + 1, {feature} the stride of the n-th feature, and {level} the stride 2^n. Convolutions in blocks
# have an inner ".0", which older files lack.
MODULES = {
    "neck": {
        r"backbone\.fpn\.inner_blocks\.(?P<n>\d)(\.0)?": "neck/lateral{feature}",
        r"backbone\.fpn\.layer_blocks\.(?P<n>\d)(\.0)?": "neck/output{feature}",
        r"backbone\.fpn\.extra_blocks\.p(?P<n>\d)": "neck/extra{level}",
    },
    "head": {
        r"head\.classification_head\.conv\.(?P<n>\d)(\.0)?": "head/class_tower{number}",
        r"head\.classification_head\.cls_logits": "head/class_out/anchors9",
        r"head\.regression_head\.conv\.(?P<n>\d)(\.0)?": "head/box_tower{number}",
        r"head\.regression_head\.bbox_reg": "head/box_out/anchors9",
    },
    "rpn": {
        r"rpn\.head\.conv(\.0\.0)?": "rpn/conv",
        r"rpn\.head\.cls_logits": "rpn/object_out/anchors3",
        r"rpn\.head\.bbox_pred": "rpn/box_out/anchors3",
    },
    "box_head1": {
        r"roi_heads\.box_head\.fc6": "box_head1/fc1",
        r"roi_heads\.box_head\.fc7": "box_head1/fc2",
        r"roi_heads\.box_predictor\.cls_score": "box_head1/class_out",
        r"roi_heads\.box_predictor\.bbox_pred": "box_head1/box_out",
    },
}
PREFIXES = {
    "neck": "backbone.fpn.", "head": "head.", "rpn": "rpn.", "box_head1": "roi_heads.",
}  # fmt: skip


def convert_detector(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convert the neck and the heads of a detector by torchvision.

    Args:
        state: of the whole detector, or of any other network.

    Returns:
        path -> float32 array in our layout. Modules that do not have the layers described above
        are left out; nothing is returned for another network. RetinaNet's classes are those of the
        file, Faster R-CNN's are those without the background.
    """
    if "backbone.body.conv1.weight" not in state:  # not a ResNet
        return {}
    finest = COARSEST_STRIDE >> max(_feature_numbers(state), default=0)
    arrays: dict[str, np.ndarray] = {}
    for module, prefix in PREFIXES.items():
        names = [name for name in state if name.startswith(prefix)]
        paths = {name: _path(name, module, finest) for name in names}
        if all(paths.values()):
            for name, path in paths.items():
                arrays[path] = _convert(path, state[name])
    return arrays


def _feature_numbers(state: Mapping[str, np.ndarray]) -> list[int]:
    """The numbers of the features that the pyramid reads, 0 for the finest one."""
    matches = (re.match(r"backbone\.fpn\.inner_blocks\.(\d)", name) for name in state)
    return [int(match[1]) for match in matches if match]


def _path(name: str, module: str, finest: int) -> str:
    """Our path of an entry of the state dict, or "" if we do not have this layer."""
    layer, _, leaf = name.rpartition(".")
    for pattern, path in MODULES[module].items():
        if (match := re.fullmatch(pattern, layer)) and leaf in LEAVES:
            n = int(match.groupdict().get("n", 0))
            path = path.format(number=n + 1, feature=finest << n, level=1 << n)
            return f"{path}/{LEAVES[leaf]}"
    return ""


def _convert(path: str, value: np.ndarray) -> np.ndarray:
    if path.startswith("box_head1/box_out/"):
        value = value[4:]  # the box of the background
    if path == "box_head1/fc1/kernel":
        array = from_flattened_layout(value, ROI_SIZE, ROI_SIZE)
    else:
        array = from_torch_layout(path, value, value.shape)
    return np.array(array, np.float32, order="C")
