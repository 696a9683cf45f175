"""What thermal cameras do to 8-bit images: patterns of the sensor, its gain, polarity and motion.

The definitions and their strengths are our own choice. They take gray levels after the camera's
automatic gain, of which 10 are reckoned as one kelvin (25 K over the whole range, as on a mild
day), so that an uncooled sensor's white noise (NETD, 0.05 K) is half a level and what is here is a
camera out of order: long without shutter correction (NUC), damaged, moved, or set up otherwise.

Every kind is a function of (image, severity 1..5, random numbers): float32 [H, W, C] of gray
levels 0..255 to the same, not yet clipped. Channels are treated alike, so gray stays gray.
"""

import math

import numpy as np
from numpy.random import Generator

from tinyjax.data.corruptions.benchmark import smear


def fixed_pattern(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Every pixel its own gain and offset (the camera's): 0.5 to 4 K and 2 to 16 % deviation."""
    offset, gain = ((5, 0.02), (10, 0.04), (16, 0.07), (26, 0.11), (40, 0.16))[severity - 1]
    one, other = rng.standard_normal((2, *image.shape[:2], 1), np.float32)
    return image * (1 + gain * one) + offset * other


def stripes(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Every column its own offset (the camera's), 0.5 to 4 K: in microbolometers the pixels of a
    column share an amplifier.
    """
    offset = (5, 10, 16, 26, 40)[severity - 1]
    return image + offset * rng.standard_normal((1, image.shape[1], 1), np.float32)


def dead_pixels(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Pixels stuck at black or white (the camera's): 0.1 to 2.5 % of them are defects, of which
    three quarters are single, the others clusters of 2 x 2 and 3 x 3.

    A sound camera has less than 0.5 %, and hides them.
    """
    part = (0.001, 0.003, 0.006, 0.012, 0.025)[severity - 1]
    height, width = image.shape[:2]
    # Defects come in one order at all severities: what is dead stays dead.
    first = rng.permutation(height * width)
    side = rng.choice((1, 2, 3), height * width, p=(0.75, 0.2, 0.05))
    level = rng.choice((0, 255), height * width)
    count = math.ceil(part * height * width)
    y, x = np.divmod(first[:count], width)
    owner = np.full((height, width), count)
    for dy, dx in np.ndindex(3, 3):
        hit = (side[:count] > max(dy, dx)) & (y + dy < height) & (x + dx < width)
        np.minimum.at(owner, (y[hit] + dy, x[hit] + dx), np.flatnonzero(hit))
    dead = owner < count
    out = image.copy()
    out[dead] = level[owner[dead], None]
    return out


def drift(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Smooth fields of gain and offset, as the housing warms without shutter correction: 0.6 to
    3.6 K and 4 to 20 % deviation over the image. Each image its own: it was taken at another time.
    """
    offset, gain = ((6, 0.04), (11, 0.07), (17, 0.1), (25, 0.15), (36, 0.2))[severity - 1]
    height, width = image.shape[:2]
    one, other = _smooth(height, width, rng), _smooth(height, width, rng)
    return image * (1 + gain * one) + offset * other


def gain(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """The automatic gain has another range: contrast about the mean is multiplied or divided by
    1.25 to 3, and everything is 10 to 50 levels brighter or darker.
    """
    factor, offset = ((1.25, 10), (1.5, 20), (1.9, 30), (2.4, 40), (3.0, 50))[severity - 1]
    turn, shift = rng.choice((-1, 1), 2)
    mean = image.mean(dtype=np.float64)
    return mean + factor ** float(turn) * (image - mean) + shift * offset


def polarity(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """White-hot turned into black-hot: contrast about the middle of the range is multiplied by 0.6,
    0.2, -0.2, -0.6 and -1, so 5 is 255 - image.

    Between the ends it is thermal crossover, as objects and ground change places at dawn and dusk:
    contrast fades and comes back inverted. The difference from the image grows with severity; what
    is hard for a detector may be the fading in the middle.
    """
    factor = (0.6, 0.2, -0.2, -0.6, -1.0)[severity - 1]
    return 127.5 + factor * (image - 127.5)


def sensor_motion(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """A moving camera with a thermal time constant: every point leaves an exponential trail in one
    direction, any.

    Its length, speed times time constant, is 1 to 8 pixels: at 10 ms, 100 to 800 pixels a second.
    """
    length = (1.0, 1.8, 3.0, 5.0, 8.0)[severity - 1]
    weights = np.exp(-np.arange(math.ceil(5 * length) + 1) / length)
    return smear(image, weights / weights.sum(), rng.uniform(-math.pi, math.pi))


def bit_depth(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """6 to 2 bits a pixel, spread over the range."""
    bits = (6, 5, 4, 3, 2)[severity - 1]
    return np.floor(image / 2 ** (8 - bits)) * (255 / (2**bits - 1))


def equalization(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """The camera's histogram equalization: a fifth of the range, then two, .. then all of it is
    given to levels in proportion to their number of pixels, the rest evenly (cameras have it as
    "linear percent"). Channels share one table.
    """
    part = severity / 5
    levels = image.astype(np.uint8)
    count = np.bincount(levels.ravel(), minlength=256)
    equal = 255 * (np.cumsum(count) - count / 2) / levels.size
    return (part * equal + (1 - part) * np.arange(256))[levels]


KINDS = (
    fixed_pattern,
    stripes,
    dead_pixels,
    drift,
    gain,
    polarity,
    sensor_motion,
    bit_depth,
    equalization,
)
FIXED = ("fixed_pattern", "stripes", "dead_pixels")  # properties of the camera, not of an image


def _smooth(height: int, width: int, rng: Generator) -> np.ndarray:
    """float32 [H, W, 1] of mean 0 and deviation 1: up to one and a half waves across the image."""
    waves = np.arange(4)
    down, across = (
        np.cos(math.pi * waves * (np.arange(side)[:, None] + 0.5) / side)
        for side in (height, width)
    )
    weight = rng.standard_normal((4, 4)) / (1 + waves[:, None] ** 2 + waves**2)
    weight[0, 0] = 0
    field = down @ weight @ across.T
    return (field / field.std()).astype(np.float32)[..., None]
