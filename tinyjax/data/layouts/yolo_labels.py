"""The lines of YOLO's label files. Their meaning by the number of numbers:

    5           class x y w h: a box, center and size
    7, 9, ..    class x1 y1 x2 y2 x3 y3 ..: a polygon, whose enclosing box is used; OBB writes 9
    5 + n d     class x y w h, then n key points of d numbers, if data.yaml has kpt_shape: [n, d]

Positions and sizes are fractions of the image's width and height; boxes and polygons may extend
beyond the image. Numbers are decimal and separated by spaces or tabs. Any other line is an error,
also 6 numbers: a box with the confidence of a detector or with a track id.

Some lines of other formats have as many numbers as a polygon:

    7, 11, ..   a box or polygon with confidence and track id; the last number is an integer
    5 + 2 n     key points without kpt_shape, px py; the box x y w h encloses them
    5 + 3 n     key points without kpt_shape, px py visibility; the same, or visibility is 0, 1 or 2

A track id of 2 or a visibility of 2 cannot be a fraction. Otherwise one line cannot be told from a
polygon, but the lines of a split can: they are polygons if one of them fits only a polygon. If all
fit another format, or one that fits it cannot be a polygon, those that fit it are errors. For key
points, one line must also have (w, h) outside the box: as a corner, it would be far from the rest.
"""

import math
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tinyjax.data.layouts.listing import Label, OnError, read_text
from tinyjax.data.sources import AnyPath
from tinyjax.errors import UserError

NUMBERS = re.compile(r"[0-9eE.+\- \t]+")  # float() also takes nan, inf, 1_000 and other digits
PIXELS = 2  # from this on, a coordinate is in pixels: it is not a fraction with overhang
MARGIN = 0.01  # by which a box may extend beyond the image, or a key point beyond its box
BOX = "class x y width height"
TRACK = "a confidence and a track id at its end; remove these two numbers"


class _Line(NamedTuple):
    """A line with as many numbers as a box or a polygon."""

    label: Label
    text: str  # for messages; "" if only one reading is possible
    corners: int  # of the polygon; 0: a box
    is_fraction: bool  # False: not a polygon; already reported
    formats: dict[str, bool]  # see `_other_formats`


def read_labels(
    files: Sequence[AnyPath | None],
    names: Sequence[str],
    keypoint_shape: tuple[int, int] | None,
    on_error: OnError,
) -> list[list[Label] | None]:
    """The labels in each label file of a split; none for None. Boxes are fractions, xyxy. The
    result is None for a file that is not text.

    Args:
        names: the name of each class.
        keypoint_shape: (n, d) of the key points in a line; None: there are no key points.

    Reported to `on_error`: a file that is not text; a line that is not a box, a polygon or a box
    with key points; a class number without a name.
    """
    lines = [_read_lines(file, names, keypoint_shape, on_error) if file else [] for file in files]
    likely = _likely_formats(line for rows in lines for line in rows or () if line.corners)
    labels: list[list[Label] | None] = []
    for file_lines in lines:
        if file_lines is None:
            labels.append(None)
            continue
        labels.append(file_labels := [])
        for line in file_lines:
            if formats := likely & line.formats.keys():
                if line.is_fraction:
                    on_error("bad label", _ambiguous(line, formats))
            elif line.is_fraction:
                file_labels.append(line.label)
    return labels


def _read_lines(
    file: AnyPath,
    names: Sequence[str],
    keypoint_shape: tuple[int, int] | None,
    on_error: OnError,
) -> list[_Line] | None:
    try:
        texts = read_text(file).splitlines()
    except UserError as error:
        on_error("bad label file", str(error))
        return None
    lines = []
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            continue
        source = f"{file}: line {number}"
        try:
            class_number, *values = _parse_numbers(text)
            _check_count(values, keypoint_shape)
        except ValueError as error:
            on_error("bad label", f"{source}: {_shorten(text)} {error}")
            continue
        if class_number not in range(len(names)):
            message = f"{source}: class {text.split()[0]}; give 0 to {len(names) - 1}"
            on_error("unknown category", message)
            continue
        if keypoint_shape:
            values = values[:4]
        corners = len(values) // 2 if len(values) > 4 else 0
        formats = _other_formats(values) if corners else {}
        label = Label(source, names[int(class_number)], _enclosing_box(values))
        is_fraction = _are_fractions(values)
        lines.append(_Line(label, text if formats else "", corners, is_fraction, formats))
        if not is_fraction and formats:
            reason = f"is not a polygon of fractions; it seems to have {' or '.join(formats)}"
            on_error("bad label", f"{source}: {_shorten(text)} {reason}")
        elif not is_fraction:
            reason = "is in pixels; give fractions of the image's size"
            on_error("bad box", f"{source}: {_shorten(text)} {reason}")
    return lines


def _parse_numbers(text: str) -> list[float]:
    """The numbers in a line. Raises ValueError if there are others than decimal ones."""
    if "," in text:
        raise ValueError("has commas; separate numbers by spaces, and write fractions as 0.5")
    try:
        if not NUMBERS.fullmatch(text):
            raise ValueError
        numbers = [float(word) for word in text.split()]
        if not all(map(math.isfinite, numbers)):
            raise ValueError
    except ValueError:
        raise ValueError(f"has a word that is not a number; give numbers: {BOX}") from None
    return numbers


def _check_count(values: list[float], keypoint_shape: tuple[int, int] | None) -> None:
    """Raises ValueError if a line cannot have this number of values after its class."""
    count = len(values)
    reason = f"has {1 + count} numbers; give {BOX}"
    if keypoint_shape:
        points, size = keypoint_shape
        if count not in (4, 4 + points * size):
            more = f", or with the key points of kpt_shape: {[points, size]}"
            raise ValueError(f"{reason}{more}, {5 + points * size} numbers")
    elif count == 5:
        more = "a confidence or a track id at its end; remove it"
        raise ValueError(f"{reason}; it seems to have {more}")
    elif count < 4 or (count > 4 and count % 2):
        formats = _other_formats(values) if count > 4 else ()
        seems = f"; it seems to have {' or '.join(formats)}" if formats else ""
        raise ValueError(reason + seems)


def _are_fractions(values: list[float]) -> bool:
    if len(values) == 4:
        return max(values) <= PIXELS
    return all(1 - PIXELS < value < PIXELS for value in values)


def _enclosing_box(values: list[float]) -> tuple[float, float, float, float]:
    if len(values) > 4:
        x, y = values[::2], values[1::2]
        return min(x), min(y), max(x), max(y)
    cx, cy, w, h = values
    return cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2


# ---- other formats with as many numbers as a polygon


def _other_formats(values: list[float]) -> dict[str, bool]:
    """The other formats that the numbers of a polygon fit, in words, and whether they would be
    unusual for a polygon.
    """
    formats = {}
    if _fits_track(values):
        formats[TRACK] = True
    for size in (2, 3):
        points, rest = divmod(len(values) - 4, size)
        fits, unusual = (False, False) if rest else _fits_pose(values, size)
        if fits:
            shape = f"kpt_shape: {[points, size]}"
            formats[f"{points} key points after its box; write {shape} into data.yaml"] = unusual
    return formats


def _fits_track(values: list[float]) -> bool:
    """Whether values can be a box or polygon, a confidence and a track id; after a box, the track
    id may come first. Triangles are not tracked: 9 numbers that end in 0 or 1 are OBB's.
    """
    *shape, confidence, track = values
    if len(shape) == 4 and confidence.is_integer():
        confidence, track = (track, confidence) if not track.is_integer() else (confidence, track)
    if len(shape) % 2 or (len(shape) == 6 and track in (0, 1)) or not _are_fractions(shape):
        return False
    return 0 < confidence <= 1 and track >= -1 and track.is_integer()  # -1: not tracked yet


def _fits_pose(values: list[float], size: int) -> tuple[bool, bool]:
    """Whether values can be x y w h and key points of `size` numbers, and whether they would be
    unusual for a polygon.
    """
    if size == 3 and all(visibility in (0, 1, 2) for visibility in values[6::3]):
        return True, True
    x, y, w, h = values[:4]
    x1, y1, x2, y2 = _enclosing_box(values[:4])
    if min(w, h) <= 0 or min(x1, y1) < -MARGIN or max(x2, y2) > 1 + MARGIN:
        return False, False

    def inside(px: float, py: float) -> bool:
        return abs(px - x) <= w / 2 + MARGIN and abs(py - y) <= h / 2 + MARGIN

    points = [*zip(values[4::size], values[5::size], strict=True)]
    enclosed = all(inside(*point) for point in points if point != (0, 0))  # (0, 0): not labeled
    return enclosed, not inside(w, h)


def _likely_formats(lines: Iterable[_Line]) -> set[str]:
    """The formats, other than polygons, that the polygons of a split are likely in."""
    count = 0
    fits: dict[str, int] = {}
    unusual, certain = set[str](), set[str]()
    for line in lines:
        count += 1
        for name, is_unusual in line.formats.items():
            fits[name] = fits.get(name, 0) + 1
            if is_unusual:
                unusual.add(name)
            if not line.is_fraction:
                certain.add(name)
    return certain | {name for name in unusual if fits[name] == count}


def _ambiguous(line: _Line, formats: Iterable[str]) -> str:
    return (
        f"{line.label.source}: {_shorten(line.text)} is either a polygon of {line.corners} corners "
        f"or has {' or '.join(sorted(formats))}, or start the polygon at another corner"
    )


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:76]} ...")
