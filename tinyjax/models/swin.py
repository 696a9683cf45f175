"""Swin-T (arXiv 2103.14030), as torchvision and timm build it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from tinyjax.models import initializers, layers
from tinyjax.models.backbone import Backbone, Layers
from tinyjax.models.scaling import Architecture, FixedBlock
from tinyjax.models.torch_names import TorchFormat, from_torch_layout, parse_number, split_path

WINDOW, EXPANSION, NORM_EPS = 7, 4, 1e-5
MASKED_LOGIT = -100.0  # added to the logits of pairs that must not attend to each other


@dataclass(frozen=True)
class SwinSpec(FixedBlock):
    """A block. LayerNorm averages over channels, so only equal networks share a program."""

    stride: int  # 2: patches of 2x2 are merged first
    out: int
    heads: int
    shifted: bool  # the windows are shifted by half their size


def make_architecture(width: int, depths: tuple[int, ...], heads: int) -> Architecture:
    """Stages of `depths` blocks; `width` channels and `heads`, doubled at each stage."""
    stages = tuple(
        tuple(
            SwinSpec(
                stride=2 if stage and not block else 1,
                out=width * 2**stage,
                heads=heads * 2**stage,
                shifted=block % 2 == 1,
            )
            for block in range(depth)
        )
        for stage, depth in enumerate(depths)
    )
    return Architecture(width, stages, stem_kernel=4, stem_stride=4)


VARIANTS = {"tiny": make_architecture(96, (2, 2, 6, 2), heads=3)}
BASES: dict[str, Callable] = {}


class PatchMerging(nn.Module):
    """LayerNorm and linear layer of 2x2 positions: [B, H, W, C] -> [B, H/2, W/2, features].

    Odd sizes are padded with zeros at the bottom and right.
    """

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, height, width, c = x.shape
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        x = x.reshape(b, -(-height // 2), 2, -(-width // 2), 2, c)
        x = x.transpose(0, 1, 3, 4, 2, 5)  # b h i w j c -> b h w j i c, the order of the libraries
        x = layers.LayerNorm(NORM_EPS, name="norm")(x.reshape(*x.shape[:3], 4 * c))
        kernel_init = initializers.transformer_normal
        return layers.Dense(self.features, kernel_init, use_bias=False, name="reduction")(x)


class WindowAttention(nn.Module):
    """Self-attention within windows of 7x7 positions: [B, H, W, C] -> the same shape.

    The map is padded with zeros at the bottom and right to whole windows; as in torchvision,
    positions attend to the padding. Shifted windows wrap around the map, where a mask separates
    positions that are not neighbors. An axis that one window covers is not shifted.
    """

    heads: int
    shifted: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        _, height, width, c = x.shape
        dense = partial(layers.Dense, kernel_init=initializers.transformer_normal)
        table_shape = (2 * WINDOW - 1, 2 * WINDOW - 1, self.heads)
        table = self.param("position_bias", initializers.transformer_normal, table_shape)

        x = jnp.pad(x, ((0, 0), (0, -height % WINDOW), (0, -width % WINDOW), (0, 0)))
        sides = x.shape[1:3]
        shift = tuple(WINDOW // 2 if self.shifted and side > WINDOW else 0 for side in sides)
        x = split_windows(jnp.roll(x, [-s for s in shift], (1, 2)))
        q, k, v = (
            a.reshape(*a.shape[:-1], self.heads, c // self.heads)  # [B, N, 49, heads, D]
            for a in jnp.split(dense(3 * c, name="qkv")(x), 3, -1)
        )
        at_least_float32 = jnp.promote_types(x.dtype, jnp.float32)
        logits = jnp.einsum(
            "bnqhd,bnkhd->bnhqk",
            q * q.shape[-1] ** -0.5,
            k,
            preferred_element_type=at_least_float32,
        )
        logits += expand_position_bias(table)
        if any(shift):
            regions = window_regions(sides, shift)
            same_region = regions[:, None, :, None] == regions[:, None, None, :]
            logits += jnp.where(same_region, 0, MASKED_LOGIT)
        weights = nn.softmax(logits).astype(x.dtype)
        y = jnp.einsum("bnhqk,bnkhd->bnqhd", weights, v).reshape(x.shape)
        y = merge_windows(dense(c, name="project")(y), sides)
        return jnp.roll(y, shift, (1, 2))[:, :height, :width]


def split_windows(x: Array) -> Array:
    """[B, H, W, C] -> [B, N, 49, C] for the N = H W / 49 windows."""
    b, height, width, c = x.shape
    x = x.reshape(b, height // WINDOW, WINDOW, width // WINDOW, WINDOW, c)
    return x.swapaxes(2, 3).reshape(b, height * width // WINDOW**2, WINDOW**2, c)


def merge_windows(x: Array, sides: tuple[int, ...]) -> Array:
    """The inverse of `split_windows`; sides: (H, W)."""
    b, _, _, c = x.shape
    rows, columns = (side // WINDOW for side in sides)
    return x.reshape(b, rows, columns, WINDOW, WINDOW, c).swapaxes(2, 3).reshape(b, *sides, c)


def expand_position_bias(table: Array) -> Array:
    """[13, 13, heads] by relative row and column -> [heads, 49, 49] by query and key.

    Products with one-hot matrices: gathers and their gradients, scatters, are slow.
    """
    position, offset = np.arange(WINDOW), np.arange(2 * WINDOW - 1)
    relative = position[:, None] - position + WINDOW - 1  # [query, key]
    one_hot = (relative[:, :, None] == offset).astype(np.float32)  # [7, 7, 13]
    bias = jnp.einsum("ikr,jlc,rch->hijkl", one_hot, one_hot, table, precision="highest")
    return bias.reshape(-1, WINDOW**2, WINDOW**2)


def window_regions(sides: tuple[int, ...], shift: tuple[int, ...]) -> np.ndarray:
    """int8 [N, 49]: positions of a window are neighbors in the map if their numbers are equal."""
    rows, columns = (np.arange(n) >= n - s for n, s in zip(sides, shift, strict=True))
    regions = (2 * rows[:, None] + columns).astype(np.int8)
    windows = regions.reshape(sides[0] // WINDOW, WINDOW, sides[1] // WINDOW, WINDOW)
    return windows.swapaxes(1, 2).reshape(-1, WINDOW**2)


class SwinBlock(nn.Module):
    """Window attention and a two-layer perceptron, each after a LayerNorm and with a skip."""

    spec: SwinSpec
    adapter: Callable | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        out = self.spec.out
        if self.spec.stride > 1:
            x = PatchMerging(out, name="downsample")(x)
        norm = partial(layers.LayerNorm, NORM_EPS)
        attention = WindowAttention(self.spec.heads, self.spec.shifted, name="attention")
        x = x + attention(norm(name="norm1")(x))
        x = x + layers.Mlp(EXPANSION * out, name="mlp")(norm(name="norm2")(x))
        return layers.add_adapter(self.adapter, x, train)


class Model(Backbone):
    """x [B, H, W, C] -> (logits f32[B, classes] or None, {4, 8, 16, 32: features}).

    See `Backbone`. Features are the outputs of the stages, without LayerNorm. Odd sizes are rounded
    up at each level, by zeros at the bottom and right; torch's patch embedding rounds down. The
    head is a LayerNorm before pooling. There is no dropout and no stochastic depth.

    timm pads after the shift, torchvision and we before it: the results differ where maps are not a
    multiple of the window. Where an axis is shorter than the window, timm's window is, too.
    """

    def layers(self) -> Layers:
        arch, init = self.arch, initializers.uniform_fan_in

        def stem(x, train):
            patches = layers.PatchEmbedding(
                arch.stem, arch.stem_kernel, init, NORM_EPS, name="stem"
            )
            return patches(x), {}

        def head(x, train):
            return self.pooling(layers.LayerNorm(NORM_EPS, name="head")(x))

        return Layers(
            stem,
            SwinBlock,
            head,
            classifier=partial(layers.Dense, kernel_init=initializers.transformer_normal),
        )


# ---- names and layouts in state dicts

_LAYERS = {
    "norm1": ".norm1",
    "attention": ".attn",
    "attention/qkv": ".attn.qkv",
    "attention/project": ".attn.proj",
    "norm2": ".norm2",
}
_TORCHVISION_LAYERS = _LAYERS | {"mlp/expand": ".mlp.0", "mlp/project": ".mlp.3"}
_TORCHVISION_LAYERS |= {"downsample/norm": ".norm", "downsample/reduction": ".reduction"}
_TIMM_LAYERS = _LAYERS | {"mlp/expand": ".mlp.fc1", "mlp/project": ".mlp.fc2"}
_TIMM_LAYERS |= {f"downsample/{name}": f".downsample.{name}" for name in ("norm", "reduction")}


def torchvision_name(path: str, arch: Architecture) -> str:
    """E.g. "stage3/block0/mlp/expand/kernel" -> "features.5.0.mlp.0.weight".

    torchvision gives stages odd numbers, and the layers between them even ones.
    """
    layer, _, leaf = split_path(path)
    match layer:
        case ["stem", *norm]:
            module = f"features.0.{2 * len(norm)}"
        case ["head"]:
            module = "norm"
        case ["classifier"]:
            module = "head"
        case [stage, _, "downsample", _]:
            module = f"features.{2 * parse_number(stage) - 2}"
        case [stage, block, *_]:
            module = f"features.{2 * parse_number(stage) - 1}.{parse_number(block)}"
        case _:
            raise ValueError(f"{path!r} is not a path of a backbone")
    return f"{module}{_TORCHVISION_LAYERS.get('/'.join(layer[2:]), '')}.{_leaf_name(leaf)}"


def timm_name(path: str, arch: Architecture) -> str:
    """E.g. "stage3/block0/mlp/expand/kernel" -> "layers.2.blocks.0.mlp.fc1.weight"."""
    layer, _, leaf = split_path(path)
    match layer:
        case ["stem", *norm]:
            module = "patch_embed.norm" if norm else "patch_embed.proj"
        case ["head"]:
            module = "norm"
        case ["classifier"]:
            module = "head.fc"
        case [stage, _, "downsample", _]:
            module = f"layers.{parse_number(stage) - 1}"
        case [stage, block, *_]:
            module = f"layers.{parse_number(stage) - 1}.blocks.{parse_number(block)}"
        case _:
            raise ValueError(f"{path!r} is not a path of a backbone")
    return f"{module}{_TIMM_LAYERS.get('/'.join(layer[2:]), '')}.{_leaf_name(leaf)}"


def _leaf_name(leaf: str) -> str:
    return "relative_position_bias_table" if leaf == "position_bias" else leaf


def from_layout(path: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`from_torch_layout`; the libraries flatten relative rows and columns of a position bias."""
    if path.endswith("position_bias"):
        return value.reshape(shape)
    return from_torch_layout(path, value, shape)


# timm counts all multiply-adds; torchvision applies the kernels of attention outside their modules.
TORCH_FORMATS = {
    "timm": TorchFormat(timm_name, convert=from_layout),
    "torchvision": TorchFormat(torchvision_name, convert=from_layout),
}
