"""Weights of backbones as timm and torchvision publish them, brought to our names and layout.

Which of the two a file comes from shows in its names. The tf_ variants of timm do not: they carry
the names of the others but were trained with other padding and a BatchNorm eps of 1e-3, and are
translated without an error into a network that is not theirs.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from numpy.typing import ArrayLike

from tinyjax import models
from tinyjax.errors import UserError, shorten
from tinyjax.models import efficientnet, mobilenetv3, torch_names
from tinyjax.models.scaling import Architecture
from tinyjax.transfer import torch_checkpoint

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # red, green, blue

_FAMILIES = {"efficientnet": efficientnet, "mobilenetv3": mobilenetv3}
_TORCH = (".pth", ".pt", ".bin")
_OPTIONAL = ("head", "hidden", "classifier")  # files made for their features lack them


def read(file: Path) -> dict[str, np.ndarray]:
    """The state dict in a .safetensors file or, see `pth.read`, in a .pth, .pt or .bin by torch.

    Raises UserError if it is missing, broken, or of another kind.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    if not file.is_file():
        raise UserError(f"{file}: no such file of weights")
    if file.suffix in _TORCH:
        return torch_checkpoint.read(file)
    if file.suffix != ".safetensors":
        raise UserError(f"{file}: give weights as .safetensors or as {', '.join(_TORCH)} by torch")
    try:
        return load_file(file)
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: no .safetensors file that NumPy can hold ({error})") from error


def source(state: Iterable[str]) -> Literal["timm", "torchvision"]:
    """Which library's names those of a state dict are. Raises UserError if it is neither's."""
    if "conv_stem.weight" in state:
        return "timm"
    if "features.0.0.weight" in state:
        return "torchvision"
    raise UserError(
        "weights of neither timm nor torchvision: no conv_stem.weight and no features.0.0.weight "
        f"among {shorten(state)}"
    )


def translate(
    state: Mapping[str, np.ndarray], arch: Architecture, family: str
) -> tuple[dict[str, np.ndarray], float]:
    """A published state dict as weights of our backbone, and the BatchNorm eps they want.

    Args:
        state: all of a network for 3 channels and any number of classes; its head, its hidden layer
            and its classifier may each be absent.
        arch: of the network; family: "efficientnet" or "mobilenetv3".

    Returns:
        path -> float32 array, parameters and statistics alike, under the backbone's own paths and
        in our layout (`models.torch_names`); and eps, which depends on the library: 1e-3 for
        MobileNetV3 by torchvision, else 1e-5.

    Raises:
        UserError: names or shapes are not those of this architecture, or of neither library.
    """
    library = source(state)
    name_of = {"timm": torch_names.timm, "torchvision": torch_names.torchvision}[library]
    given = {name: x for name, x in state.items() if not name.endswith("num_batches_tracked")}
    classes = given.get(name_of("classifier/bias", arch), np.empty(1)).size
    shapes = _shapes(arch, family, max(classes, 1))
    named = {path: name_of(path, arch) for path in shapes}
    for part in _OPTIONAL:
        paths = [path for path in named if path.startswith(f"{part}/")]
        if not any(named[path] in given for path in paths):
            named = {path: name for path, name in named.items() if path not in paths}

    leaves, misfits = {}, []
    for path, name in named.items():
        if name in given:
            leaf = _in_our_layout(given[name], shapes[path])
            if leaf is None:
                misfits.append(f"{name} {given[name].shape} for {path} {shapes[path]}")
            else:
                leaves[path] = leaf
    claimed = set(named.values())
    wrong = {
        "without a place here": [name for name in given if name not in claimed],
        "missing": [name for name in named.values() if name not in given],
        "of another shape": misfits,
    }
    if any(wrong.values()):
        found = "; ".join(f"{kind}: {shorten(some)}" for kind, some in wrong.items() if some)
        raise UserError(
            f"{library} weights of another architecture than {_called(arch, family)} ({found}): "
            "name the network they were made for, or give weights of this one"
        )
    return leaves, 1e-3 if (family, library) == ("mobilenetv3", "torchvision") else 1e-5


def for_our_pixels(
    leaves: Mapping[str, np.ndarray],
    mean: ArrayLike,
    std: ArrayLike,
    ours_mean: ArrayLike,
    ours_std: ArrayLike,
) -> dict[str, np.ndarray]:
    """Weights that saw pixels (x - mean) / std, for pixels (x - ours_mean) / ours_std.

    The stem's kernel takes on the ratio of the deviations, its BatchNorm's mean what the difference
    of the means amounts to. The stem's output stays what it was wherever its window lies inside the
    image; at the border the padding's zeros stand for another gray, ours instead of theirs.

    Args:
        leaves: of `translate`, with the stem's kernel [k, k, C, out].
        mean, std, ours_mean, ours_std: of pixels in [0, 1], a number or one per channel [C];
            `IMAGENET_MEAN` and `IMAGENET_STD` for most public weights.

    Returns:
        All leaves, those two changed, computed in float64 and of the dtype they had.
    """
    kernel, moved = leaves["stem/kernel"].astype(np.float64), leaves["stem/bn/mean"]
    # pixels of theirs = scale * pixels of ours + shift, by channel
    channels = kernel.shape[2:3]
    scale = np.broadcast_to(np.divide(ours_std, std), channels)
    shift = np.broadcast_to(np.divide(np.subtract(ours_mean, mean), std), channels)
    return {
        **leaves,
        "stem/kernel": (kernel * scale[:, None]).astype(leaves["stem/kernel"].dtype),
        "stem/bn/mean": (moved - np.einsum("hwco,c->o", kernel, shift)).astype(moved.dtype),
    }


def fold_stem(kernel: np.ndarray, channels: int) -> np.ndarray:
    """A stem's kernel for gray images made one for color, or the reverse: [k, k, C, out].

    3 -> 1 sums over the channels, 1 -> 3 gives each a third. The output for gray images, in color
    three times the same, stays what it was. Raises UserError for another change of channels.
    """
    match kernel.shape[2], channels:
        case 3, 1:
            return kernel.sum(2, keepdims=True)
        case 1, 3:
            return np.repeat(kernel / 3, 3, axis=2)
        case has, wanted:
            raise UserError(f"a stem for {has} channels cannot be one for {wanted}: only 3 and 1")


def _shapes(arch: Architecture, family: str, classes: int) -> dict[str, tuple[int, ...]]:
    """The shape of every path of the backbone, parameters and statistics."""
    model = _FAMILIES[family].Model(arch, classes)
    params, stats = jax.eval_shape(lambda: models.init(model, 0, (1, 64, 64, 3)))
    return {path: leaf.shape for path, leaf in {**params, **stats}.items()}


def _in_our_layout(value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """float32 [shape], or None if it does not come to that shape."""
    try:
        leaf = torch_names.from_torch(value, len(shape))
    except ValueError:  # of another rank
        return None
    return np.array(leaf, np.float32, order="C") if leaf.shape == shape else None


def _called(arch: Architecture, family: str) -> str:
    variants = _FAMILIES[family].VARIANTS
    return f"{family}/{next((name for name, one in variants.items() if one == arch), 'scaled')}"
