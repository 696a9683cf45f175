"""Names and layouts of weights in the state dicts of other libraries: what all families share.

Each family has `TORCH_FORMATS`, library -> `TorchFormat`. Paths are relative to the backbone
("stem/kernel", without "backbone/").
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tinyjax.models.scaling import Architecture

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # red, green, blue

# Entries of state dicts that are not weights.
NO_WEIGHTS = re.compile(r".*(num_batches_tracked|relative_position_index|attn_mask)")

_LEAF_NAMES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def from_torch_layout(path: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Convert the array of `path` from torch's layout to ours, which has `shape`.

    Convolutions: (out, in, k, k) -> (k, k, in, out); linear layers: (out, in) -> (in, out). In
    squeeze-excite and hidden layers, torch may have the equivalent convolution, (out, in, 1, 1).
    Vectors are unchanged.

    Raises ValueError if `value` has another rank.
    """
    if len(shape) == 4:
        return value.transpose(2, 3, 1, 0)
    if len(shape) == 2:
        return value.reshape(value.shape[:2]).T
    return value


def from_flattened_layout(value: np.ndarray, height: int, width: int) -> np.ndarray:
    """Convert a linear layer that reads a flattened map: (out, c h w) -> (h, w, c, out).

    torch flattens maps in the order channel, row, column.
    """
    out, inputs = value.shape
    return value.reshape(out, inputs // (height * width), height, width).transpose(2, 3, 1, 0)


class TorchFormat(NamedTuple):
    """The weights of a family in a library's state dicts."""

    # (path, architecture) -> name; ValueError for a path that is not one of the backbone
    name: Callable[[str, Architecture], str]
    eps: float = 0  # BatchNorm epsilon of the library's networks; 0: they have no BatchNorm
    # (path, value, shape in our layout) -> array in our layout
    convert: Callable[[str, np.ndarray, tuple[int, ...]], np.ndarray] = from_torch_layout
    channels: int = 3
    # pixels in [0, 1] are normalized to (x - mean) / std
    mean: float | tuple[float, ...] = IMAGENET_MEAN
    std: float | tuple[float, ...] = IMAGENET_STD
    # (segment of the names in older files, the segment that replaces it)
    old_names: tuple[tuple[str, str], ...] = ()

    def current_name(self, name: str) -> str:
        """Return the present name of an entry that older files name differently."""
        segments = dict(self.old_names)
        return ".".join(segments.get(segment, segment) for segment in name.split("."))


def split_path(path: str) -> tuple[list[str], bool, str]:
    """E.g. "stem/bn/mean" -> (["stem"], True, "running_mean")."""
    *layer, leaf = path.split("/")
    is_batchnorm = layer[-1:] == ["bn"]
    return (layer[:-1] if is_batchnorm else layer), is_batchnorm, _LEAF_NAMES.get(leaf, leaf)


def parse_number(name: str) -> int:
    """E.g. "stage3" -> 3."""
    return int(re.sub(r"\D", "", name))
