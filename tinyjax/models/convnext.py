"""ConvNeXt-T (arXiv 2201.03545), as torchvision and timm build it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import numpy as np
from jax import Array

from tinyjax.models import initializers, layers
from tinyjax.models.backbone import Backbone, Layers
from tinyjax.models.scaling import Architecture, FixedBlock
from tinyjax.models.torch_names import TorchFormat, from_torch_layout, parse_number, split_path
from tinyjax.ops.conv import conv2d

KERNEL, EXPANSION = 7, 4
NORM_EPS, LAYER_SCALE = 1e-6, 1e-6


@dataclass(frozen=True)
class ConvNeXtSpec(FixedBlock):
    """A block. LayerNorm averages over channels, so only equal networks share a program."""

    stride: int  # 2: LayerNorm and a 2x2 convolution reduce the resolution first
    out: int


def make_architecture(width: int, depths: tuple[int, ...]) -> Architecture:
    """Stages of `depths` blocks with `width` channels, doubled at each stage."""
    stages = tuple(
        tuple(
            ConvNeXtSpec(2 if stage and not block else 1, width * 2**stage)
            for block in range(depth)
        )
        for stage, depth in enumerate(depths)
    )
    return Architecture(width, stages, stem_kernel=4, stem_stride=4)


VARIANTS = {"tiny": make_architecture(96, (3, 3, 9, 3))}
BASES: dict[str, Callable] = {}


class DepthwiseConv(nn.Module):
    """Depthwise convolution with bias: [B, H, W, C] -> the same shape."""

    preserves_zeros = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = x.shape[-1]
        kernel = self.param("kernel", initializers.transformer_normal, (KERNEL, KERNEL, 1, c))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        if self.is_initializing():  # only the shape is needed, and tracing is slow
            return x
        return conv2d(x, kernel.astype(x.dtype), 1, c) + bias.astype(x.dtype)


class Downsample(nn.Module):
    """LayerNorm and 2x2 convolution: [B, H, W, C] -> [B, H/2, W/2, features]."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = layers.LayerNorm(NORM_EPS, name="norm")(x)
        kernel_init = initializers.transformer_normal
        return layers.PatchEmbedding(self.features, 2, kernel_init, name="conv")(x)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, LayerNorm, linear, GELU, linear, layer scale; added to the input."""

    spec: ConvNeXtSpec
    adapter: Callable | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        out = self.spec.out
        if self.spec.stride > 1:
            x = Downsample(out, name="downsample")(x)
        y = DepthwiseConv(name="depthwise")(x)
        y = layers.LayerNorm(NORM_EPS, name="norm")(y)
        y = layers.Mlp(EXPANSION * out, name="mlp")(y)
        scale = self.param("layer_scale", nn.initializers.constant(LAYER_SCALE), (out,))
        return layers.add_adapter(self.adapter, x + scale.astype(y.dtype) * y, train)


class Model(Backbone):
    """x [B, H, W, C] -> (logits f32[B, classes] or None, {4, 8, 16, 32: features}).

    See `Backbone`. Features are the outputs of the stages, without LayerNorm. Odd sizes are rounded
    up at each level, by zeros at the bottom and right; torch's convolutions round down. The head is
    a LayerNorm after pooling. There is no stochastic depth.
    """

    def layers(self) -> Layers:
        arch, init = self.arch, initializers.transformer_normal

        def stem(x, train):
            patches = layers.PatchEmbedding(
                arch.stem, arch.stem_kernel, init, NORM_EPS, name="stem"
            )
            return patches(x), {}

        def head(x, train):
            return layers.LayerNorm(NORM_EPS, name="head")(self.pooling(x))

        return Layers(stem, ConvNeXtBlock, head, classifier=partial(layers.Dense, kernel_init=init))


# ---- names and layouts in state dicts

_TORCHVISION_LAYERS = {
    "depthwise": ".block.0",
    "norm": ".block.2",
    "mlp/expand": ".block.3",
    "mlp/project": ".block.5",
    "downsample/norm": ".0",
    "downsample/conv": ".1",
}
_TIMM_LAYERS = {
    "depthwise": ".conv_dw",
    "norm": ".norm",
    "mlp/expand": ".mlp.fc1",
    "mlp/project": ".mlp.fc2",
    "downsample/norm": ".downsample.0",
    "downsample/conv": ".downsample.1",
}


def torchvision_name(path: str, arch: Architecture) -> str:
    """E.g. "stage3/block0/mlp/expand/kernel" -> "features.5.0.block.3.weight".

    torchvision gives stages odd numbers, and the layers between them even ones.
    """
    layer, _, leaf = split_path(path)
    match layer:
        case ["stem", *norm]:
            module = f"features.0.{len(norm)}"
        case ["head"]:
            module = "classifier.0"
        case ["classifier"]:
            module = "classifier.2"
        case [stage, _, "downsample", _]:
            module = f"features.{2 * parse_number(stage) - 2}"
        case [stage, block, *_]:
            module = f"features.{2 * parse_number(stage) - 1}.{parse_number(block)}"
        case _:
            raise ValueError(f"{path!r} is not a path of a backbone")
    return f"{module}{_TORCHVISION_LAYERS.get('/'.join(layer[2:]), '')}.{leaf}"


def timm_name(path: str, arch: Architecture) -> str:
    """E.g. "stage3/block0/mlp/expand/kernel" -> "stages.2.blocks.0.mlp.fc1.weight"."""
    layer, _, leaf = split_path(path)
    match layer:
        case ["stem", *norm]:
            module = f"stem.{len(norm)}"
        case ["head"]:
            module = "head.norm"
        case ["classifier"]:
            module = "head.fc"
        case [stage, _, "downsample", _]:
            module = f"stages.{parse_number(stage) - 1}"
        case [stage, block, *_]:
            module = f"stages.{parse_number(stage) - 1}.blocks.{parse_number(block)}"
        case _:
            raise ValueError(f"{path!r} is not a path of a backbone")
    leaf = "gamma" if leaf == "layer_scale" else leaf
    return f"{module}{_TIMM_LAYERS.get('/'.join(layer[2:]), '')}.{leaf}"


def from_layout(path: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`from_torch_layout`; torchvision stores a layer scale as (C, 1, 1)."""
    if path.endswith("layer_scale"):
        return value.reshape(shape)
    return from_torch_layout(path, value, shape)


TORCH_FORMATS = {
    "torchvision": TorchFormat(torchvision_name, convert=from_layout),
    "timm": TorchFormat(timm_name),
}
