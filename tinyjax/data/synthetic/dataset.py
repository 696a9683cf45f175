"""Synthetic thermal scenes, generated on the fly: people, vehicles and animals seen from a pole or
a low drone, with exact boxes and distribution shifts (day, sensor noise, blur) of any strength.

The scene (`scenes`) is a function of (seed, index, size); the strengths change only its rendering,
so shifted data have the same scenes and boxes. Temperatures are interpolated linearly from night to
day; in between, the ground becomes warmer than the objects, which inverts the polarity.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from tinyjax.data.images import to_uint8
from tinyjax.data.records import DetectionSplit, Objects, build_split
from tinyjax.data.synthetic.scenes import (
    CLASSES,
    CLUTTER,
    Scene,
    draw_scene,
    half_extent,
    scene_rng,
)
from tinyjax.errors import UserError, suggest

STRENGTHS = {
    "day": 0.0,  # 0: night, 1: day; temperatures are interpolated
    "clutter": 1.0,  # opacity of buildings, trees, poles, boxes and warm spots
    "noise": 0.25,  # K, standard deviation of white noise per pixel (NETD)
    "pattern": 0.1,  # K, standard deviation of fixed column and row offsets
    "blur": 0.6,  # px, standard deviation of the optics' point spread
}
SHIFTS = {
    "dusk": {"day": 0.5},
    "day": {"day": 1.0},
    "noise": {"noise": 1.5, "pattern": 0.6},
    "blur": {"blur": 1.8},
}

GROUND = (8.0, 32.0)  # mean temperature by night and by day, degrees Celsius
TEXTURE = ((1.0, 1.6), (0.5, 1.1), (0.25, 0.6))  # K by night and by day, per grid of CELLS
GAIN: tuple[str, float, float] = ("percentiles", 0.5, 99.7)  # the camera's automatic gain
MIN_COVERAGE = 0.25  # of a pixel; with less it is not drawn, so that boxes are exact


def load(
    n: int, size: tuple[int, int] = (128, 160), seed: int = 0, **strengths: float
) -> DetectionSplit:
    """Generate images 0..n-1 of the stream `seed`: classes person, vehicle, animal; one channel.

    Image i depends only on (seed, i, size, strengths); its boxes do not depend on the strengths. A
    box is the exact extent of an object's pixels before blur and occlusion, clipped to the image.

    size: (H, W), at least 64 x 64. strengths: any of STRENGTHS, or `**SHIFTS[name]`.

    Raises UserError for an unknown strength, and for n, seed or size out of range.
    """
    for name in strengths:
        if name not in STRENGTHS:
            raise UserError(f"no strength {name!r} of synthetic scenes; {suggest(name, STRENGTHS)}")
    if n < 1 or seed < 0 or min(size) < 64:
        raise UserError(
            f"synthetic scenes: n = {n}, seed = {seed}, size = {size}; "
            "give n >= 1, seed >= 0 and a size of at least (64, 64)"
        )
    strengths = {**STRENGTHS, **strengths}
    images, objects, infos = [], [], []
    for i in range(n):
        scene = draw_scene(seed, i, size)
        temperature, boxes = render_temperature(scene, size, strengths["day"], strengths["clutter"])
        rng = scene_rng(seed, i, "sensor")
        sensor_strengths = (strengths[name] for name in ("noise", "pattern", "blur"))
        images.append(simulate_sensor(temperature, rng, *sensor_strengths)[..., None])
        labels = np.array([item.label for item in scene.items if item.label != CLUTTER], np.int32)
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        objects.append(Objects(boxes, labels, np.zeros(len(labels), bool), area))
        infos.append(
            {
                "file_name": f"synthetic_{seed}_{i:06d}",
                "height": size[0],
                "width": size[1],
                "seed": seed,
                "index": i,
            }
        )
    return build_split(images, objects, infos, CLASSES, np.ones((n, 2)), np.zeros((n, 2)))


def render_temperature(
    scene: Scene, size: tuple[int, int], day: float, clutter: float
) -> tuple[np.ndarray, np.ndarray]:
    """The temperatures of a scene, float32 [H, W] in degrees Celsius, and the objects' boxes,
    float64 [n, 4] xyxy.

    day: 0 night .. 1 day. clutter: opacity of items that are not objects.
    """
    height, width = size
    temperature = np.full(size, _interpolate(GROUND, day), np.float32)
    for grid, (by_night, by_day) in zip(scene.texture, TEXTURE, strict=True):
        coarse = _interpolate((by_night * grid[0], by_day * grid[1]), day)
        # [h, w] -> [H, W]
        temperature += (
            _upsampling_matrix(height, len(coarse))
            @ coarse
            @ _upsampling_matrix(width, coarse.shape[1]).T
        )
    for ground_patch in scene.ground_patches:
        rows, columns, coverage = _coverage(ground_patch, size)
        temperature[rows, columns] += coverage * np.float32(_interpolate(ground_patch[6:], day))
    boxes = []
    for item in scene.items:
        opacity = clutter if item.label == CLUTTER else 1.0
        extents = []
        for part in item.parts:
            rows, columns, coverage = _coverage(part, size)
            patch = temperature[rows, columns]
            level = np.float32(_interpolate(part[6:], day))
            patch += np.float32(opacity) * coverage * (level - patch)
            if item.label != CLUTTER and coverage.any():
                y, x = np.flatnonzero(coverage.any(1)), np.flatnonzero(coverage.any(0))
                extents.append(
                    (
                        columns.start + x[0],
                        rows.start + y[0],
                        columns.start + x[-1] + 1,
                        rows.start + y[-1] + 1,
                    )
                )
        if extents:
            corners = np.array(extents)
            boxes.append((*corners[:, :2].min(0), *corners[:, 2:].max(0)))
    return temperature, np.array(boxes, float).reshape(-1, 4)


def simulate_sensor(
    temperature: np.ndarray, rng: np.random.Generator, noise: float, pattern: float, blur: float
) -> np.ndarray:
    """Simulate optics, sensor and automatic gain: temperatures [H, W] to uint8 [H, W].

    noise, pattern: K, standard deviations. blur: px, standard deviation of the point spread.
    """
    height, width = temperature.shape
    if blur > 0:
        temperature = _blur_matrix(height, blur) @ temperature @ _blur_matrix(width, blur).T
    white = rng.standard_normal((height, width), dtype=np.float32)
    line_noise = rng.standard_normal(height + width, dtype=np.float32)
    offsets = line_noise[:height, None] + line_noise[height:]  # rows [H, 1] + columns [W]
    return to_uint8(temperature + noise * white + pattern * offsets, GAIN)


def _interpolate(pair: Any, day: float) -> Any:
    """Interpolate between (by night, by day), two numbers or two arrays."""
    return (1 - day) * pair[0] + day * pair[1]


def _coverage(part: np.ndarray, size: tuple[int, int]) -> tuple[slice, slice, np.ndarray]:
    """The fraction of each pixel that a part covers, float32 on a patch (rows, columns) around it.

    Computed from the signed distance to a rounded box (I. Quilez, "2D distance functions").
    """
    x, y, half_w, half_h, angle, corner = part[:6].tolist()
    extent_x, extent_y = half_extent(part)
    x1, x2 = _pixel_range(x, float(extent_x), size[1])
    y1, y2 = _pixel_range(y, float(extent_y), size[0])
    dx = np.arange(x1, x2, dtype=np.float32) + (0.5 - x)
    dy = np.arange(y1, y2, dtype=np.float32)[:, None] + (0.5 - y)
    # With a radius of at least half a pixel, all pixels in the box's core are fully covered, so
    # only the distance to the core matters. The core of thinner parts has a negative size.
    radius = max(corner * min(half_w, half_h), 0.5)
    c, s = math.cos(angle), math.sin(angle)
    across = np.maximum(np.abs(c * dx + s * dy) - (half_w - radius), 0)
    along = np.maximum(np.abs(c * dy - s * dx) - (half_h - radius), 0)
    across *= across
    along *= along
    across += along
    coverage = np.minimum(0.5 + radius - np.sqrt(across, out=across), 1)
    coverage[coverage < MIN_COVERAGE] = 0
    return slice(y1, y2), slice(x1, x2), coverage


def _pixel_range(center: float, half_size: float, end: int) -> tuple[int, int]:
    """The pixels [first, last) that a part may touch, within 0..end."""
    first, last = int(center - half_size - 1), int(center + half_size + 2)
    return min(max(first, 0), end), min(max(last, 0), end)


@lru_cache(maxsize=64)
def _upsampling_matrix(pixels: int, cells: int) -> np.ndarray:
    """float32 [pixels, cells]: smooth interpolation from a coarse grid, rows of unit length."""
    position = (np.arange(pixels) + 0.5) / pixels * (cells - 1)
    weight = np.exp(-0.5 * ((position[:, None] - np.arange(cells)) / 0.6) ** 2)
    return (weight / np.linalg.norm(weight, axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=64)
def _blur_matrix(pixels: int, sigma: float) -> np.ndarray:
    """float32 [pixels, pixels]: Gaussian blur along one axis, normalized at the border."""
    x = np.arange(pixels)
    weight = np.exp(-0.5 * ((x[:, None] - x) / sigma) ** 2)
    weight[weight < 1e-6] = 0  # denormal numbers make the product slow
    return (weight / weight.sum(1, keepdims=True)).astype(np.float32)
