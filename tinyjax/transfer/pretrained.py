"""Published backbone weights, by timm, torchvision and others, in our names and layout.

The names in a file identify the library, but not timm's tf_ variants. These have the same names as
other variants, but were trained with other padding and a BatchNorm epsilon of 1e-3: they are
converted without an error into a network that computes something else.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from numpy.typing import ArrayLike

from tinyjax import models
from tinyjax.errors import UserError, shorten
from tinyjax.models import torch_names
from tinyjax.models.torch_names import TorchFormat
from tinyjax.transfer import torch_checkpoint

# Stands for an epsilon of 0: no float32 sum with a variance above 1e-12 changes, and the padding of
# a population, whose variance is 0, stays finite.
FROZEN_EPS = 1e-20

_TORCH_SUFFIXES = (".pth", ".pt", ".bin")
_OPTIONAL_LAYERS = ("head", "hidden", "classifier")  # absent in files for feature extraction
_DETECTOR_BODY = "backbone.body."


def read_state_dict(file: Path) -> dict[str, np.ndarray]:
    """Read the state dict of a .safetensors file, or of a .pth, .pt or .bin file by torch.

    The prefixes of wrappers are removed, see `torch_checkpoint.strip_prefix`.

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
        state = load_file(file)
    except (SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: not a .safetensors file that NumPy can hold ({error})") from error
    try:
        return torch_checkpoint.strip_prefix(state)
    except ValueError as error:
        raise UserError(f"{file}: {error}") from error


def detect_library(names: Iterable[str], backbone: str) -> str:
    """Return the library that uses these names in the state dict of `backbone`.

    Raises UserError if none does.
    """
    arch, names = models.architecture(backbone), set(names)
    formats = models.family(backbone).TORCH_FORMATS
    stems = {library: format_.name("stem/kernel", arch) for library, format_ in formats.items()}
    for library, name in stems.items():
        if name in names:
            return library
    raise UserError(
        f"weights of none of {', '.join(stems)}: no {' and no '.join(stems.values())} among "
        f"{shorten(sorted(names))}"
    )


def convert_state_dict(
    state: Mapping[str, np.ndarray], backbone: str
) -> tuple[dict[str, np.ndarray], float, TorchFormat]:
    """Convert a published state dict to the weights of our backbone.

    Args:
        state: of a classifier of any number of classes, whose head, hidden layer and classifier may
            each be absent; or of a detector by torchvision, of which the backbone is converted
            here, and neck and heads by `torch_detectors`.
        backbone: the name of the network.

    Returns:
        path -> float32 array, parameters and running statistics alike, with paths relative to the
        backbone and in our layout (`models.torch_names`); the BatchNorm epsilon of the weights, 0
        if the network has no BatchNorm; and the format of the weights.

    Raises:
        UserError: names or shapes are not those of this architecture, or of no known library; or
            a number is not finite.
    """
    state, detector_eps = _backbone_of_detector(state)
    arch, family = models.architecture(backbone), models.family(backbone)
    library = detect_library(state, backbone)
    format_ = family.TORCH_FORMATS[library]
    state = {
        format_.current_name(name): x
        for name, x in state.items()
        if not torch_names.NO_WEIGHTS.fullmatch(name)
    }
    outputs = (state.get(format_.name(f"classifier/{leaf}", arch)) for leaf in ("bias", "kernel"))
    classes = next((len(np.atleast_1d(array)) for array in outputs if array is not None), 1)
    shapes = _backbone_shapes(family.Model(arch, classes), format_.channels)
    names = {path: format_.name(path, arch) for path in shapes}
    for layer in _OPTIONAL_LAYERS:
        paths = [path for path in names if path.startswith(f"{layer}/")]
        if not any(names[path] in state for path in paths):
            names = {path: name for path, name in names.items() if path not in paths}

    arrays, mismatches = {}, []
    for path, name in names.items():
        if name in state:
            array = _convert_array(format_, path, state[name], shapes[path])
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
            f"{library} weights of another architecture than {backbone} ({text}): set "
            "model.backbone to the network they were trained for, or give weights of this one"
        )
    if diverged := [names[path] for path, x in arrays.items() if not np.isfinite(x).all()]:
        raise UserError(
            f"NaN or infinity in {shorten(diverged)}: these weights are broken, give others"
        )
    return arrays, detector_eps or format_.eps, format_


def _backbone_of_detector(state: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], float]:
    """Return the state dict and BatchNorm epsilon of the backbone of a detector by torchvision.

    The backbone is "backbone.body"; that of a MobileNet is the classifier's `features`. Detectors
    with a ResNet and frozen BatchNorm, which has no counter of batches, are evaluated with epsilon
    0 (`overwrite_eps`), all others with 1e-5. Without a detector, epsilon is 0.
    """
    body = {
        re.sub(r"^(?=\d)", "features.", name.removeprefix(_DETECTOR_BODY)): value
        for name, value in state.items()
        if name.startswith(_DETECTOR_BODY)
    }
    if not body:
        return dict(state), 0
    is_frozen = not any(name.endswith("num_batches_tracked") for name in body)
    return body, FROZEN_EPS if is_frozen and "conv1.weight" in body else 1e-5


def adapt_to_normalization(
    arrays: Mapping[str, np.ndarray],
    mean: ArrayLike,
    std: ArrayLike,
    new_mean: ArrayLike,
    new_std: ArrayLike,
) -> dict[str, np.ndarray]:
    """Adapt weights trained on pixels (x - mean) / std to pixels (x - new_mean) / new_std.

    The ratio of the standard deviations scales the stem's kernel, the difference of the means
    shifts its BatchNorm's mean or its bias. The stem's output is unchanged wherever its window lies
    inside the image; at the border, the zeros of the padding now represent another gray level.

    Args:
        arrays: of `convert_state_dict`, with the stem's kernel [k, k, C, out].
        mean, std, new_mean, new_std: of pixels in [0, 1], a number or one per channel [C];
            those of public weights are in their `TorchFormat`.

    Returns:
        All arrays; the two changed ones are computed in float64 and keep their dtype.
    """
    kernel = arrays["stem/kernel"].astype(np.float64)
    # old pixels = scale * new pixels + shift, by channel
    channels = kernel.shape[2:3]
    scale = np.broadcast_to(np.divide(new_std, std), channels)
    shift = np.broadcast_to(np.divide(np.subtract(new_mean, mean), std), channels)
    output_shift = np.einsum("hwco,c->o", kernel, shift)
    has_batchnorm = "stem/bn/mean" in arrays
    path, sign = ("stem/bn/mean", -1) if has_batchnorm else ("stem/bias", 1)
    return {
        **arrays,
        "stem/kernel": (kernel * scale[:, None]).astype(arrays["stem/kernel"].dtype),
        path: (arrays[path] + sign * output_shift).astype(arrays[path].dtype),
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


def _backbone_shapes(model: nn.Module, channels: int) -> dict[str, tuple[int, ...]]:
    """Return path -> shape of the backbone's parameters and running statistics."""
    params, stats = jax.eval_shape(lambda: models.init(model, 0, (1, 64, 64, channels)))
    return {path: leaf.shape for path, leaf in {**params, **stats}.items()}


def _convert_array(
    format_: TorchFormat, path: str, value: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray | None:
    """Convert to our layout, as float32 [shape]; None if the result has another shape."""
    try:
        array = format_.convert(path, value, shape)
    except ValueError:  # of another rank
        return None
    return np.array(array, np.float32, order="C") if array.shape == shape else None
