"""People of the synthetic recognition set: what identifies a person, and how one moment shows it.

Shape, color and heat are drawn independently of each other, so that only shape is common to visible
and infrared images. A person is a list of rounded boxes in units of the body's height, around the
foot point (0, 0) with y down; `Geometry.parts` is in pixels.
"""

from typing import NamedTuple

import numpy as np

MATERIALS = ("skin", "hair", "upper", "lower", "shoes", "bag", "hat")
SKIN, HAIR, UPPER, LOWER, SHOES, BAG, HAT = range(len(MATERIALS))
# Reflectance and K above the ground of everyone's materials where `color` or `heat` is 0.
GRAY = np.array([0.6, 0.2, 0.55, 0.35, 0.25, 0.3, 0.4])
WARMTH = np.array([9.5, 5.0, 4.0, 3.0, 1.5, 0.5, 2.5])
WARMTH_RANGE = np.array([1.0, 1.5, 2.5, 2.5, 1.5, 1.5, 2.0])  # K, half of the range of a material

BARE_HEAD, LONG_HAIR, BRIM, HOOD = range(4)
NO_BAG, BACKPACK, SIDE_BAG, STRAP_BAG = range(4)
PLAIN, ROWS, COLUMNS, CHECKS = range(4)
MAX_YAW = 0.7 * np.pi


class Person(NamedTuple):
    """An identity. Lengths are fractions of the body's height; widths are half widths."""

    height: float  # of the body, fraction of the image's height
    shoulder: float
    hip: float
    leg: float  # length
    leg_width: float
    arm_width: float
    head: float
    hem: float  # length of the coat below the hip
    sleeve: float  # fraction of the arm
    trouser: float  # fraction of the leg
    headwear: int
    bag: int
    bag_size: float
    bag_height: float
    pattern: int  # of the upper garment
    frequency: float  # cycles per body height
    color: np.ndarray  # [MATERIALS, 3] reflectance
    warmth: np.ndarray  # [MATERIALS] K above the ground


class Moment(NamedTuple):
    """Pose, view and position of a person in one image; all numbers are standard draws."""

    yaw: float  # -1..1
    swing: float  # -1..1
    stride: float  # -1..1
    lean: float  # -1..1
    size: float  # -1..1
    shift: np.ndarray  # [2] -1..1
    window: np.ndarray  # [2] -1..1, which part of the background is visible
    occluder: float  # 0..1; the pole is present if it is below the strength
    occluder_x: float  # 0..1
    occluder_width: float  # 0..1


class Geometry(NamedTuple):
    """Rounded boxes of one image in pixels, from back to front."""

    parts: np.ndarray  # float64 [P, 6] x, y, half width, half height, angle, corner
    materials: np.ndarray  # int [P]
    foot: tuple[float, float]  # px
    body: float  # height in px
    narrowing: float  # of widths, by the view


def draw_person(rng: np.random.Generator) -> Person:
    """Draw an identity; shape, color and heat are independent."""
    u = rng.uniform
    skin_tone = u(0, 1)
    color = 0.06 + 0.88 * rng.uniform(size=(len(MATERIALS), 3))
    color[SKIN] = np.array([0.42, 0.27, 0.18]) + skin_tone * np.array([0.45, 0.42, 0.38])
    color[HAIR] = u(0.05, 0.6) * np.array([1.0, u(0.65, 0.95), u(0.35, 0.85)])
    return Person(
        height=u(0.74, 0.95),
        shoulder=u(0.10, 0.165),
        hip=u(0.075, 0.135),
        leg=u(0.42, 0.54),
        leg_width=u(0.034, 0.062),
        arm_width=u(0.022, 0.042),
        head=u(0.055, 0.078),
        hem=u(0.08, 0.26) * (u() < 0.45),
        sleeve=u(0.25, 1.0),
        trouser=1.0 if u() < 0.4 else u(0.3, 0.9),
        headwear=int(rng.integers(4)),
        bag=int(rng.integers(4)),
        bag_size=u(0.07, 0.12),
        bag_height=u(0.52, 0.72),
        pattern=int(rng.integers(4)),
        frequency=u(6.0, 12.0),
        color=color,
        warmth=WARMTH + WARMTH_RANGE * rng.uniform(-1, 1, len(MATERIALS)),
    )


def draw_moment(rng: np.random.Generator) -> Moment:
    """Draw the nuisances of one moment, at full strength."""
    yaw, swing, stride, lean, size = rng.uniform(-1, 1, 5).tolist()
    shift, window = rng.uniform(-1, 1, (2, 2))
    return Moment(yaw, swing, stride, lean, size, shift, window, *rng.uniform(size=3).tolist())


def pose_person(
    person: Person, moment: Moment, size: tuple[int, int], view: float, pose: float, position: float
) -> Geometry:
    """The rounded boxes of a person in an image of `size` (H, W).

    view: 0 frontal .. 1 up to `MAX_YAW` to the left or right. pose: of arms, legs and lean.
    position: of scale and shift.
    """
    height, width = size
    yaw = MAX_YAW * view * moment.yaw
    # A body is about half as deep as it is wide.
    narrowing = float(np.hypot(np.cos(yaw), 0.55 * np.sin(yaw)))
    body = person.height * height * (1 + 0.12 * position * moment.size)
    foot = (
        width * (0.5 + 0.12 * position * moment.shift[0]),
        height * (0.975 + 0.06 * position * moment.shift[1]),
    )
    rows = _person_rows(person, moment, yaw, narrowing, pose)
    parts = np.array([row[:6] for row in rows])
    parts[:, 0] -= 0.12 * pose * moment.lean * parts[:, 1]  # a shear: feet stay where they are
    parts[:, :4] *= body
    parts[:, :2] += foot
    return Geometry(parts, np.array([row[6] for row in rows]), foot, body, narrowing)


def _limb(
    x: float, y: float, length: float, half_width: float, angle: float, material: int
) -> tuple:
    """A box that hangs from the joint (x, y), `angle` radians from the vertical."""
    half = length / 2
    center = (x + half * np.sin(angle), y + half * np.cos(angle))
    return (*center, half_width, half, -angle, 0.8, material)


def _person_rows(
    person: Person, moment: Moment, yaw: float, narrowing: float, pose: float
) -> list[tuple]:
    """Boxes (x, y, half width, half height, angle, corner, material) from back to front."""
    turn, facing = float(np.sin(yaw)), np.cos(yaw) > 0
    depth = 0.25 + 0.75 * abs(turn)  # steps and swings are seen best from the side
    shoulder, hip = person.shoulder * narrowing, person.hip * narrowing
    neck_y = -(1 - 2.4 * person.head)
    backpack = [
        (-turn * 0.14, neck_y + 0.17, 1.25 * person.bag_size * narrowing, 0.14, 0, 0.4, BAG)
    ]
    backpack = backpack if person.bag == BACKPACK else []
    rows = [*backpack] if facing else []
    for side in (-1, 1):
        rows += _leg(person, side, hip, side * 0.45 * pose * moment.stride * depth)
    torso_middle = (neck_y - person.leg) / 2
    half_torso = (-person.leg - neck_y) / 2
    rows += [
        (0, -person.leg - 0.01, hip, 0.05, 0, 0.6, LOWER),
        (0, torso_middle, (shoulder + hip) / 2, half_torso, 0, 0.35, UPPER),
        (0, neck_y + 0.08, shoulder, 0.08, 0, 0.7, UPPER),
    ]
    if person.hem:
        hem = (0, -person.leg + person.hem / 2 - 0.02, 1.15 * hip, person.hem / 2 + 0.03, 0, 0.2)
        rows.append((*hem, UPPER))
    for side in (-1, 1):
        angle = side * (0.1 + 0.5 * pose * moment.swing * depth)
        rows += _arm(person, side * (shoulder - 0.5 * person.arm_width), neck_y + 0.03, angle)
    rows += _head(person, turn, facing)
    if person.bag in (SIDE_BAG, STRAP_BAG):
        x = (hip + 0.6 * person.bag_size) * (1 if facing else -1)
        drop = -person.bag_height if person.bag == STRAP_BAG else -0.42
        rows.append((x, drop, 0.8 * person.bag_size, person.bag_size, 0, 0.3, BAG))
        if person.bag == STRAP_BAG:
            tilt = np.arctan2(x + shoulder, drop - neck_y)
            length = float(np.hypot(x + shoulder, drop - neck_y))
            rows.append(_limb(-0.7 * shoulder, neck_y + 0.02, length, 0.014, tilt, BAG))
    return rows + ([] if facing else backpack)


def _leg(person: Person, side: int, hip: float, angle: float) -> list[tuple]:
    x, y = side * max(0.5 * hip, 0.6 * person.leg_width), -person.leg
    length, half_width = person.leg - 0.02, person.leg_width
    foot_x, foot_y = x + length * np.sin(angle), y + length * np.cos(angle)
    return [
        _limb(x, y, length, 0.75 * half_width, angle, SKIN),
        _limb(x, y, person.trouser * length, half_width, angle, LOWER),
        (foot_x, foot_y, 1.15 * half_width, 0.028, 0, 0.6, SHOES),
    ]


def _arm(person: Person, x: float, y: float, angle: float) -> list[tuple]:
    length = 0.36
    return [
        _limb(x, y, length + 0.03, 0.8 * person.arm_width, angle, SKIN),
        _limb(x, y, person.sleeve * length, person.arm_width, angle, UPPER),
    ]


def _head(person: Person, turn: float, facing: bool) -> list[tuple]:
    head, y = person.head, -1 + 1.15 * person.head
    rows: list[tuple] = [
        (0, y + 1.1 * head, 0.45 * head, 0.5 * head, 0, 0.2, SKIN),
        (0, y, head, 1.15 * head, 0, 1, HAIR),
    ]
    if person.headwear == LONG_HAIR:
        rows.append((-0.3 * turn * head, y + 0.9 * head, 1.15 * head, 1.5 * head, 0, 0.5, HAIR))
    if facing:
        rows.append((0.3 * turn * head, y + 0.25 * head, 0.78 * head, 0.9 * head, 0, 1, SKIN))
    if person.headwear == BRIM:
        rows += [
            (0, y - 0.75 * head, head, 0.5 * head, 0, 0.4, HAT),
            (0, y - 0.4 * head, 1.9 * head, 0.2 * head, 0, 0.5, HAT),
        ]
    if person.headwear == HOOD:
        rows.insert(0, (0, y + 0.3 * head, 1.45 * head, 1.6 * head, 0, 0.7, UPPER))
    return rows


def pattern_field(person: Person, geometry: Geometry, size: tuple[int, int]) -> np.ndarray:
    """The pattern of the upper garment, float64 [H, W] in -1..1; 0 if it is plain."""
    height, width = size
    scale = 2 * np.pi * person.frequency / geometry.body
    x = np.arange(width) + 0.5 - geometry.foot[0]
    rows = _soft_square(scale * (np.arange(height) + 0.5 - geometry.foot[1]))[:, None]
    columns = _soft_square(scale / geometry.narrowing * x)
    fields = {
        PLAIN: np.zeros((1, 1)),
        ROWS: rows,
        COLUMNS: columns,
        CHECKS: rows * columns,
    }
    return np.broadcast_to(fields[person.pattern], size)


def _soft_square(phase: np.ndarray) -> np.ndarray:
    return np.clip(2 * np.sin(phase), -1, 1)
