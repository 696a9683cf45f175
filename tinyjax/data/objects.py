"""Objects of an image: its labels as arrays, without the invalid ones."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from tinyjax.data.images import relative_to_pixels
from tinyjax.data.layouts.listing import Label, OnError
from tinyjax.data.records import Objects

AREA_TOLERANCE = 1.01  # COCO's boxes are rounded to 0.01 px, its areas are not


def collect_objects(
    labels: Sequence[Label],
    shape: tuple[int, int],
    classes: Mapping[str, int],
    ignored: frozenset[str],
    relative: bool,
    on_error: OnError,
) -> tuple[Objects, dict[str, int], int]:
    """The objects of an image, background category -> number of its objects, and the number of
    objects whose area cannot be that of an object in their box.

    Such an area is replaced by the box's, since areas define the size bins of the metrics.

    Args:
        shape: (h, w) of the file.
        classes: name -> label.
        relative: boxes are in [0, 1] of the image's width and height.
        on_error: called for each invalid box, see `valid_box`.
    """
    rows, background, wrong_areas = [], Counter[str](), 0
    for label in labels:
        if label.category not in classes and label.category not in ignored:
            background[label.category] += 1
            continue
        if (box := valid_box(label, shape, relative, on_error)) is None:
            continue
        ignore = label.ignore or label.category in ignored
        class_id = classes.get(label.category, 0)
        box_area = float(np.prod(box[2:] - box[:2]))
        area = box_area if label.area is None else label.area
        if not _is_possible_area(area, box_area):
            area = box_area
            wrong_areas += 1
        rows.append((box, class_id, ignore, area))
    boxes, class_ids, ignore_flags, areas = zip(*rows, strict=True) if rows else ([], [], [], [])
    objects = Objects(
        boxes=np.array(boxes, float).reshape(-1, 4),
        labels=np.array(class_ids, np.int32),
        ignore=np.array(ignore_flags, bool),
        area=np.array(areas, float),
    )
    return objects, dict(background), wrong_areas


def area_notices(num_wrong: int, objects: Sequence[Objects]) -> list[str]:
    """A line about replaced areas, if there are any."""
    if not num_wrong:
        return []
    count = sum(len(image_objects.boxes) for image_objects in objects)
    return [
        f"{num_wrong} of {count} boxes have an area of at most 1 or above their width x height: "
        "size bins use width x height instead"
    ]


def _is_possible_area(area: float, box_area: float) -> bool:
    """Return whether an object in a box of `box_area` px^2 can have this area.

    Converters write 0, 1, the image's area, or that of a box with one more row and column.
    """
    smallest = 1 if box_area > 1 else 0
    return smallest < area <= AREA_TOLERANCE * box_area


def valid_box(
    label: Label, shape: tuple[int, int], relative: bool, on_error: OnError
) -> np.ndarray | None:
    """float64 [4] xyxy in pixels of the file; None if it is invalid, after a call of `on_error`.

    A box is invalid if it is not finite, empty, or outside its image of `shape` (h, w).
    """
    pixels = relative_to_pixels(label.box, shape) if relative else label.box
    box = np.array(pixels, float)
    if invalid := _invalid_box(box, shape):
        problem, description = invalid
        on_error(problem, f"{label.source}: {description}")
        return None
    return box


def _invalid_box(box: np.ndarray, shape: tuple[int, int]) -> tuple[str, str] | None:
    """(problem, description) of an invalid box; None if it is valid."""
    x1, y1, x2, y2 = box.tolist()
    height, width = shape
    text = f"x {x1:g} to {x2:g}, y {y1:g} to {y2:g}"
    if not np.isfinite(box).all():
        return "box not finite", f"box {text} is not finite; give numbers"
    if x2 <= x1 or y2 <= y1:
        return "empty box", f"box {text} is empty; width and height must be above 0"
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        return "box outside", f"box {text} lies outside its image of {width} x {height} px"
    return None
