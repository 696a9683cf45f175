"""Synthetic people seen by visible and infrared cameras, generated on the fly: for tests, the
quickstart and studies of visible-infrared recognition.

Shape is common to both modalities, color is only in visible images and heat only in infrared ones.
The six cameras are numbered from 0 in the order of SYSU-MM01: 0, 1, 3 and 4 are visible, 2 and 5
infrared. Cameras 1 and 2 are in one room: their images may be twins, of one moment. Image k of an
identity and camera is a function of (seed, split, identity, camera, k, size, strengths); strengths
change only how it looks.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tinyjax.data.modality import INFRARED, VISIBLE
from tinyjax.data.records import RecognitionSplit
from tinyjax.data.retrieval_protocols import both_directions
from tinyjax.data.synthetic import people
from tinyjax.data.synthetic.people import Geometry, Moment, Person
from tinyjax.errors import UserError, suggest

STRENGTHS = {
    "color": 1.0,  # 0: clothes, hair and skin of all identities have the same grays
    "heat": 1.0,  # 0: the materials of all identities have the same temperatures
    "pattern": 0.45,  # amplitude of stripes and checks in visible images, fraction of reflectance
    "infrared_pattern": 1.1,  # amplitude of the same in infrared images, K
    # Nuisances, from 0 (none) to 1; at 1 a small network learns little in 500 steps.
    "view": 0.5,  # direction from which the person is seen
    "pose": 0.5,  # arms, legs and lean
    "position": 0.5,  # scale and shift
    "occlusion": 0.5,  # at 1 a pole is in front of 2 of 5 persons
    "background": 0.5,  # contrast of the place behind the person
    "light": 0.5,  # visible: brightness, cast and ramps; infrared: ambient and automatic gain
    "blur": 0.5,
    "noise": 0.5,
    "twins": 0.0,  # fraction of the images of camera 2 that show a moment of camera 1
}
SPLITS = ("train", "val", "test", "pretrain")  # independent streams of identities
CAMERA_MODALITIES = (VISIBLE, VISIBLE, INFRARED, VISIBLE, VISIBLE, INFRARED)
TWIN_CAMERAS = {2: 1}  # infrared camera -> visible camera in the same room
CELLS = ((9, 6), (20, 12))  # of the grids that a camera's background is interpolated from
WINDOW = 0.6  # fraction of a camera's background that one image shows
MAX_OCCLUDED = 0.4  # probability of a pole in front of the person
MAX_POLE = 0.2  # width of the pole, fraction of the image's width


class Camera(NamedTuple):
    """A camera with its place: `C` is 3 for visible and 1 for infrared cameras."""

    modality: int
    level: np.ndarray  # [C] mean of the background: reflectance, or K above the ground
    texture: tuple[np.ndarray, ...]  # by CELLS: float64 [h, w, C]
    cast: np.ndarray  # [C] color cast, standard normal
    boxes: np.ndarray  # float64 [B, 6], as `Geometry.parts`, in fractions of the image's sides
    box_levels: np.ndarray  # [B, C]


def load(
    n: int,
    split: str = "train",
    per_camera: tuple[int, int] = (2, 4),
    size: tuple[int, int] = (64, 32),
    seed: int = 0,
    **strengths: float,
) -> RecognitionSplit:
    """Generate the images of identities 0..n-1 of a split, uint8 [N, H, W, 3].

    A gray infrared image has three equal channels. Splits of one seed share the cameras but no
    identity. "val" and "test" have the protocols of `both_directions`.

    Args:
        n: number of identities.
        split: of SPLITS; "pretrain" has further identities, for pretraining.
        per_camera: images of an identity by each visible camera and by each infrared one.
        size: (H, W), at least 32 x 16.
        strengths: any of STRENGTHS.

    Raises UserError for an unknown split or strength, and for a number out of range.
    """
    for name in strengths:
        if name not in STRENGTHS:
            hint = suggest(name, STRENGTHS)
            raise UserError(f"no strength {name!r} of synthetic identities; {hint}")
    if split not in SPLITS:
        raise UserError(f"synthetic identities: no split {split!r}; {suggest(split, SPLITS)}")
    if n < 1 or seed < 0 or min(per_camera) < 0 or sum(per_camera) < 1:
        raise UserError(
            f"synthetic identities: n = {n}, seed = {seed}, per_camera = {per_camera}; give "
            "n >= 1, seed >= 0 and (visible, infrared) images of each camera, such as (2, 4)"
        )
    if size[0] < 32 or size[1] < 16:
        raise UserError(f"synthetic identities: size = {size}; give at least (32, 16)")
    strengths = {**STRENGTHS, **strengths}
    keys = [
        (identity, camera, k)
        for identity in range(n)
        for camera, modality in enumerate(CAMERA_MODALITIES)
        for k in range(per_camera[modality])
    ]
    persons = [
        people.draw_person(_generator(seed, split, identity, "person")) for identity in range(n)
    ]
    images = np.stack(
        [
            draw_image(seed, split, persons[identity], identity, camera, k, size, strengths)
            for identity, camera, k in keys
        ]
    )
    moments = [
        (identity, *moment_source(seed, split, identity, camera, k, strengths["twins"]))
        for identity, camera, k in keys
    ]
    numbers = {moment: number for number, moment in enumerate(dict.fromkeys(moments))}
    cameras = np.array([camera for _, camera, _ in keys], np.int32)
    modality = np.array(CAMERA_MODALITIES, np.uint8)[cameras]
    return RecognitionSplit(
        inputs={"image": images, "modality": modality},
        labels=np.array([identity for identity, _, _ in keys], np.int32),
        cameras=cameras,
        captures=np.array([numbers[moment] for moment in moments], np.int32),
        names=tuple(f"{split}_{i:04d}/cam{camera}_{k:02d}" for i, camera, k in keys),
        classes=tuple(f"{split}_{identity:04d}" for identity in range(n)),
        protocols=both_directions(modality) if split in ("val", "test") else {},
        origin=(f"synthetic, seed {seed}", 0),
    )


def draw_image(
    seed: int,
    split: str,
    person: Person,
    identity: int,
    camera_id: int,
    k: int,
    size: tuple[int, int],
    strengths: dict[str, float],
) -> np.ndarray:
    """Image `k` of an identity by a camera, uint8 [H, W, 3]."""
    camera = draw_camera(seed, camera_id)
    source = moment_source(seed, split, identity, camera_id, k, strengths["twins"])
    moment = people.draw_moment(_generator(seed, split, identity, "moment", *source))
    geometry = people.pose_person(
        person, moment, size, strengths["view"], strengths["pose"], strengths["position"]
    )
    rng = _generator(seed, split, identity, "sensor", camera_id, k)
    scene = render(person, moment, geometry, camera, size, strengths, rng)
    if camera.modality == VISIBLE:
        image = simulate_visible(scene, camera, strengths, rng)
    else:
        image = simulate_infrared(scene, strengths, rng)
    return np.broadcast_to(np.rint(255 * np.clip(image, 0, 1)), (*size, 3)).astype(np.uint8)


def moment_source(
    seed: int, split: str, identity: int, camera_id: int, k: int, twins: float
) -> tuple[int, int]:
    """(camera, k) that the moment of an image is drawn from: of its twin, or its own."""
    if twins > 0 and camera_id in TWIN_CAMERAS:
        rng = _generator(seed, split, identity, "twin", camera_id, k)
        if rng.uniform() < twins:
            return TWIN_CAMERAS[camera_id], k
    return camera_id, k


STREAMS = ("person", "moment", "sensor", "twin", "camera")


def _generator(
    seed: int, split: str, identity: int, stream: str, camera: int = 0, k: int = 0
) -> np.random.Generator:
    key = (seed, SPLITS.index(split), identity, STREAMS.index(stream), camera, k)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


# ---- cameras


@lru_cache(maxsize=64)
def draw_camera(seed: int, camera_id: int) -> Camera:
    """A camera of the set `seed`, shared by all splits."""
    rng = _generator(seed, SPLITS[0], 0, "camera", camera_id)
    modality = CAMERA_MODALITIES[camera_id]
    channels = 3 if modality == VISIBLE else 1
    low, high, contrast = (0.25, 0.65, 0.1) if modality == VISIBLE else (-1.0, 2.0, 1.0)
    count = int(rng.integers(3, 6))
    upright = rng.uniform(size=count) < 0.7
    boxes = np.stack(
        [
            rng.uniform(-0.2, 1.2, count),
            rng.uniform(0, 0.8, count),
            np.where(upright, rng.uniform(0.02, 0.12, count), rng.uniform(0.2, 0.6, count)),
            np.where(upright, rng.uniform(0.2, 0.6, count), rng.uniform(0.02, 0.1, count)),
            np.zeros(count),
            np.zeros(count),
        ],
        axis=1,
    )

    def vary(*shape: int) -> np.ndarray:
        """Variation of lightness, and a third as much of color."""
        return rng.standard_normal((*shape, 1)) + 0.3 * rng.standard_normal((*shape, channels))

    return Camera(
        modality,
        rng.uniform(low, high) + 0.3 * contrast * vary(),
        tuple(contrast * vary(*cells) for cells in CELLS),
        rng.standard_normal(channels),
        boxes,
        rng.uniform(low, high) + contrast * vary(count),
    )


def _background(camera: Camera, window: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The texture behind the person, [H, W, C] around 0; window: [2] (x, y) -1..1."""
    start = (1 - WINDOW) * (window + 1) / 2
    total = np.zeros(())
    for grid in camera.texture:
        x, y = (
            (start[axis] + WINDOW * (np.arange(pixels) + 0.5) / pixels) * (cells - 1)
            for axis, pixels, cells in ((0, size[1], grid.shape[1]), (1, size[0], grid.shape[0]))
        )
        columns, rows = _gaussian(x, grid.shape[1], 0.6), _gaussian(y, grid.shape[0], 0.6)
        columns /= np.linalg.norm(columns, axis=1, keepdims=True)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        total = total + np.einsum("yh,hwc,xw->yxc", rows, grid, columns, optimize=True)
    return total


# ---- rendering


def render(
    person: Person,
    moment: Moment,
    geometry: Geometry,
    camera: Camera,
    size: tuple[int, int],
    strengths: dict[str, float],
    rng: np.random.Generator,
) -> np.ndarray:
    """The scene before the sensor, [H, W, C]: reflectance, or K above the ground."""
    height, width = size
    visible = camera.modality == VISIBLE
    contrast = 1.3 * strengths["background"]
    mean = camera.level
    background = mean + contrast * _background(camera, moment.window, size)
    boxes = camera.boxes.copy()
    boxes[:, :2] -= 0.3 * moment.window
    boxes[:, :4] *= (width, height, width, height)
    box_levels = mean + contrast * (camera.box_levels - mean)

    pole_level = mean + (rng.uniform(-0.4, 0.4) if visible else rng.uniform(-2, 3))
    pole_width = MAX_POLE * width * (0.3 + 0.7 * moment.occluder_width) / 2
    pole = np.array([[moment.occluder_x * width, height / 2, pole_width, height, 0, 0]])
    pole = pole[: int(moment.occluder < MAX_OCCLUDED * strengths["occlusion"])]

    levels = appearance(person, camera.modality, strengths)[geometry.materials]
    parts = np.concatenate([boxes, geometry.parts, pole])
    levels = np.concatenate([box_levels, levels, np.tile(pole_level, (len(pole), 1))])
    weights, transmission = layer_weights(parts, size)
    scene = np.tensordot(weights, levels, axes=(0, 0)) + transmission[..., None] * background

    upper = np.zeros(len(parts), bool)
    upper[len(boxes) : len(boxes) + len(geometry.parts)] = geometry.materials == people.UPPER
    pattern = weights[upper].sum(0) * people.pattern_field(person, geometry, size)
    if visible:
        return scene * (1 + strengths["pattern"] * pattern[..., None])
    return scene + strengths["infrared_pattern"] * pattern[..., None]


def appearance(person: Person, modality: int, strengths: dict[str, float]) -> np.ndarray:
    """The levels of a person's materials, [MATERIALS, C]: reflectance, or K above the ground."""
    if modality == VISIBLE:
        gray = people.GRAY[:, None]
        return gray + strengths["color"] * (person.color - gray)
    warmth = people.WARMTH + strengths["heat"] * (person.warmth - people.WARMTH)
    return warmth[:, None]


def layer_weights(parts: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The share of each part in each pixel, [P, H, W], and the share of the background, [H, W].

    parts: as `Geometry.parts`, opaque, from back to front. The coverage of a pixel is computed from
    the signed distance to a rounded box (I. Quilez, "2D distance functions").
    """
    height, width = size
    x, y, half_w, half_h, angle, corner = parts.T.astype(np.float32)[..., None, None]
    radius = np.maximum(corner * np.minimum(half_w, half_h), 0.5)
    dx = np.arange(width, dtype=np.float32) + 0.5 - x
    dy = np.arange(height, dtype=np.float32)[:, None] + 0.5 - y
    c, s = np.cos(angle), np.sin(angle)
    across = np.maximum(np.abs(c * dx + s * dy) - (half_w - radius), 0)
    along = np.maximum(np.abs(c * dy - s * dx) - (half_h - radius), 0)
    coverage = np.clip(0.5 + radius - np.sqrt(across * across + along * along), 0, 1)
    behind = np.cumprod(1 - coverage[::-1], axis=0)[::-1]  # share of all that is behind part p
    weights = coverage.copy()
    weights[:-1] *= behind[1:]
    return weights, behind[0]


# ---- sensors


def simulate_visible(
    scene: np.ndarray, camera: Camera, strengths: dict[str, float], rng: np.random.Generator
) -> np.ndarray:
    """Light, optics and noise of a visible camera: reflectance [H, W, 3] to gray values 0..1."""
    height, width, _ = scene.shape
    light = 0.7 * strengths["light"]
    gain = np.exp(0.5 * light * rng.uniform(-1, 1))
    cast = 1 + light * (0.2 * camera.cast + 0.15 * rng.standard_normal(3))
    ramp_x, ramp_y = 0.7 * light * rng.uniform(-1, 1, 2)
    ramps = (
        1
        + ramp_x * np.linspace(-0.5, 0.5, width)
        + ramp_y * np.linspace(-0.5, 0.5, height)[:, None]
    )
    image = _blur(scene * gain * cast * ramps[..., None], strengths["blur"], rng)
    return image + 0.04 * strengths["noise"] * rng.standard_normal(scene.shape)


def simulate_infrared(
    scene: np.ndarray, strengths: dict[str, float], rng: np.random.Generator
) -> np.ndarray:
    """Ambient, optics, noise and automatic gain of an infrared camera: K above the ground
    [H, W, 1] to gray values 0..1.
    """
    light = 0.7 * strengths["light"]
    # Warm air brings clothes and ground closer together.
    image = _blur(scene * (1 - 0.4 * light * rng.uniform()), strengths["blur"], rng)
    image = image + 0.5 * strengths["noise"] * rng.standard_normal(scene.shape)
    low, high = np.percentile(image, (0.5, 99.5))
    margin = 0.5 * light * rng.uniform(0, 1, 2) * (high - low)
    return (image - (low - margin[0])) / (high - low + margin.sum())


def _blur(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur of [H, W, C]; up to 1.2 px at 64 rows."""
    height, width, _ = image.shape
    sigma = 1.2 * strength * rng.uniform() * height / 64
    if sigma < 0.1:
        return image
    rows, columns = (_gaussian(np.arange(pixels), pixels, sigma) for pixels in (height, width))
    rows /= rows.sum(1, keepdims=True)
    columns /= columns.sum(1, keepdims=True)
    return np.einsum("yh,hwc,xw->yxc", rows, image, columns, optimize=True)


def _gaussian(positions: np.ndarray, cells: int, sigma: float) -> np.ndarray:
    """[positions, cells] weights by the distance to each cell's center."""
    weights: Any = np.exp(-0.5 * ((positions[:, None] - np.arange(cells)) / sigma) ** 2)
    return weights
