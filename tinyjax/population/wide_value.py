"""The forms of a value of all members, see `population.wide`."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array


class Value(NamedTuple):
    """A value [.., C] of each member."""

    array: Any
    form: str  # "shared": [.., C], "stacked": [M, .., C], "wide": [.., M C] or [B / G, .., G M C]
    size: int  # number of members, M
    groups: int = 1  # G, of images; more than 1 only of wide values

    @property
    def is_wide(self) -> bool:
        return self.form == "wide"

    @property
    def blocks(self) -> int:
        """Number of values of [.., C] side by side, G M."""
        return self.groups * self.size

    @property
    def images(self) -> int:
        """Length of the first axis of one member's wide value."""
        return self.groups * len(self.array)

    @property
    def ndim(self) -> int:
        """Number of axes of one member's value."""
        return jnp.ndim(self.array) - (self.form == "stacked")

    @property
    def channels(self) -> int:
        """Length of the last axis of one member's value."""
        return self.array.shape[-1] // (self.blocks if self.is_wide else 1)

    def wide(self, groups: int = 1) -> Array:
        """The array [B / G, .., G M C]; the value must have an axis."""
        if self.form == "shared":
            array = jnp.tile(self.array, self.size)
        elif self.form == "stacked":
            array = merge(jnp.moveaxis(self.array, 0, -2))  # m .. c -> .. (m c)
        else:
            array = self.array
        common = math.gcd(self.groups, groups)
        return _group(_ungroup(array, self.groups // common), groups // common)

    def with_groups(self, groups: int) -> "Value":
        """The value as a wide one of G groups of images."""
        return Value(self.wide(groups), "wide", self.size, groups)

    def stacked(self) -> Array:
        """The array [M, .., C]."""
        if self.form == "shared":
            return jnp.broadcast_to(self.array, (self.size, *jnp.shape(self.array)))
        if self.is_wide:
            return jnp.moveaxis(self.with_groups(1).split(), -2, 0)  # .. (m c) -> m .. c
        return self.array

    def split(self) -> Array:
        """[.., G M C] -> [.., G M, C]."""
        return self.array.reshape(*self.array.shape[:-1], self.blocks, self.channels)

    def with_wide(self, array: Array) -> list["Value"]:
        """A wide array, of as many groups, as the only result of an operation of this value."""
        return [Value(array, "wide", self.size, self.groups)]

    def with_stacked(self, array: Array) -> list["Value"]:
        """A stacked array as the only result of an operation of this value."""
        return [Value(array, "stacked", self.size)]


def merge(array: Array) -> Array:
    """[.., M, C] -> [.., M C]."""
    return array.reshape(*array.shape[:-2], array.shape[-2] * array.shape[-1])


def _group(array: Array, groups: int) -> Array:
    """[B, .., C] -> [B / G, .., G C]; an axis 0 of length 1 is the same for all groups."""
    if groups == 1:
        return array
    if len(array) == 1:
        return jnp.tile(array, groups)
    array = array.reshape(-1, groups, *array.shape[1:])
    return merge(jnp.moveaxis(array, 1, -2))  # b g .. c -> b .. (g c)


def _ungroup(array: Array, groups: int) -> Array:
    """[B / G, .., G C] -> [B, .., C]."""
    if groups == 1:
        return array
    array = array.reshape(*array.shape[:-1], groups, array.shape[-1] // groups)
    array = jnp.moveaxis(array, -2, 1)  # b .. (g c) -> b g .. c
    return array.reshape(-1, *array.shape[2:])
