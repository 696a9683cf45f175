"""The content of a synthetic thermal scene: simple geometry, drawn at random.

Each part has two temperatures, by night and by day, in degrees Celsius. On a clear night the ground
is at about 8: people, animals and running engines are warmer; roofs and glass, which face the cold
sky, are colder. On a sunny day the ground is at about 32, as are clothes and fur.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

CLASSES = ("person", "vehicle", "animal")
CLUTTER = -1
CELLS = (32, 12, 5)  # px, cell sizes of the grids of the ground's texture
MAX_OCCLUSION = 0.35  # fraction of an object's box hidden by one item in front of it
MIN_INSIDE = 0.6  # fraction of an object's box inside the image


class SceneItem(NamedTuple):
    """An opaque object or piece of clutter.

    parts: float64 [P, 8], rounded boxes (x, y, half width, half height, angle, corner, night, day)
    in pixels, radians and degrees Celsius; corner: radius, as a fraction of the smaller half side.
    extent: float64 [4] xyxy around the outlines of the parts, not clipped to the image.
    """

    label: int
    parts: np.ndarray
    extent: np.ndarray


class Scene(NamedTuple):
    """The content of one image."""

    texture: tuple[np.ndarray, ...]  # per CELLS: float32 [2 (night, day), h, w], normal
    ground_patches: np.ndarray  # float64 [P, 8] as SceneItem.parts, added to the ground
    items: tuple[SceneItem, ...]  # from far (high in the image) to near


def scene_rng(seed: int, index: int, stream: str) -> np.random.Generator:
    """A generator for the "scene" or for the "sensor"; the two are independent."""
    number = ("scene", "sensor").index(stream)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, index, number))))


def draw_scene(seed: int, index: int, size: tuple[int, int]) -> Scene:
    """Scene `index` of the stream `seed`: 2 to 8 objects at 128 x 160, more in a larger image."""
    height, width = size
    rng = scene_rng(seed, index, "scene")
    texture = tuple(
        rng.standard_normal((2, height // cell + 2, width // cell + 2), dtype=np.float32)
        for cell in CELLS
    )
    ground_patches = _ground_patches(rng, size)
    # Near items are larger and lower in the image; each scene has one zoom and one tilt.
    zoom, tilt = rng.uniform(0, 1), rng.uniform(0, 0.5)
    relative_area = height * width / (128 * 160)
    num_objects = int(rng.integers(2, max(2, round(8 * relative_area)) + 1))

    image = np.array([0, 0, width, height])
    items: list[SceneItem] = []
    for _ in range(4 * num_objects):
        x, y = rng.uniform(0, width), rng.uniform(0.12, 1.08) * height
        proximity = np.clip(zoom + tilt * (2 * y / height - 1) + 0.1 * rng.standard_normal(), 0, 1)
        label = int(rng.integers(len(CLASSES)))
        item = _make_item(label, (_person, _vehicle, _animal)[label](rng, proximity, x, y))
        inside = _overlap(item.extent, image) >= MIN_INSIDE
        if len(items) < num_objects and inside and _fits(item, items):
            items.append(item)
    for make, max_count in ((_building, 1), (_tree, 5), (_pole, 3), (_bin, 3), (_spot, 4)):
        for _ in range(rng.integers(0, round(max_count * relative_area) + 1)):
            item = _make_item(CLUTTER, make(rng, *_random_foot(rng, size)))
            if _fits(item, items):
                items.append(item)
    items.sort(key=lambda item: item.extent[3])
    return Scene(texture, ground_patches, tuple(items))


def half_extent(parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Half the width and height of the bounding box of each part; parts: [8] or [P, 8]."""
    half_w, half_h, angle, corner = parts.T[2:6]
    radius = corner * np.minimum(half_w, half_h)
    c, s = np.abs(np.cos(angle)), np.abs(np.sin(angle))
    half_w, half_h = half_w - radius, half_h - radius
    return c * half_w + s * half_h + radius, s * half_w + c * half_h + radius


def _make_item(label: int, parts: np.ndarray) -> SceneItem:
    x, y = parts[:, :2].T
    half_w, half_h = half_extent(parts)
    low, high = (x - half_w, y - half_h), (x + half_w, y + half_h)
    return SceneItem(label, parts, np.array([*map(np.min, low), *map(np.max, high)]))


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """The fraction of box a inside box b."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.tolist(), b.tolist()
    w, h = min(ax2, bx2) - max(ax1, bx1), min(ay2, by2) - max(ay1, by1)
    return max(w, 0) * max(h, 0) / ((ax2 - ax1) * (ay2 - ay1))


def _fits(new: SceneItem, items: list[SceneItem]) -> bool:
    """Return whether `new` leaves no object hidden by more than `MAX_OCCLUSION`."""
    for other in items:
        far, near = (new, other) if new.extent[3] < other.extent[3] else (other, new)
        if far.label != CLUTTER and _overlap(far.extent, near.extent) > MAX_OCCLUSION:
            return False
    return True


def _place_parts(
    rows: list[tuple], x: float, y: float, scale: float, rotation: float = 0.0, flip: int = 1
) -> np.ndarray:
    """Scale, mirror and rotate parts around their foot point (0, 0), and move it to (x, y).

    rows: the parts, in units of `scale`. rotation: radians. flip: 1 or -1.
    """
    parts = np.array(rows, float)
    local = parts[:, :2] * (flip * scale, scale)
    c, s = np.cos(rotation), np.sin(rotation)
    parts[:, 0] = x + c * local[:, 0] - s * local[:, 1]
    parts[:, 1] = y + s * local[:, 0] + c * local[:, 1]
    parts[:, 2:4] *= scale
    parts[:, 4] = flip * parts[:, 4] + rotation
    return parts


def _person(rng: np.random.Generator, proximity: float, x: float, y: float) -> np.ndarray:
    """Torso, head and legs, 9 to 28 px tall; the face is warmest, clothing varies."""
    height = 9 + 19 * proximity
    half_width, splay = rng.uniform(0.22, 0.28), rng.uniform(0, 0.18)
    clothes, skin = rng.uniform(0, 1, 2)
    legs = (0.085, 0.24, 14 + 4 * clothes, 29 + 5 * clothes)
    torso = (17 + 5 * clothes, 30 + 5 * clothes)
    rows = [
        (-0.11, -0.22, legs[0], legs[1], splay, 1, *legs[2:]),
        (0.11, -0.22, legs[0], legs[1], -splay, 1, *legs[2:]),
        (0, -0.58, half_width, 0.24, 0, 0.9, *torso),
        (0, -0.87, 0.115, 0.13, 0, 1, 25 + 3 * skin, 33 + 2 * skin),
    ]
    return _place_parts(rows, x, y, height, rotation=0.12 * rng.standard_normal())


def _vehicle(rng: np.random.Generator, proximity: float, x: float, y: float) -> np.ndarray:
    """14 to 44 px long, at any heading; cold glass and roof, hot hood and tires if it has run."""
    length = 14 + 30 * proximity
    heading, half_width = rng.uniform(-np.pi, np.pi), rng.uniform(0.24, 0.30)
    has_run = rng.uniform() < 0.75
    paint, engine = rng.uniform(0, 1, 2)
    body = (7 + 6 * paint, 25 + 22 * paint)
    roof = (4 + 4 * paint, 27 + 22 * paint)
    glass = (2 + 2 * paint, 26 + 6 * paint)
    hood = (18 + 10 * engine, 40 + 8 * engine) if has_run else (body[0] - 2, body[1] + 2)
    tires = (15 + 6 * engine, 38 + 6 * engine) if has_run else (7.0, 34.0)
    rows = [
        *(
            (x, y, 0.085, 0.05, 0, 1, *tires)
            for x in (-0.3, 0.3)
            for y in (-half_width, half_width)
        ),
        (0, 0, 0.5, half_width, 0, 0.4, *body),
        (0.34, 0, 0.14, 0.75 * half_width, 0, 0.5, *hood),
        (-0.07, 0, 0.32, 0.8 * half_width, 0, 0.3, *glass),
        (-0.09, 0, 0.20, 0.7 * half_width, 0, 0.3, *roof),
    ]
    # Oblique view: directions away from the camera are foreshortened, the length most.
    parts = np.array(rows)
    along = 1 - 0.45 * np.sin(heading) ** 2
    across = 1 - 0.25 * np.cos(heading) ** 2
    parts[:, [0, 2]] *= along
    parts[:, [1, 3]] *= across
    return _place_parts(list(map(tuple, parts)), x, y, length, rotation=heading)


def _animal(rng: np.random.Generator, proximity: float, x: float, y: float) -> np.ndarray:
    """Four legs, a level body and a head, 8 to 24 px long; fur makes the body cooler."""
    length = 8 + 16 * proximity
    fur, skin = rng.uniform(0, 1, 2)
    half_height, lift = rng.uniform(0.13, 0.18), rng.uniform(-0.05, 0.08)
    body = (16 + 6 * fur, 29 + 6 * fur)
    legs = (13 + 3 * fur, 28 + 5 * fur)
    head = (20 + 4 * skin, 31 + 3 * skin)
    rows = [
        *((leg, -0.14, 0.045, 0.15, 0, 1, *legs) for leg in (-0.32, -0.2, 0.14, 0.25)),
        (-0.45, -0.36, 0.09, 0.03, 0.7, 1, *body),
        (-0.05, -0.36, 0.36, half_height, 0, 1, *body),
        (0.29, -0.45 - lift, 0.13, 0.075, -0.7, 1, *body),
        (0.40, -0.53 - lift, 0.11, 0.08, 0.25, 1, *head),
    ]
    return _place_parts(rows, x, y, length, flip=int(rng.choice((-1, 1))))


def _random_foot(rng: np.random.Generator, size: tuple[int, int]) -> tuple[float, float]:
    return rng.uniform(0, size[1]), rng.uniform(0.08, 1.1) * size[0]


def _building(rng: np.random.Generator, x: float, y: float) -> np.ndarray:
    """A wall, a roof edge and rows of windows of different warmth."""
    width, height = rng.uniform(34, 70), rng.uniform(20, 44)
    y *= 0.5  # far from the camera
    wall, roof = rng.uniform(0, 1, 2)
    rows: list[tuple] = [
        (0, -height / 2, width / 2, height / 2, 0, 0, 10 + 2 * wall, 29 + 8 * wall),
        (0, -height, width / 2 + 1, 1.5, 0, 0, 4 + 3 * roof, 34 + 8 * roof),
    ]
    columns = np.arange(-width / 2 + 6, width / 2 - 5, rng.uniform(9, 14))
    for row in np.arange(-height + 8, -5, rng.uniform(10, 14)):
        for column in columns:
            warmth = rng.uniform(0, 1)
            rows.append((column, row, 2.2, 2.8, 0, 0, 7 + 9 * warmth, 27 + 4 * warmth))
    return _place_parts(rows, x, y, 1.0)


def _tree(rng: np.random.Generator, x: float, y: float) -> np.ndarray:
    """A crown at air temperature: close to the ground's by night, well below it by day."""
    spread, leaves = rng.uniform(4, 11), int(rng.integers(5, 10))
    centers = rng.standard_normal((leaves, 2)) * (0.55 * spread, 0.35 * spread)
    air = rng.uniform(0, 1)
    rows = []
    for cx, cy in centers:
        side, rotation, offset = rng.uniform(0.3, 0.6), rng.uniform(0, np.pi), rng.uniform(-1, 1)
        rows.append(
            (
                cx,
                cy - spread,
                side * spread,
                0.7 * side * spread,
                rotation,
                1,
                8 + 3 * air + offset,
                24 + 4 * air + 1.5 * offset,
            )
        )
    trunk = (0, -0.4 * spread, 0.08 * spread + 0.4, 0.4 * spread, 0, 0.5, 8.0, 27.0)
    return _place_parts([trunk, *rows], x, y, 1.0)


def _pole(rng: np.random.Generator, x: float, y: float) -> np.ndarray:
    """Thin and upright; half of the poles have a lamp, hot by night."""
    height, half_width, metal = rng.uniform(18, 50), rng.uniform(0.5, 1.1), rng.uniform(0, 1)
    rows: list[tuple] = [
        (0, -height / 2, half_width, height / 2, 0, 0, 5 + 6 * metal, 28 + 10 * metal)
    ]
    if rng.uniform() < 0.5:
        rows.append(
            (
                2 * half_width,
                -height,
                2.5 * half_width,
                half_width + 0.3,
                0,
                1,
                17 + 6 * metal,
                32 + 4 * metal,
            )
        )
    return _place_parts(rows, x, y, 1.0, rotation=0.03 * rng.standard_normal())


def _bin(rng: np.random.Generator, x: float, y: float) -> np.ndarray:
    """A box with a lid, warm or cold, of the size of a person or vehicle."""
    half_width, half_height, heat = rng.uniform(2, 7), rng.uniform(3, 7), rng.uniform(0, 1)
    lid = rng.uniform(-2, 2)
    rows = [
        (0, -half_height, half_width, half_height, 0, 0.2, 3 + 16 * heat, 26 + 18 * heat),
        (
            0,
            -2 * half_height,
            half_width,
            1.0,
            0,
            0.2,
            3 + 16 * heat + lid,
            26 + 18 * heat + 2 * lid,
        ),
    ]
    return _place_parts(rows, x, y, 1.0, rotation=0.1 * rng.standard_normal())


def _spot(rng: np.random.Generator, x: float, y: float) -> np.ndarray:
    """Round and warm: a manhole, an ember, a sunlit stone."""
    radius, heat = rng.uniform(0.8, 3.5), rng.uniform(0, 1)
    rows = [(0, 0, radius, rng.uniform(0.6, 1) * radius, 0, 1, 13 + 12 * heat, 34 + 10 * heat)]
    return _place_parts(rows, x, y, 1.0)


def _ground_patches(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Fields, roads, painted lines and shadows, see `Scene.ground_patches`."""
    height, width = size
    diagonal = float(np.hypot(height, width))

    def rows(max_count: int, draw: Callable[[], tuple], min_count: int = 0) -> list[tuple]:
        return [
            (rng.uniform(0, width), rng.uniform(0, height), *draw())
            for _ in range(rng.integers(min_count, max_count + 1))
        ]

    def field() -> tuple:
        return (
            *rng.uniform(0.15, 0.6, 2) * diagonal,
            rng.uniform(0, np.pi),
            rng.uniform(0, 1),
            1.3 * rng.standard_normal(),
            2.5 * rng.standard_normal(),
        )

    def road() -> tuple:  # asphalt stores the heat of the day
        return (
            diagonal,
            rng.uniform(0.03, 0.09) * diagonal,
            rng.uniform(0, np.pi),
            0,
            rng.uniform(1, 3),
            rng.uniform(0, 5),
        )

    def line() -> tuple:
        return (
            rng.uniform(0.1, 0.5) * diagonal,
            rng.uniform(0.4, 0.8),
            rng.uniform(0, np.pi),
            0,
            rng.uniform(-2, 0),
            rng.uniform(-4, 0),
        )

    def shadow() -> tuple:
        half_w, half_h = rng.uniform(4, 22), rng.uniform(2, 9)
        return half_w, half_h, rng.uniform(-0.4, 0.4), 0.8, 0.0, rng.uniform(-7, -3)

    return np.array([*rows(5, field, 2), *rows(2, road), *rows(4, line), *rows(5, shadow)], float)
