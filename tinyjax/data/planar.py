"""Images of a training set in the memory of a TPU.

A TPU gathers images that it stores one after the other. Arrays [N, H, W, C] of few channels it
stores with the images or the columns as the minor axis, and copies all of them in every step
(docs/scaling.md). Rows of 128 values, the lanes of a tile, have one order and no padding.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

LANES = 128


@partial(jax.tree_util.register_dataclass, data_fields=["rows"], meta_fields=["shape"])
@dataclass(frozen=True)
class PlanarImages:
    """N images, channel by channel: indices int [B] select an array [B, H, W, C]."""

    rows: Array  # [N, R, LANES], R * LANES at least H * W * C
    shape: tuple[int, int, int]  # H, W, C

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Array) -> Array:
        height, width, channels = self.shape
        values = self.rows[index].reshape(-1, self.rows.shape[1] * LANES)
        planes = values[:, : height * width * channels].reshape(-1, channels, height, width)
        return jnp.moveaxis(planes, 1, -1)  # b c h w -> b h w c


def to_planar(images: Array) -> PlanarImages:
    """images: [N, H, W, C]."""
    count, height, width, channels = images.shape
    planes = jnp.moveaxis(images, -1, 1).reshape(count, -1)  # n h w c -> n (c h w)
    rows = jnp.pad(planes, ((0, 0), (0, -planes.shape[1] % LANES))).reshape(count, -1, LANES)
    return PlanarImages(rows, (height, width, channels))
