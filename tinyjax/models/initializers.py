"""First weights, drawn for a whole network at once.

XLA compiles a loop for every threefry call on CPU, so a network that draws weight by weight takes
it tens of seconds. Here an initializer only says what is to be drawn (`Law`), and `draw` cuts all
weights from rows of random numbers that one call makes. Linen hands layers the plain array, so to
them an initializer returns Any.
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

_ROW = 128  # numbers per key; the last row of a weight is cut
_BLOCK = 1024  # rows that are drawn at a time


class Law(struct.PyTreeNode, AxisMetadata):
    """A weight still to be drawn: zeros of its shape, in linen's box for what is known of it.

    Normal of standard deviation `spread`, or uniform within `spread` of 0.
    """

    value: Array
    spread: float = struct.field(pytree_node=False)
    uniform: bool = struct.field(pytree_node=False, default=False)

    def unbox(self) -> Array:
        return self.value

    def replace_boxed(self, val: Any) -> "Law":
        return self.replace(value=val)

    def add_axis(self, index: int, params: dict[Any, Any]) -> "Law":
        raise TypeError("a weight still to be drawn cannot be lifted")

    remove_axis = add_axis


def he_fan_out(key: Array, shape: tuple[int, ...], groups: int = 1) -> Any:
    """Normal of variance 2 / (k k C_out): torchvision's `kaiming_normal_(mode="fan_out")`.

    As there, a depthwise kernel is drawn as if it reached every output: `groups` does not count.
    """
    return Law(jnp.zeros(shape), math.sqrt(2 / _fan_out(shape)))


def he_group_fan_out(key: Array, shape: tuple[int, ...], groups: int = 1) -> Any:
    """Normal of variance 2 groups / (k k C_out): EfficientNet's own rule, "goog" in timm."""
    return Law(jnp.zeros(shape), math.sqrt(2 * groups / _fan_out(shape)))


def uniform_fan_out(key: Array, shape: tuple[int, ...]) -> Any:
    """Uniform within 1 / sqrt(C_out) of 0: EfficientNet's classifier."""
    return Law(jnp.zeros(shape), 1 / math.sqrt(_fan_out(shape)), uniform=True)


def small_normal(key: Array, shape: tuple[int, ...]) -> Any:
    """Normal of standard deviation 0.01: torchvision's linear layers of MobileNetV3."""
    return Law(jnp.zeros(shape), 0.01)


def draw(key: Array, laws: dict[str, Law]) -> dict[str, Array]:
    """float32 weights, each a function of `key`, its path and its law alone."""
    if not laws:
        return {}
    sizes = [math.prod(law.value.shape) for law in laws.values()]
    rows = [-(-size // _ROW) for size in sizes]
    table = [
        np.repeat([np.uint32(zlib.crc32(name.encode())) for name in laws], rows),
        np.concatenate([np.arange(n, dtype=np.uint32) for n in rows]),
        np.repeat([np.float32(law.spread) for law in laws.values()], rows),
        np.repeat([law.uniform for law in laws.values()], rows),
    ]
    blocks = []
    for start in range(0, sum(rows), _BLOCK):
        block = [column[start : start + _BLOCK] for column in table]
        block = [np.pad(column, (0, _BLOCK - len(column))) for column in block]
        blocks.append(_numbers(key, *block))
    # Cut on the host unless they are being traced: a compiled cut of each weight takes a second.
    lib: Any = jnp if isinstance(blocks[0], jax.core.Tracer) else np
    pool = lib.concatenate(blocks, axis=None)
    weights, start = {}, 0
    for (name, law), size, n in zip(laws.items(), sizes, rows, strict=True):
        weights[name] = pool[start : start + size].reshape(law.value.shape)
        start += n * _ROW
    return weights


@jax.jit
def _numbers(key, path, row, spread, uniform):
    """[_BLOCK, _ROW] random numbers: one program for all networks there are."""

    def numbers(path, row, spread, uniform):
        row_key = jax.random.fold_in(jax.random.fold_in(key, path), row)
        above_minus_one = np.nextafter(np.float32(-1), np.float32(0))
        u = jax.random.uniform(row_key, (_ROW,), jnp.float32, above_minus_one, 1)
        return spread * jnp.where(uniform, u, math.sqrt(2) * jax.lax.erf_inv(u))

    return jax.vmap(numbers)(path, row, spread, uniform)


def _fan_out(shape: tuple[int, ...]) -> int:
    """k k C_out of a kernel [k, k, C_in, C_out] or [C_in, C_out]."""
    return math.prod(shape[:-2]) * shape[-1]
