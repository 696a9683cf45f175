"""Cheap random bits, addressable by counter.

Keys come from threefry, as everywhere else; the bits derived from a key are hashed.
"""

import jax.numpy as jnp
from jax import Array


def hash_uint32(x: Array, key: Array) -> Array:
    """Hash uint32 `x` with a uint32 `key` to pseudorandom uint32 of the same shape.

    Two multiplications and three shifts (the constants are C. Wellons's "lowbias32") instead of
    threefry's twenty rounds: a tenth of the time on CPU.
    """
    x = x ^ key
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
