"""Corruptions of 8-bit images by thermal cameras: sensor patterns, gain, polarity and motion.

The definitions and their strengths are our own choice. They apply to gray levels after the
camera's automatic gain, where 10 levels are taken as one kelvin (25 K over the full range, as on a
mild day). An uncooled sensor's white noise (NETD, 0.05 K) is then half a level, and the corruptions
are those of a faulty camera: long without shutter correction (NUC), damaged, moved, or configured
differently.

Each corruption is a function of (image, severity 1..5, random numbers): float32 [H, W, C] of gray
levels 0..255 to the same, not yet clipped. Channels are treated alike, so gray stays gray.
"""

import math

import numpy as np
from numpy.random import Generator

from tinyjax.data.corruptions.imagenet_c import smear


def fixed_pattern(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Gain and offset per pixel, fixed for the camera: deviations 2 to 16 % and 0.5 to 4 K."""
    offset, gain = ((5, 0.02), (10, 0.04), (16, 0.07), (26, 0.11), (40, 0.16))[severity - 1]
    gains, offsets = rng.standard_normal((2, *image.shape[:2], 1), np.float32)
    return image * (1 + gain * gains) + offset * offsets


def stripes(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Offset per column, fixed for the camera, 0.5 to 4 K: in microbolometers the pixels of a
    column share an amplifier.
    """
    offset = (5, 10, 16, 26, 40)[severity - 1]
    return image + offset * rng.standard_normal((1, image.shape[1], 1), np.float32)


def dead_pixels(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Pixels stuck at black or white, fixed for the camera: defects number 0.1 to 2.5 % of the
    pixels; three quarters of them are single pixels, the others clusters of 2 x 2 and 3 x 3.

    A healthy camera has less than 0.5 %, and interpolates them.
    """
    fraction = (0.001, 0.003, 0.006, 0.012, 0.025)[severity - 1]
    height, width = image.shape[:2]
    # One order of defects for all severities: a higher severity keeps those of a lower one.
    order = rng.permutation(height * width)
    side = rng.choice((1, 2, 3), height * width, p=(0.75, 0.2, 0.05))
    level = rng.choice((0, 255), height * width)
    count = math.ceil(fraction * height * width)
    y, x = np.divmod(order[:count], width)
    defect = np.full((height, width), count)  # the first defect that covers a pixel; count: none
    for dy, dx in np.ndindex(3, 3):
        hit = (side[:count] > max(dy, dx)) & (y + dy < height) & (x + dx < width)
        np.minimum.at(defect, (y[hit] + dy, x[hit] + dx), np.flatnonzero(hit))
    dead = defect < count
    out = image.copy()
    out[dead] = level[defect[dead], None]
    return out


def drift(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Smooth fields of gain and offset, as when the housing warms without shutter correction:
    deviations 4 to 20 % and 0.6 to 3.6 K. They differ between images, taken at different times.
    """
    offset, gain = ((6, 0.04), (11, 0.07), (17, 0.1), (25, 0.15), (36, 0.2))[severity - 1]
    height, width = image.shape[:2]
    gains, offsets = _smooth_field(height, width, rng), _smooth_field(height, width, rng)
    return image * (1 + gain * gains) + offset * offsets


def gain(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Another range of the automatic gain: contrast about the mean is multiplied or divided by 1.25
    to 3, and the image is 10 to 50 levels brighter or darker.
    """
    factor, offset = ((1.25, 10), (1.5, 20), (1.9, 30), (2.4, 40), (3.0, 50))[severity - 1]
    exponent, sign = rng.choice((-1, 1), 2)
    mean = image.mean(dtype=np.float64)
    return mean + factor ** float(exponent) * (image - mean) + sign * offset


def polarity(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """White-hot to black-hot: contrast about the middle of the range is multiplied by 0.6, 0.2,
    -0.2, -0.6 and -1, so severity 5 is 255 - image.

    The severities between imitate thermal crossover at dawn and dusk, when objects become colder or
    warmer than the ground: contrast fades and returns inverted. The difference from the image
    grows with severity, but the low contrast in the middle may be harder for a detector.
    """
    factor = (0.6, 0.2, -0.2, -0.6, -1.0)[severity - 1]
    return 127.5 + factor * (image - 127.5)


def sensor_motion(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """A moving camera with a thermal time constant: each point leaves an exponential trail in one
    random direction.

    The trail's length, speed times time constant, is 1 to 8 pixels: at 10 ms, 100 to 800 pixels
    per second.
    """
    length = (1.0, 1.8, 3.0, 5.0, 8.0)[severity - 1]
    weights = np.exp(-np.arange(math.ceil(5 * length) + 1) / length)
    return smear(image, weights / weights.sum(), rng.uniform(-math.pi, math.pi))


def bit_depth(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """6 to 2 bits per pixel, spread over the full range."""
    bits = (6, 5, 4, 3, 2)[severity - 1]
    return np.floor(image / 2 ** (8 - bits)) * (255 / (2**bits - 1))


def equalization(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Histogram equalization by the camera: one fifth to all of the range is assigned to levels in
    proportion to their number of pixels, the rest evenly (the "linear percent" of cameras).
    Channels share one table.
    """
    fraction = severity / 5
    levels = image.astype(np.uint8)
    count = np.bincount(levels.ravel(), minlength=256)
    equal = 255 * (np.cumsum(count) - count / 2) / levels.size
    return (fraction * equal + (1 - fraction) * np.arange(256))[levels]


CORRUPTIONS = (
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
# The same in all images of one size: properties of the camera.
FIXED_PATTERNS = ("fixed_pattern", "stripes", "dead_pixels")


def _smooth_field(height: int, width: int, rng: Generator) -> np.ndarray:
    """float32 [H, W, 1] of mean 0 and deviation 1, up to one and a half waves across the image."""
    waves = np.arange(4)
    vertical, horizontal = (
        np.cos(math.pi * waves * (np.arange(side)[:, None] + 0.5) / side)
        for side in (height, width)
    )
    weight = rng.standard_normal((4, 4)) / (1 + waves[:, None] ** 2 + waves**2)
    weight[0, 0] = 0
    field = vertical @ weight @ horizontal.T
    return (field / field.std()).astype(np.float32)[..., None]
