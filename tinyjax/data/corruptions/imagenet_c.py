"""The 15 corruptions of Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations" (arXiv 1903.12261), for images of any size as in Michaelis et al.,
"Benchmarking Robustness in Object Detection" (arXiv 1907.07484) and their package imagecorruptions
1.1.2, the reference of the tests.

Each corruption is a function of (image, severity 1..5, random numbers): float32 [H, W, C] of gray
levels 0..255 to the same, not yet clipped. Only two things differ from the published code: `frost`,
and motion trails longer than the image, which darken it in the published code.
"""

import io
import math

import numpy as np
from numpy.random import Generator
from PIL import Image
from scipy import fft, ndimage

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def gaussian_noise(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """White noise."""
    deviation = (0.08, 0.12, 0.18, 0.26, 0.38)[severity - 1]
    return image + 255 * deviation * rng.standard_normal(image.shape, np.float32)


def shot_noise(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Poisson noise; the parameter is the number of photons at white."""
    photons = (60, 25, 12, 5, 3)[severity - 1]
    return rng.poisson(image * (photons / 255)) * np.float32(255 / photons)


def impulse_noise(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Salt and pepper on a fraction of all values, independently for each channel."""
    fraction = (0.03, 0.06, 0.09, 0.17, 0.27)[severity - 1]
    chance = rng.random(image.shape, np.float32)
    return np.where(chance < fraction / 2, 0, np.where(chance < fraction, np.float32(255), image))


def defocus_blur(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Convolution with a disc, its rim smoothed over one pixel (two for the largest)."""
    radius, smooth = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))[severity - 1]
    x = np.arange(-10, 11) if radius > 8 else np.arange(-8, 9)
    disc = (x[:, None] ** 2 + x**2 <= radius**2).astype(np.float32)
    rim = 2 if radius > 8 else 1
    disc = ndimage.gaussian_filter(disc / disc.sum(), smooth, mode="mirror", radius=rim)
    height, width = image.shape[:2]
    edge = len(x) // 2
    padded = np.pad(image, ((edge, edge), (edge, edge), (0, 0)), "reflect")
    size = [fft.next_fast_len(side, real=True) for side in padded.shape[:2]]
    spectrum = fft.rfft2(disc, size)[..., None] * fft.rfft2(padded, size, axes=(0, 1))
    blurred = fft.irfft2(spectrum, size, axes=(0, 1))
    return blurred[2 * edge : 2 * edge + height, 2 * edge : 2 * edge + width]


def glass_blur(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Blur, scramble pixels among their neighbors, and blur again.

    As published: the authors' loop intends to swap two pixels but, since NumPy rows are views,
    copies one onto the other.
    """
    sigma, reach, iterations = ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[
        severity - 1
    ]
    height, width, channels = image.shape
    pixels = np.floor(_blur(image, sigma)).reshape(-1, channels)
    # Rows and columns reach + 1 .. side - reach are scrambled, by offsets of -reach .. reach - 1.
    inner_size = tuple(max(side - 2 * reach, 0) for side in (height, width))
    for _ in range(iterations):
        offsets = rng.integers(-reach, reach, (2, *inner_size), np.int8)
        pixels = pixels[scramble_indices(offsets, reach, (height, width))]
    return _blur(pixels.reshape(image.shape), sigma)


def scramble_indices(offsets: np.ndarray, reach: int, size: tuple[int, int]) -> np.ndarray:
    """The source of each pixel after each is overwritten by the pixel at its offset, one by one in
    reverse row-major order.

    Vectorized: a pixel copies an original value or, from a pixel later in row-major order, that
    pixel's new value; such chains are resolved by pointer doubling.

    Args:
        offsets: int8 [2 (y, x), h, w], for the h x w pixels from (reach + 1, reach + 1) on.
        size: (H, W).

    Returns:
        int [H * W], flat indices into the original image.
    """
    height, width = size
    positions = np.arange(height * width)
    source = positions.copy()
    inner = source.reshape(size)[reach + 1 : height - reach + 1, reach + 1 : width - reach + 1]
    inner += offsets[0] * np.intp(width) + offsets[1]
    resolved = source <= positions
    pending = np.flatnonzero(~resolved)
    while len(pending):
        target = source[pending]
        source[pending], resolved[pending] = source[target], resolved[target]
        pending = pending[~resolved[pending]]
    return source


def motion_blur(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """A trail of Gaussian weights, within 45 degrees of the horizontal."""
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[severity - 1]
    return smear(image, _half_gaussian(radius, sigma), rng.uniform(-math.pi / 4, math.pi / 4))


def zoom_blur(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """The mean of the image and its magnifications up to a limit."""
    end, step = ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03))[severity - 1]
    height, width = image.shape[:2]
    zooms = np.arange(1, end, step)
    total = sum((_magnify(image, zoom)[:height, :width] for zoom in zooms), start=image)
    return total / (len(zooms) + 1)


def snow(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """A whitened image under two layers of streaked flakes, the second rotated by 180 degrees.

    Flakes are the values of magnified noise (mean, deviation) above a threshold.
    """
    mean, deviation, zoom, threshold, radius, sigma, fraction = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )[severity - 1]
    height, width, channels = image.shape
    noise = mean + deviation * rng.standard_normal((height, width, 1), np.float32)
    flakes = _magnify(noise, zoom)
    flakes = np.where(flakes < threshold, np.float32(0), flakes.clip(0, 1))
    angle = rng.uniform(-0.75 * math.pi, -0.25 * math.pi)
    flakes = 255 * smear(flakes, _half_gaussian(radius, sigma), angle)[:height, :width]
    flakes = np.round(flakes)
    gray = image if channels == 1 else (image @ LUMA)[..., None]
    white = np.maximum(image, 1.5 * gray + 127.5)
    return fraction * image + (1 - fraction) * white + flakes + flakes[::-1, ::-1]


def frost(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """A weighted sum of the image and of ice on the window.

    Differs from the published code, which uses one of five photographs of its package. The ice is
    generated (our own choice): needles in six directions, gray in all channels, with a mean level
    and a deviation in the range of the photographs (121 to 207 and 18 to 43). The weights are the
    published ones.
    """
    image_weight, ice_weight = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))[
        severity - 1
    ]
    height, width = image.shape[:2]
    return image_weight * image + ice_weight * _ice_texture(height, width, rng)


def fog(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Add a cloud of fractal density, and scale the sum to the image's maximum."""
    density, decay = ((1.5, 2), (2.0, 2), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[severity - 1]
    height, width = image.shape[:2]
    side = 1 << (max(height, width) - 1).bit_length()
    cloud = _plasma_fractal(side, decay, rng)[:height, :width, None]
    brightest = image.max() / 255
    return (image + 255 * density * cloud) * (brightest / (brightest + density))


def brightness(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """V of HSV is raised, H and S are kept: a pixel's channels grow by the same factor."""
    increase = 255 * (0.1, 0.2, 0.3, 0.4, 0.5)[severity - 1]
    value = image.max(-1, keepdims=True)
    new_value = np.minimum(value + increase, 255)
    return np.where(value > 0, image * (new_value / np.maximum(value, 1)), new_value)


def contrast(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Differences from each channel's mean are reduced."""
    factor = (0.4, 0.3, 0.2, 0.1, 0.05)[severity - 1]
    mean = image.mean((0, 1), dtype=np.float64)
    return mean + factor * (image - mean)


def elastic_transform(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Pixels are displaced by a smooth random field."""
    strength = 250 * (0.05, 0.065, 0.085, 0.1, 0.12)[severity - 1]
    height, width, channels = image.shape
    limit = 0.005 * height  # as published, relative to the height in both directions
    field = rng.uniform(-limit, limit, (2, height, width)).astype(np.float32)
    sigma = (0, 0.01 * height, 0.01 * width)
    shift = ndimage.gaussian_filter(field, sigma, mode="reflect", truncate=3)
    coordinates = np.indices((height, width), np.float32) + strength * shift
    out = [
        ndimage.map_coordinates(image[..., c], coordinates, order=1, mode="reflect")
        for c in range(channels)
    ]
    return np.stack(out, -1)


def pixelate(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """Fewer pixels: box averages, enlarged to blocks."""
    scale = (0.6, 0.5, 0.4, 0.3, 0.25)[severity - 1]
    height, width = image.shape[:2]
    small = _to_pillow(image).resize(
        (max(int(width * scale), 1), max(int(height * scale), 1)), Image.Resampling.BOX
    )
    return np.asarray(small.resize((width, height), Image.Resampling.NEAREST)).reshape(image.shape)


def jpeg_compression(image: np.ndarray, severity: int, rng: Generator) -> np.ndarray:
    """JPEG compression at low quality."""
    file = io.BytesIO()
    _to_pillow(image).save(file, "JPEG", quality=(25, 18, 15, 10, 7)[severity - 1])
    return np.asarray(Image.open(file)).reshape(image.shape)


CORRUPTIONS = (
    gaussian_noise,
    shot_noise,
    impulse_noise,
    defocus_blur,
    glass_blur,
    motion_blur,
    zoom_blur,
    snow,
    frost,
    fog,
    brightness,
    contrast,
    elastic_transform,
    pixelate,
    jpeg_compression,
)


def smear(image: np.ndarray, weights: np.ndarray, angle: float) -> np.ndarray:
    """The weighted sum of the image shifted by 0, 1, 2, .. pixels against a direction, rounded to
    integer pixels; outside the image the nearest border pixel is used.

    image: float32 [H, W, C]. angle: radians from the x axis, toward y.
    """
    height, width = image.shape[:2]
    edge = len(weights)
    padded = np.pad(image, ((edge, edge), (edge, edge), (0, 0)), "edge")
    steps = np.arange(edge)
    top, left = (
        edge + np.ceil(steps * along - 0.5).astype(int)
        for along in (math.sin(angle), math.cos(angle))
    )
    out = np.zeros_like(image)
    for weight, y, x in zip(weights.astype(np.float32), top, left, strict=True):
        out += weight * padded[y : y + height, x : x + width]
    return out


def _half_gaussian(radius: int, sigma: float) -> np.ndarray:
    """[2 radius + 1] weights that sum to 1, with the Gaussian's center first."""
    weights = np.exp(-(np.arange(2 * radius + 1) ** 2) / (2 * sigma**2))
    return weights / weights.sum()


def _blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest")


def _magnify(image: np.ndarray, zoom: float) -> np.ndarray:
    """The center of an image [H, W, C], enlarged by `zoom` with linear interpolation.

    The result is up to zoom - 1 pixels larger than the image.
    """
    for axis in (0, 1):
        side = image.shape[axis]
        length = math.ceil(side / zoom)
        x = np.linspace(0, length - 1, round(length * zoom)) + (side - length) // 2
        low = x.astype(int)
        high = np.minimum(low + 1, side - 1)
        weight = np.expand_dims((x - low).astype(np.float32), (1, 2) if axis == 0 else (0, 2))
        first, second = image.take(low, axis), image.take(high, axis)
        image = first + weight * (second - first)
    return image


def _plasma_fractal(side: int, decay: float, rng: Generator) -> np.ndarray:
    """float64 [side, side] from 0 to 1: midpoint displacement on a torus (Fournier, Fussell and
    Carpenter, 1982), with the amplitude divided by decay**2 per level. side: a power of two.
    """
    field = np.zeros((side, side))
    amplitude, step = 1.0, side
    while step > 1:
        half = step // 2
        corners, centers = field[::step, ::step], field[half::step, half::step]
        row_sums = corners + np.roll(corners, -1, 1)
        column_sums = corners + np.roll(corners, -1, 0)
        centers[:] = (row_sums + np.roll(row_sums, -1, 0)) / 4
        centers += rng.uniform(-amplitude, amplitude, centers.shape)
        for edges, ends, neighbors in (
            (field[::step, half::step], row_sums, centers + np.roll(centers, 1, 0)),
            (field[half::step, ::step], column_sums, centers + np.roll(centers, 1, 1)),
        ):
            edges[:] = (ends + neighbors) / 4 + rng.uniform(-amplitude, amplitude, edges.shape)
        amplitude, step = amplitude / decay**2, half
    field -= field.min()
    return field / field.max()


def _ice_texture(height: int, width: int, rng: Generator) -> np.ndarray:
    """float32 [H, W, 1] of gray levels: six layers of needles, each dense where its cloud is dense.

    Generated at half the resolution: needles are two pixels wide and up to 32 long.
    """
    length = 16
    rows, columns = -(-height // 2), -(-width // 2)
    cloud = _plasma_fractal(1 << (max(rows, columns) - 1).bit_length(), 1.5, rng)
    layers = []
    for angle in math.pi / 6 * (np.arange(6) + rng.random()):
        noise = rng.standard_normal((rows + 2 * length, columns + 2 * length, 1), np.float32)
        streaks = smear(noise, np.full(length, length**-0.5), angle)
        density = np.roll(cloud, rng.integers(len(cloud), size=2), (0, 1))  # a torus: no seam
        layers.append(streaks[length:-length, length:-length] + 6 * density[:rows, :columns, None])
    ice = ndimage.zoom(np.max(layers, 0)[..., 0], 2, order=1)[:height, :width, None]
    return (rng.uniform(120, 207) + 30 * _standardize(ice)).clip(0, 255).astype(np.float32)


def _standardize(values: np.ndarray) -> np.ndarray:
    return (values - values.mean()) / values.std()


def _to_pillow(image: np.ndarray) -> Image.Image:
    pixels = image.astype(np.uint8)
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
