"""Changes of texture of an image, float [H, W, C] of levels 0 to 1, each channel alone."""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

BLOCK = 8  # side of JPEG's blocks
# The luminance table of the JPEG standard (ITU-T T.81, table K.1), at quality 50.
QUANTIZATION = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)


def sharpen(image: Array, amount: ArrayLike) -> Array:
    """Add `amount` times the difference of 8 times a pixel and its 8 neighbors.

    An amount of 1/8 is Pillow's SHARPEN; the border is mirrored.
    """
    ring = np.ones((3, 3), np.float32)
    ring[1, 1] = 0
    return jnp.clip(image + amount * (8 * image - _convolve(image, ring)), 0, 1)


def defocus(image: Array, radius: ArrayLike, max_radius: float) -> Array:
    """Convolve with a disk, whose edge is smoothed over one pixel; the border is mirrored.

    radius: in pixels, an array up to `max_radius`; up to 0.5 the image does not change.
    """
    half = int(np.ceil(max_radius + 0.5)) - 1
    offset = np.arange(-half, half + 1)
    distance = np.hypot(offset[:, None], offset).astype(np.float32)
    disk = jnp.clip(radius + 0.5 - distance, 0, 1)
    return _convolve(image, disk / disk.sum())


def jpeg(image: Array, quality: ArrayLike) -> Array:
    """Compress each channel as baseline JPEG compresses a gray image, and decompress it.

    quality: 1 to 100, as libjpeg scales the tables. Levels are rounded to 8 bits.
    """
    quality = jnp.asarray(quality)
    scale = jnp.where(quality < 50, jnp.floor(5000 / quality), 200 - 2 * quality)
    steps = jnp.clip(jnp.floor((QUANTIZATION.reshape(-1) * scale + 50) / 100), 1, 255)
    steps = steps.astype(image.dtype)
    blocks, restore = _split_blocks(jnp.round(image * 255) - 128)
    dct = _dct_matrix().astype(image.dtype)
    coefficients = jnp.matmul(blocks, dct.T, precision="highest") / steps
    # Halves are frequent and, as in libjpeg, rounded away from 0; 1e-4 exceeds the product's error.
    coefficients = jnp.trunc(coefficients + jnp.copysign(0.5 + 1e-4, coefficients)) * steps
    return (
        jnp.clip(
            jnp.round(restore(jnp.matmul(coefficients, dct, precision="highest")) + 128), 0, 255
        )
        / 255
    )


def _convolve(image, kernel):
    """image [H, W, C] * kernel [k, k], k odd and symmetric; the border is mirrored."""
    height, width, _ = image.shape
    k = len(kernel)
    half = k // 2
    padded = jnp.pad(image, ((half, half), (half, half), (0, 0)), "symmetric")
    return sum(
        padded[i : i + height, j : j + width] * kernel[i, j] for i in range(k) for j in range(k)
    )


def _split_blocks(image):
    """[H, W, C] -> blocks [C * n, 64] of the image, padded with its border to whole blocks; and the
    inverse function.
    """
    height, width, channels = image.shape
    padded = jnp.pad(image, ((0, -height % BLOCK), (0, -width % BLOCK), (0, 0)), "edge")
    rows, columns = padded.shape[0] // BLOCK, padded.shape[1] // BLOCK
    # (r i) (c j) d -> d r c (i j)
    grid = padded.reshape(rows, BLOCK, columns, BLOCK, channels).transpose(4, 0, 2, 1, 3)

    def restore(blocks):
        grid = blocks.reshape(channels, rows, columns, BLOCK, BLOCK).transpose(1, 3, 2, 4, 0)
        return grid.reshape(padded.shape)[:height, :width]

    return grid.reshape(-1, BLOCK * BLOCK), restore


def _dct_matrix():
    """The orthonormal 2-D DCT-II of flat blocks, float64 [64, 64]: one product for both axes."""
    k = np.arange(BLOCK)
    dct = np.sqrt(2 / BLOCK) * np.cos(np.pi * (2 * k + 1) * k[:, None] / (2 * BLOCK))
    dct[0] = np.sqrt(1 / BLOCK)
    return np.kron(dct, dct)
