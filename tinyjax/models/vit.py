"""Vision Transformer (arXiv 2010.11929) Tiny, Small and Base with patches of 16 x 16 pixels, as
timm and torchvision build them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from tinyjax.models import initializers, layers, torch_names
from tinyjax.models.backbone import Backbone, Layers
from tinyjax.models.scaling import Architecture, FixedBlock
from tinyjax.models.torch_names import TorchFormat, parse_number, split_path
from tinyjax.ops.conv import patch_conv

GRID = 14  # rows and columns of the position table, for images of 224 x 224
NORM_EPS = 1e-6


Linear = partial(layers.Dense, kernel_init=initializers.transformer_normal)


@dataclass(frozen=True)
class EncoderBlock(FixedBlock):
    """Self-attention and a hidden layer, each after a LayerNorm and added to its input.

    LayerNorm averages over channels, so only equal networks share a program.
    """

    out: int  # channels of the tokens
    heads: int
    hidden: int

    stride: ClassVar = 1


def make_architecture(width: int, heads: int, depth: int = 12) -> Architecture:
    blocks = (EncoderBlock(width, heads, 4 * width),) * depth
    thirds = ((1, max(2, depth // 3)), (1, max(2, 2 * depth // 3)))
    starts = ((1, 0), (1, 1), (1, 2), *thirds)
    return Architecture(width, (blocks,), stem_kernel=16, stem_stride=16, block_starts=starts)


BASES: dict = {}
VARIANTS = {
    "tiny": make_architecture(192, heads=3),
    "small": make_architecture(384, heads=6),
    "base": make_architecture(768, heads=12),
}


def resize_positions(table: ArrayLike, height: int, width: int) -> Array:
    """Resize position embeddings [1 + n n, D], of the class token and a grid, to another grid.

    The grid is resized by bicubic interpolation with antialiasing, as in timm.

    Returns:
        [1 + height width, D].
    """
    table = jnp.asarray(table)
    side, d = math.isqrt(len(table) - 1), table.shape[-1]
    if (side, side) == (height, width):
        return table
    grid = table[1:].reshape(side, side, d)
    grid = jax.image.resize(grid, (height, width, d), "cubic", antialias=True)
    return jnp.concatenate([table[:1], grid.reshape(height * width, d)])


class Stem(nn.Module):
    """Patch embeddings and the class token, with their position embeddings.

    x [B, H, W, C] -> patches [B, ceil(H/size), ceil(W/size), features], class token [features].
    """

    features: int
    size: int

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        d = self.features
        shape = (self.size, self.size, x.shape[-1], d)
        kernel = self.param("kernel", initializers.uniform_fan_in, shape)
        bias = self.param("bias", nn.initializers.zeros, (d,))
        class_token = self.param("class_token", nn.initializers.zeros, (d,))
        table = self.param("positions", initializers.transformer_normal, (1 + GRID**2, d))
        patches = patch_conv(x, kernel.astype(x.dtype)) + bias.astype(x.dtype)
        _, height, width, _ = patches.shape
        positions = resize_positions(table, height, width)
        patch_positions = positions[1:].reshape(height, width, d)
        class_token = class_token + positions[0]
        return patches + patch_positions.astype(x.dtype), class_token.astype(x.dtype)


class Attention(nn.Module):
    """Self-attention of several heads: tokens [..., N, D] -> [..., N, D].

    Its softmax is at least float32.
    """

    heads: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        *shape, d = x.shape
        qkv = Linear(3 * d, name="qkv")(x).reshape(*shape, 3, self.heads, d // self.heads)
        q, k, v = jnp.moveaxis(qkv, -3, 0)
        at_least_float32 = jnp.promote_types(x.dtype, jnp.float32)
        q = q / math.sqrt(q.shape[-1])
        scores = jnp.einsum("...qhd,...khd->...hqk", q, k, preferred_element_type=at_least_float32)
        weights = nn.softmax(scores).astype(x.dtype)
        y = jnp.einsum("...hqk,...khd->...qhd", weights, v).reshape(x.shape)
        return Linear(d, name="project")(y)


class Block(nn.Module):
    """An `EncoderBlock`: tokens [B, 1, N, D] -> [B, 1, N, D]."""

    spec: EncoderBlock
    adapter: Callable | None = None

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        y = layers.LayerNorm(NORM_EPS, name="norm1")(x)
        x = x + Attention(self.spec.heads, name="attention")(y)
        y = layers.LayerNorm(NORM_EPS, name="norm2")(x)
        x = x + layers.Mlp(self.spec.hidden, name="mlp")(y)
        return layers.add_adapter(self.adapter, x, train)


class Model(Backbone):
    """x [B, H, W, C] -> (logits f32[B, classes] or None, {16: features}).

    See `Backbone`. The only level is that of the patches after the last LayerNorm, [B, ceil(H/16),
    ceil(W/16), D]. Images are padded with zeros at the bottom and right to a multiple of 16; for
    other sizes than 224 x 224 the position embeddings are interpolated. Logits are computed from
    the class token, without pooling. There is no dropout and no stochastic depth.
    """

    pools = False

    def layers(self) -> Layers:
        arch = self.arch

        def stem(x, train):
            patches, class_token = Stem(arch.stem, arch.stem_kernel, name="stem")(x)
            b, h, w, d = patches.shape
            class_token = jnp.broadcast_to(class_token, (b, 1, 1, d))
            # The tokens form a map of one row, as which adapters and squeeze-excite read them.
            return jnp.concatenate([class_token, patches.reshape(b, 1, h * w, d)], axis=2), {}

        def head(tokens, train):
            y = tokens[:, 0, 0]
            return y.astype(jnp.promote_types(y.dtype, jnp.float32))

        def to_map(tokens, image_shape):
            b, height, width, _ = image_shape
            sides = (-(-side // arch.stem_kernel) for side in (height, width))
            return tokens[:, 0, 1:].reshape(b, *sides, tokens.shape[-1])

        return Layers(stem, Block, head, classifier=Linear, norm_eps=NORM_EPS, to_map=to_map)


# ---- names in state dicts

_TIMM_LAYERS = {
    "norm1": "norm1.",
    "attention/qkv": "attn.qkv.",
    "attention/project": "attn.proj.",
    "norm2": "norm2.",
    "mlp/expand": "mlp.fc1.",
    "mlp/project": "mlp.fc2.",
}
_TORCHVISION_LAYERS = {
    "norm1": "ln_1.",
    "attention/qkv": "self_attention.in_proj_",
    "attention/project": "self_attention.out_proj.",
    "norm2": "ln_2.",
    "mlp/expand": "mlp.0.",
    "mlp/project": "mlp.3.",
}


def timm_name(path: str, arch: Architecture) -> str:
    """E.g. "stage1/block3/attention/qkv/kernel" -> "blocks.3.attn.qkv.weight"."""
    layer, _, leaf = split_path(path)
    match layer, leaf:
        case ["stem"], "class_token":
            return "cls_token"
        case ["stem"], "positions":
            return "pos_embed"
        case ["stem"], _:
            return f"patch_embed.proj.{leaf}"
        case ["classifier"], _:
            return f"head.{leaf}"
        case ["stage1", "norm"], _:
            return f"norm.{leaf}"
        case ["stage1", block, *names], _:
            return f"blocks.{parse_number(block)}.{_TIMM_LAYERS['/'.join(names)]}{leaf}"
    raise ValueError(f"{path!r} is not a path of a backbone")


def torchvision_name(path: str, arch: Architecture) -> str:
    """E.g. "stage1/block3/mlp/expand/kernel" -> "encoder.layers.encoder_layer_3.mlp.0.weight"."""
    layer, _, leaf = split_path(path)
    match layer, leaf:
        case ["stem"], "class_token":
            return "class_token"
        case ["stem"], "positions":
            return "encoder.pos_embedding"
        case ["stem"], _:
            return f"conv_proj.{leaf}"
        case ["classifier"], _:
            return f"heads.head.{leaf}"
        case ["stage1", "norm"], _:
            return f"encoder.ln.{leaf}"
        case ["stage1", block, *names], _:
            layer_name = _TORCHVISION_LAYERS["/".join(names)]
            return f"encoder.layers.encoder_layer_{parse_number(block)}.{layer_name}{leaf}"
    raise ValueError(f"{path!r} is not a path of a backbone")


def convert(path: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Convert from torch's layout; position embeddings of another square grid are resized.

    Raises ValueError if `value` does not fit `shape`, or its grid is not square.
    """
    if path == "stem/class_token":
        return value.reshape(shape)
    if path == "stem/positions":
        table = value.reshape(-1, shape[-1])
        if math.isqrt(len(table) - 1) ** 2 != len(table) - 1:
            raise ValueError(f"{len(table) - 1} positions form no square")
        return np.asarray(resize_positions(table, GRID, GRID))
    return torch_names.from_torch_layout(path, value, shape)


TORCH_FORMATS = {
    "timm": TorchFormat(timm_name, convert=convert),
    "torchvision": TorchFormat(
        torchvision_name, convert=convert, old_names=(("linear_1", "0"), ("linear_2", "3"))
    ),
}
