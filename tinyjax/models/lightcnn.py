"""LightCNN-9, -29 and -29v2 (arXiv 1511.02683) for faces, as in their authors' PyTorch code
(github.com/AlfredXiangWu/LightCNN).

They were trained on gray images of 128 x 128 pixels in [0, 1] without normalization.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from tinyjax.models import initializers, layers, torch_names
from tinyjax.models.backbone import Backbone, Layers
from tinyjax.models.scaling import Architecture, FixedBlock
from tinyjax.models.torch_names import TorchFormat, parse_number, split_path
from tinyjax.ops.conv import conv2d
from tinyjax.ops.pooling import max_pool_2x2, mean_pool_2x2

HIDDEN_SIZE = 8  # height and width of the map that the hidden layer reads
POOLINGS: dict[str, Callable[[Array], Array]] = {
    "max": max_pool_2x2,
    "max + mean": lambda x: max_pool_2x2(x) + mean_pool_2x2(x),
}


@dataclass(frozen=True)
class MaxFeatureMapBlock(FixedBlock):
    """Pooling if the stride is 2, then convolutions, each followed by max-feature-map.

    Max-feature-map splits channels at the middle, where zero padding would move the halves.
    """

    kernels: tuple[int, ...]  # of the convolutions; only the last one changes the channels
    out: int
    residual: bool = False  # the block adds its (pooled) input to its output
    stride: int = 1
    pooling: str = "max"  # a key of POOLINGS


def _architecture(depths: tuple[int, ...], pooling: str = "max") -> Architecture:
    """Return stages of `depths` residual blocks and one group each; the last stage is a pooling."""
    stages, inputs = [], 48
    for depth, out, stride in zip(depths, (96, 192, 128, 128), (2, 2, 2, 1), strict=True):
        blocks = [MaxFeatureMapBlock((3, 3), inputs, residual=True)] * depth
        blocks.append(MaxFeatureMapBlock((1, 3), out))
        blocks[0] = replace(blocks[0], stride=stride)
        stages.append(tuple(replace(block, pooling=pooling) for block in blocks))
        inputs = out
    stages.append((MaxFeatureMapBlock((), inputs, stride=2, pooling=pooling),))
    return Architecture(
        48,
        tuple(stages),
        hidden=256,
        stem_kernel=5,
        stem_stride=1,
        block_starts=((1, 0), (2, 0), (3, 0), (4, 0), (5, 0)),
    )


BASES: dict = {}
VARIANTS = {
    "9": _architecture((0, 0, 0, 0)),
    "29": _architecture((1, 2, 3, 4)),
    "29v2": _architecture((1, 2, 3, 4), "max + mean"),
}


class MaxFeatureMap(nn.Module):
    """Convolution with bias to twice the features, then the maximum of the two halves.

    [B, H, W, C] -> [B, H, W, features].
    """

    features: int
    size: int
    kernel_init: Callable = initializers.xavier_fan_in

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, x.shape[-1], 2 * self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:])
        if self.is_initializing():  # only shapes are needed, and tracing the convolution is slow
            return jnp.zeros((*x.shape[:-1], self.features), x.dtype)
        return _max_of_halves(conv2d(x, kernel.astype(x.dtype)) + bias.astype(x.dtype))


def _max_of_halves(x: Array) -> Array:
    return jnp.maximum(*jnp.split(x, 2, axis=-1))


class Block(nn.Module):
    """A `MaxFeatureMapBlock`: [B, H, W, C] -> [B, ceil(H/stride), ceil(W/stride), out].

    Initial weights keep the mean square of features near 1. Where sums increase it, in residual
    blocks and with the pooling "max + mean", weights start as torch's default, which decreases it.
    """

    spec: MaxFeatureMapBlock
    adapter: Callable | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        spec = self.spec
        if spec.stride == 2:
            x = POOLINGS[spec.pooling](x)
        has_sums = spec.residual or spec.pooling != "max"
        init = initializers.uniform_fan_in if has_sums else initializers.xavier_fan_in
        y = x
        for i, size in enumerate(spec.kernels, start=1):
            features = spec.out if i == len(spec.kernels) else x.shape[-1]
            y = MaxFeatureMap(features, size, init, name=f"conv{i}")(y)
        if spec.residual:
            y = x + y
        return layers.add_adapter(self.adapter, y, train)


class Hidden(nn.Module):
    """A linear layer of a whole map: [B, 8, 8, C] -> [B, features]."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (*x.shape[1:], self.features)
        kernel = self.param("kernel", initializers.xavier_fan_in, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return jnp.einsum("bhwc,hwcn->bn", x, kernel.astype(x.dtype)) + bias.astype(x.dtype)


def resize_for_hidden(x: Array) -> Array:
    """Resize maps [B, h, w, C] to [B, 8, 8, C], bilinearly with antialiasing."""
    shape = (x.shape[0], HIDDEN_SIZE, HIDDEN_SIZE, x.shape[-1])
    return x if x.shape == shape else jax.image.resize(x, shape, "bilinear", antialias=True)


class Model(Backbone):
    """x [B, H, W, C] -> (logits f32[B, classes] or None, {1, 2, 4, 8, 16: features}).

    See `Backbone`. The head is the hidden layer, which reads maps of 8 x 8 without pooling, the
    size for images of 128 x 128; other maps are resized (bilinear with antialiasing). There is no
    dropout.
    """

    pools = False

    def layers(self) -> Layers:
        arch = self.arch

        def stem(x, train):
            x = MaxFeatureMap(arch.stem, arch.stem_kernel, name="stem")(x)
            return x, {1: x}

        def head(x, train):
            y = resize_for_hidden(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
            if _is_version_2(arch):
                return Hidden(arch.hidden, name="hidden")(y)
            return _max_of_halves(Hidden(2 * arch.hidden, name="hidden")(y))

        classifier = partial(
            layers.Dense,
            kernel_init=initializers.small_normal,
            use_bias=not _is_version_2(arch),
        )
        return Layers(stem, Block, head, classifier)


def _is_version_2(arch: Architecture) -> bool:
    """Return whether the hidden layer is linear and the classifier has no bias."""
    return arch.stages[-1][-1].pooling != "max"


# ---- names in state dicts

# Indices of the groups among the layers of LightCNN-9; the other layers are poolings.
SEQUENTIAL_GROUPS = (2, 4, 6, 7)


def authors_name(path: str, arch: Architecture) -> str:
    """E.g. "stage3/block0/conv2/kernel" -> "block3.0.conv2.filter.weight"."""
    layer, _, leaf = split_path(path)
    is_sequential = all(len(stage) == 1 for stage in arch.stages)  # LightCNN-9
    match layer:
        case ["stem"]:
            module = "features.0.filter" if is_sequential else "conv1.filter"
        case ["hidden"]:
            module = ("fc1" if is_sequential else "fc") + ".filter" * (not _is_version_2(arch))
        case ["classifier"]:
            module = "fc2"
        case [stage, block, conv]:
            n, b = parse_number(stage), parse_number(block)
            if arch.stages[n - 1][b].residual:
                module = f"block{n}.{b}.{conv}.filter"
            else:
                group = f"features.{SEQUENTIAL_GROUPS[n - 1]}" if is_sequential else f"group{n}"
                module = f"{group}.{'conv_a' if conv == 'conv1' else 'conv'}.filter"
        case _:
            raise ValueError(f"{path!r} is not a path of a backbone")
    return f"{module}.{leaf}"


def convert(path: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Convert from torch's layout, in which the hidden layer reads a flattened map."""
    if path == "hidden/kernel":
        return torch_names.from_flattened_layout(value, HIDDEN_SIZE, HIDDEN_SIZE)
    return torch_names.from_torch_layout(path, value, shape)


TORCH_FORMATS = {
    "LightCNN": TorchFormat(authors_name, convert=convert, channels=1, mean=0.0, std=1.0)
}
