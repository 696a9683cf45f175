"""Initial weights, drawn for all layers of a network at once.

On CPU, XLA compiles a loop for every threefry call, so drawing weights one by one takes tens of
seconds per network. Here an initializer only describes a distribution (`Initializer`), and
`draw_params` slices all weights from rows of random numbers drawn in blocks. Initializers are
annotated as returning Any, because linen unboxes them to plain arrays for the layers.
"""

import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from flax.core.meta import AxisMetadata
from jax import Array

_ROW_LENGTH = 128  # random numbers per key; the rest of a weight's last row is not used
_BLOCK_ROWS = 1024  # rows drawn in one call


class Initializer(struct.PyTreeNode, AxisMetadata):
    """A weight that is not drawn yet: zeros of its shape, and its distribution.

    The distribution is normal with standard deviation `scale`, or uniform in (-scale, scale). This
    is a linen box (`AxisMetadata`); layers get the unboxed zeros.
    """

    value: Array
    scale: float = struct.field(pytree_node=False)
    uniform: bool = struct.field(pytree_node=False, default=False)

    def unbox(self) -> Array:
        return self.value

    def replace_boxed(self, val: Any) -> "Initializer":
        return self.replace(value=val)

    def add_axis(self, index: int, params: dict[Any, Any]) -> "Initializer":
        raise TypeError("an Initializer does not support lifted transforms")

    remove_axis = add_axis


def he_fan_out(key: Array, shape: tuple[int, ...], groups: int = 1) -> Any:
    """Normal with variance 2 / (k k C_out), as torchvision's `kaiming_normal_(mode="fan_out")`.

    As in torchvision, `groups` is ignored: a depthwise kernel is drawn like a dense one.
    """
    return Initializer(jnp.zeros(shape), math.sqrt(2 / _fan_out(shape)))


def he_group_fan_out(key: Array, shape: tuple[int, ...], groups: int = 1) -> Any:
    """Normal with variance 2 groups / (k k C_out), as EfficientNet's ("goog" in timm)."""
    return Initializer(jnp.zeros(shape), math.sqrt(2 * groups / _fan_out(shape)))


def uniform_fan_out(key: Array, shape: tuple[int, ...]) -> Any:
    """Uniform in ±1 / sqrt(C_out), as in EfficientNet's classifier."""
    return Initializer(jnp.zeros(shape), 1 / math.sqrt(_fan_out(shape)), uniform=True)


def uniform_fan_in(key: Array, shape: tuple[int, ...], groups: int = 1) -> Any:
    """Uniform in ±1 / sqrt(k k C_in), torch's default for kernels of linear layers and
    convolutions.
    """
    return Initializer(jnp.zeros(shape), 1 / math.sqrt(math.prod(shape[:-1])), uniform=True)


def xavier_fan_in(key: Array, shape: tuple[int, ...]) -> Any:
    """Uniform with variance 1 / (k k C_in), Caffe's "xavier"."""
    return Initializer(jnp.zeros(shape), math.sqrt(3 / math.prod(shape[:-1])), uniform=True)


def small_normal(key: Array, shape: tuple[int, ...]) -> Any:
    """Normal with standard deviation 0.01, as in the linear layers of torchvision's MobileNetV3."""
    return Initializer(jnp.zeros(shape), 0.01)


def classifier_normal(key: Array, shape: tuple[int, ...]) -> Any:
    """Normal with standard deviation 0.001, as in the classifiers of re-identification."""
    return Initializer(jnp.zeros(shape), 0.001)


def transformer_normal(key: Array, shape: tuple[int, ...], groups: int = 1) -> Any:
    """Normal with standard deviation 0.02, as in Swin and ConvNeXt.

    The libraries truncate it at 100 standard deviations.
    """
    return Initializer(jnp.zeros(shape), 0.02)


def draw_params(key: Array, initializers: dict[str, Initializer]) -> dict[str, Array]:
    """Draw float32 weights, each of which depends only on `key`, its path and its initializer."""
    if not initializers:
        return {}
    sizes = [math.prod(init.value.shape) for init in initializers.values()]
    rows = [-(-size // _ROW_LENGTH) for size in sizes]
    columns = [
        np.repeat([np.uint32(zlib.crc32(path.encode())) for path in initializers], rows),
        np.concatenate([np.arange(n, dtype=np.uint32) for n in rows]),
        np.repeat([np.float32(init.scale) for init in initializers.values()], rows),
        np.repeat([init.uniform for init in initializers.values()], rows),
    ]
    blocks = []
    for start in range(0, sum(rows), _BLOCK_ROWS):
        block = [column[start : start + _BLOCK_ROWS] for column in columns]
        block = [np.pad(column, (0, _BLOCK_ROWS - len(column))) for column in block]
        blocks.append(_draw_block(key, *block))
    # Outside of tracing, slice on the host: compiling one slice per weight takes a second.
    xp: Any = jnp if isinstance(blocks[0], jax.core.Tracer) else np
    numbers = xp.concatenate(blocks, axis=None)
    weights, start = {}, 0
    for (path, init), size, n in zip(initializers.items(), sizes, rows, strict=True):
        weights[path] = numbers[start : start + size].reshape(init.value.shape)
        start += n * _ROW_LENGTH
    return weights


@jax.jit
def _draw_block(key, path, row, scale, uniform):
    """Draw [_BLOCK_ROWS, _ROW_LENGTH] numbers; with a fixed shape, all networks share a program."""

    def draw_row(path, row, scale, uniform):
        row_key = jax.random.fold_in(jax.random.fold_in(key, path), row)
        above_minus_one = np.nextafter(np.float32(-1), np.float32(0))
        u = jax.random.uniform(row_key, (_ROW_LENGTH,), jnp.float32, above_minus_one, 1)
        return scale * jnp.where(uniform, u, math.sqrt(2) * jax.lax.erf_inv(u))

    return jax.vmap(draw_row)(path, row, scale, uniform)


def _fan_out(shape: tuple[int, ...]) -> int:
    """Return k k C_out of a kernel [k, k, C_in, C_out] or [C_in, C_out]."""
    return math.prod(shape[:-2]) * shape[-1]
