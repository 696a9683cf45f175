"""Changes of color of an image, float [H, W, 3] of levels 0 to 1.

The adjustments are those of torchvision's ColorJitter.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def luminance(image: Array) -> Array:
    """[H, W, 1 or 3] -> [H, W, 1]; one channel is returned as it is."""
    return image if image.shape[-1] == 1 else mix_channels(image, LUMA[:, None])


def mix_channels(image: Array, matrix: ArrayLike) -> Array:
    """Replace the channels by linear combinations: image [H, W, C], matrix [C, D] -> [H, W, D].

    Sums of products: on CPU, XLA's product with a matrix this small takes longer.
    """
    matrix = jnp.asarray(matrix, image.dtype)
    return sum(image[..., c : c + 1] * row for c, row in enumerate(matrix))


def adjust_brightness(image: Array, factor: ArrayLike) -> Array:
    """Multiply all levels."""
    return _blend(image, 0, factor)


def adjust_contrast(image: Array, factor: ArrayLike) -> Array:
    """Multiply differences from the mean luminance."""
    # Summing the luminance of pixels takes ten times longer on CPU than summing the rows first.
    mean = luminance(image.sum(0, keepdims=True) / len(image)).mean()
    return _blend(image, mean, factor)


def adjust_saturation(image: Array, factor: ArrayLike) -> Array:
    """Multiply differences from each pixel's luminance."""
    return _blend(image, luminance(image), factor)


def adjust_hue(image: Array, turns: ArrayLike) -> Array:
    """Rotate the hue of HSV by `turns`, 1 for a full circle."""
    red, green, blue = jnp.moveaxis(image, -1, 0)
    value = image.max(-1)
    chroma = value - image.min(-1)
    divisor = jnp.where(chroma > 0, chroma, 1)
    sector = jnp.where(  # of the hexagon: 0 red, 2 green, 4 blue
        value == red,
        (green - blue) / divisor,
        jnp.where(value == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sector = sector + 6 * jnp.asarray(turns, image.dtype)
    # Each channel is a trapezoid over the hexagon, highest at its own color.
    channels = []
    for n in (5, 3, 1):
        k = n + sector
        k = k - 6 * jnp.floor(k / 6)  # XLA's remainder takes several times longer on CPU
        channels.append(value - chroma * jnp.clip(jnp.minimum(k, 4 - k), 0, 1))
    return jnp.stack(channels, -1)


def _blend(image, other, factor):
    return jnp.clip(factor * image + (1 - factor) * other, 0, 1)
