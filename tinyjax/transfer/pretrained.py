"""Backbone weights published by timm and torchvision, converted to our names and layout.

The names in a file identify the library, but not timm's tf_ variants. These have the same names as
other variants, but were trained with other padding and a BatchNorm epsilon of 1e-3: they are
converted without an error into a network that computes something else.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from numpy.typing import ArrayLike

from tinyjax import models
from tinyjax.errors import UserError, shorten
from tinyjax.models import torch_names
from tinyjax.models.scaling import Architecture
from tinyjax.transfer import torch_checkpoint

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # red, green, blue

_TORCH_SUFFIXES = (".pth", ".pt", ".bin")
_OPTIONAL_LAYERS = ("head", "hidden", "classifier")  # absent in files for feature extraction


def read_state_dict(file: Path) -> dict[str, np.ndarray]:
    """Read the state dict of a .safetensors file, or of a .pth, .pt or .bin file by torch.

    Raises UserError if the file is missing, broken, or in another format.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not file.is_file():
        raise UserError(f"{file}: no such weights file")
    if file.suffix in _TORCH_SUFFIXES:
        return torch_checkpoint.read_torch_checkpoint(file)
    if file.suffix != ".safetensors":
        suffixes = ", ".join(_TORCH_SUFFIXES)
        raise UserError(f"{file}: give weights as .safetensors or as {suffixes} by torch")
    try:
        return load_file(file)
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: not a .safetensors file that NumPy can hold ({error})") from error


def detect_library(names: Iterable[str]) -> Literal["timm", "torchvision"]:
    """Return the library that uses these names in a state dict. Raises UserError for neither."""
    if "conv_stem.weight" in names:
        return "timm"
    if "features.0.0.weight" in names:
        return "torchvision"
    raise UserError(
        "weights of neither timm nor torchvision: no conv_stem.weight and no features.0.0.weight "
        f"among {shorten(names)}"
    )


def convert_state_dict(
    state: Mapping[str, np.ndarray], arch: Architecture, family: str
) -> tuple[dict[str, np.ndarray], float]:
    """Convert a published state dict to the weights of our backbone.

    Args:
        state: of a network for 3 channels and any number of classes; its head, its hidden layer
            and its classifier may each be absent.
        arch: the architecture of the network.
        family: a key of `models.FAMILIES`.

    Returns:
        path -> float32 array, parameters and running statistics alike, with paths relative to the
        backbone and in our layout (`models.torch_names`); and the BatchNorm epsilon, which depends
        on the library: 1e-3 for MobileNetV3 by torchvision, else 1e-5.

    Raises:
        UserError: names or shapes are not those of this architecture, or of neither library.
    """
    library = detect_library(state)
    name_of = torch_names.NAME_FUNCTIONS[library]
    state = {name: x for name, x in state.items() if not name.endswith("num_batches_tracked")}
    classes = state.get(name_of("classifier/bias", arch), np.empty(1)).size
    shapes = _backbone_shapes(arch, family, max(classes, 1))
    names = {path: name_of(path, arch) for path in shapes}
    for layer in _OPTIONAL_LAYERS:
        paths = [path for path in names if path.startswith(f"{layer}/")]
        if not any(names[path] in state for path in paths):
            names = {path: name for path, name in names.items() if path not in paths}

    arrays, mismatches = {}, []
    for path, name in names.items():
        if name in state:
            array = _convert_array(state[name], shapes[path])
            if array is None:
                mismatches.append(f"{name} {state[name].shape} for {path} {shapes[path]}")
            else:
                arrays[path] = array
    expected = set(names.values())
    problems = {
        "unexpected": [name for name in state if name not in expected],
        "missing": [name for name in names.values() if name not in state],
        "of another shape": mismatches,
    }
    if any(problems.values()):
        text = "; ".join(
            f"{problem}: {shorten(names)}" for problem, names in problems.items() if names
        )
        raise UserError(
            f"{library} weights of another architecture than {_variant_name(arch, family)} "
            f"({text}): set model.backbone to the network they were trained for, or give weights "
            "of this one"
        )
    return arrays, 1e-3 if (family, library) == ("mobilenetv3", "torchvision") else 1e-5


def adapt_to_normalization(
    arrays: Mapping[str, np.ndarray],
    mean: ArrayLike,
    std: ArrayLike,
    new_mean: ArrayLike,
    new_std: ArrayLike,
) -> dict[str, np.ndarray]:
    """Adapt weights trained on pixels (x - mean) / std to pixels (x - new_mean) / new_std.

    The ratio of the standard deviations scales the stem's kernel, the difference of the means
    shifts its BatchNorm's mean. The stem's output is unchanged wherever its window lies inside the
    image; at the border, the zeros of the padding now represent another gray level.

    Args:
        arrays: of `convert_state_dict`, with the stem's kernel [k, k, C, out].
        mean, std, new_mean, new_std: of pixels in [0, 1], a number or one per channel [C];
            `IMAGENET_MEAN` and `IMAGENET_STD` for most public weights.

    Returns:
        All arrays; the two changed ones are computed in float64 and keep their dtype.
    """
    kernel, bn_mean = arrays["stem/kernel"].astype(np.float64), arrays["stem/bn/mean"]
    # old pixels = scale * new pixels + shift, by channel
    channels = kernel.shape[2:3]
    scale = np.broadcast_to(np.divide(new_std, std), channels)
    shift = np.broadcast_to(np.divide(np.subtract(new_mean, mean), std), channels)
    new_bn_mean = bn_mean - np.einsum("hwco,c->o", kernel, shift)
    return {
        **arrays,
        "stem/kernel": (kernel * scale[:, None]).astype(arrays["stem/kernel"].dtype),
        "stem/bn/mean": new_bn_mean.astype(bn_mean.dtype),
    }


def convert_stem_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Convert a stem's kernel [k, k, C, out] between 3 input channels and 1.

    3 -> 1 sums over the input channels, 1 -> 3 gives each a third. The output for gray images,
    which have three equal channels in color, is unchanged. Raises UserError for other numbers of
    channels.
    """
    match kernel.shape[2], channels:
        case 3, 1:
            return kernel.sum(2, keepdims=True)
        case 1, 3:
            return np.repeat(kernel / 3, 3, axis=2)
        case current, new:
            raise UserError(
                f"a stem for {current} input channels cannot be converted to {new}: only 3 to 1 "
                "and 1 to 3 are possible"
            )


def _backbone_shapes(arch: Architecture, family: str, classes: int) -> dict[str, tuple[int, ...]]:
    """Return path -> shape of the backbone's parameters and running statistics."""
    model = models.FAMILIES[family].Model(arch, classes)
    params, stats = jax.eval_shape(lambda: models.init(model, 0, (1, 64, 64, 3)))
    return {path: leaf.shape for path, leaf in {**params, **stats}.items()}


def _convert_array(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Convert to our layout, as float32 [shape]; None if the result has another shape."""
    try:
        array = torch_names.from_torch_layout(value, len(shape))
    except ValueError:  # of another rank
        return None
    return np.array(array, np.float32, order="C") if array.shape == shape else None


def _variant_name(arch: Architecture, family: str) -> str:
    variants = models.FAMILIES[family].VARIANTS.items()
    variant = next((name for name, variant_arch in variants if variant_arch == arch), "scaled")
    return f"{family}/{variant}"
