"""The forms of a value of all members, see `population.wide`."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array


class Value(NamedTuple):
    """A value [.., C] of each member."""

    array: Any
    form: str  # "shared": [.., C], "stacked": [M, .., C], "wide": [.., M C]
    size: int  # number of members, M

    @property
    def is_wide(self) -> bool:
        return self.form == "wide"

    @property
    def ndim(self) -> int:
        """Number of axes of one member's value."""
        return jnp.ndim(self.array) - (self.form == "stacked")

    @property
    def channels(self) -> int:
        """Length of the last axis of one member's value."""
        return self.array.shape[-1] // (self.size if self.is_wide else 1)

    def wide(self) -> Array:
        """The array [.., M C]; the value must have an axis."""
        if self.form == "shared":
            return jnp.tile(self.array, self.size)
        if self.form == "stacked":
            return merge(jnp.moveaxis(self.array, 0, -2))  # m .. c -> .. (m c)
        return self.array

    def stacked(self) -> Array:
        """The array [M, .., C]."""
        if self.form == "shared":
            return jnp.broadcast_to(self.array, (self.size, *jnp.shape(self.array)))
        if self.is_wide:
            return jnp.moveaxis(self.split(), -2, 0)  # .. (m c) -> m .. c
        return self.array

    def split(self) -> Array:
        """[.., M C] -> [.., M, C]."""
        return self.array.reshape(*self.array.shape[:-1], self.size, self.channels)

    def with_wide(self, array: Array) -> list["Value"]:
        """A wide array as the only result of an operation of this value."""
        return [Value(array, "wide", self.size)]

    def with_stacked(self, array: Array) -> list["Value"]:
        """A stacked array as the only result of an operation of this value."""
        return [Value(array, "stacked", self.size)]


def merge(array: Array) -> Array:
    """[.., M, C] -> [.., M C]."""
    return array.reshape(*array.shape[:-2], array.shape[-2] * array.shape[-1])
