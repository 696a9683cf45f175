"""Synthetic thermal scenes, drawn on the fly: people, vehicles and animals seen from a pole or a
low drone, with exact boxes, and with shifts (day for night, sensor noise, blur) of any strength.

What there is to see (`scenes`) is a function of (seed, index, size); strengths only say how it is
seen. So a shift shows the same scene with the same boxes: night to day is a straight line from the
one temperature to the other, along which the ground overtakes the objects and polarity turns.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from tinyjax.data.images import to_uint8
from tinyjax.data.records import Objects, Split, stack
from tinyjax.data.synthetic.scenes import CLASSES, CLUTTER, Scene, reach, rng_of, scene
from tinyjax.errors import UserError, suggest

STRENGTHS = {
    "day": 0.0,  # 0 night .. 1 day, the temperatures between
    "clutter": 1.0,  # opacity of what is not an object: buildings, trees, poles, boxes, warm spots
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

GROUND = (8.0, 32.0)  # mean temperature by night and by day
TEXTURE = ((1.0, 1.6), (0.5, 1.1), (0.25, 0.6))  # K by night and by day, of each of CELLS
GAIN: tuple[str, float, float] = ("percentiles", 0.5, 99.7)  # the camera's automatic gain
LEAST_DRAWN = 0.25  # a pixel covered by less than this is left out, so boxes have a sharp extent


def load(n: int, size: tuple[int, int] = (128, 160), seed: int = 0, **strengths: float) -> Split:
    """Draw images 0..n-1 of the stream `seed`: classes person, vehicle, animal; one channel.

    Image i depends on (seed, i, size, strengths) alone, not on n; its boxes do not depend on
    strengths. size: (H, W), at least 64 x 64. strengths: any of STRENGTHS, or `**SHIFTS[name]`.
    Boxes are the exact extents of the pixels an object is drawn on, before blur, whether or not
    something nearer hides them, clipped to the image.

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
    look = {**STRENGTHS, **strengths}
    images, objects, infos = [], [], []
    for i in range(n):
        there = scene(seed, i, size)
        field, boxes = temperature(there, size, look["day"], look["clutter"])
        rng = rng_of(seed, i, "sensor")
        images.append(sense(field, rng, look["noise"], look["pattern"], look["blur"])[..., None])
        labels = np.array([t.label for t in there.things if t.label != CLUTTER], np.int32)
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
    return stack(images, objects, infos, CLASSES, np.ones((n, 2)), np.zeros((n, 2)))


def temperature(
    there: Scene, size: tuple[int, int], day: float, clutter: float
) -> tuple[np.ndarray, np.ndarray]:
    """The scene as a perfect thermometer sees it.

    Returns float32 [H, W] in degrees Celsius and the objects' boxes, float64 [n, 4] xyxy.
    """
    height, width = size
    field = np.full(size, _at(GROUND, day), np.float32)
    for grid, (by_night, by_day) in zip(there.texture, TEXTURE, strict=True):
        coarse = _at((by_night * grid[0], by_day * grid[1]), day)
        # [h, w] -> [H, W]
        field += _spread(height, len(coarse)) @ coarse @ _spread(width, coarse.shape[1]).T
    for stain in there.stains:
        rows, columns, cover = _coverage(stain, size)
        field[rows, columns] += cover * np.float32(_at(stain[6:], day))
    boxes = []
    for thing in there.things:
        opacity = clutter if thing.label == CLUTTER else 1.0
        drawn = []
        for part in thing.parts:
            rows, columns, cover = _coverage(part, size)
            patch = field[rows, columns]
            patch += np.float32(opacity) * cover * (np.float32(_at(part[6:], day)) - patch)
            if thing.label != CLUTTER and cover.any():
                y, x = np.flatnonzero(cover.any(1)), np.flatnonzero(cover.any(0))
                drawn.append(
                    (
                        columns.start + x[0],
                        rows.start + y[0],
                        columns.start + x[-1] + 1,
                        rows.start + y[-1] + 1,
                    )
                )
        if drawn:
            corners = np.array(drawn)
            boxes.append((*corners[:, :2].min(0), *corners[:, 2:].max(0)))
    return field, np.array(boxes, float).reshape(-1, 4)


def sense(
    field: np.ndarray, rng: np.random.Generator, noise: float, pattern: float, blur: float
) -> np.ndarray:
    """Temperatures [H, W] through optics, sensor and automatic gain to uint8 [H, W]."""
    height, width = field.shape
    if blur > 0:
        field = _psf(height, blur) @ field @ _psf(width, blur).T
    white = rng.standard_normal((height, width), dtype=np.float32)
    lines = rng.standard_normal(height + width, dtype=np.float32)
    offsets = lines[:height, None] + lines[height:]  # rows [H, 1] + columns [W]
    return to_uint8(field + noise * white + pattern * offsets, GAIN)


def _at(pair: Any, day: float) -> Any:
    """Between (by night, by day), two numbers or two arrays."""
    return (1 - day) * pair[0] + day * pair[1]


def _coverage(part: np.ndarray, size: tuple[int, int]) -> tuple[slice, slice, np.ndarray]:
    """How much of each pixel a part covers, float32 on the patch (rows, columns) that holds it.

    From the signed distance of a rounded box (I. Quilez, "2D distance functions").
    """
    x, y, half_w, half_h, angle, corner = part[:6].tolist()
    reach_x, reach_y = reach(part)
    x1, x2 = _span(x, float(reach_x), size[1])
    y1, y2 = _span(y, float(reach_y), size[0])
    dx = np.arange(x1, x2, dtype=np.float32) + (0.5 - x)
    dy = np.arange(y1, y2, dtype=np.float32)[:, None] + (0.5 - y)
    # With a radius of half a pixel or more, all inside the box's core is wholly covered, and
    # thinner parts come out right too (a negative core): the distance to the core is enough.
    radius = max(corner * min(half_w, half_h), 0.5)
    c, s = math.cos(angle), math.sin(angle)
    across = np.maximum(np.abs(c * dx + s * dy) - (half_w - radius), 0)
    along = np.maximum(np.abs(c * dy - s * dx) - (half_h - radius), 0)
    across *= across
    along *= along
    across += along
    cover = np.minimum(0.5 + radius - np.sqrt(across, out=across), 1)
    cover[cover < LEAST_DRAWN] = 0
    return slice(y1, y2), slice(x1, x2), cover


def _span(middle: float, reach: float, end: int) -> tuple[int, int]:
    """The pixels [first, last) that a part touches, within 0..end."""
    first, last = int(middle - reach - 1), int(middle + reach + 2)
    return min(max(first, 0), end), min(max(last, 0), end)


@lru_cache(maxsize=64)
def _spread(pixels: int, cells: int) -> np.ndarray:
    """float32 [pixels, cells]: smooth interpolation from a coarse grid, rows of unit length."""
    where = (np.arange(pixels) + 0.5) / pixels * (cells - 1)
    weight = np.exp(-0.5 * ((where[:, None] - np.arange(cells)) / 0.6) ** 2)
    return (weight / np.linalg.norm(weight, axis=1, keepdims=True)).astype(np.float32)


@lru_cache(maxsize=64)
def _psf(pixels: int, sigma: float) -> np.ndarray:
    """float32 [pixels, pixels]: Gaussian blur along one axis; the border sees only the inside."""
    at = np.arange(pixels)
    weight = np.exp(-0.5 * ((at[:, None] - at) / sigma) ** 2)
    weight[weight < 1e-6] = 0  # denormal numbers would make the product slow
    return (weight / weight.sum(1, keepdims=True)).astype(np.float32)
