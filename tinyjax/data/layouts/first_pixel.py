"""The number of the first pixel in VOC files, by evidence: their tool, their corners, their folder.

The devkit counts pixels from 1, and `xmax` is inside the object. Most tools write the corners of
the canvas: they count from 0, and xmax = xmin + width. The sources of the tools in `TOOLS`:
labelImg (libs/labelFile.py), Datumaro, which exports for CVAT (voc_format/converter.py), Label
Studio (converter.py), makesense.ai (RectLabelsExporter.ts).
"""

import re
from collections.abc import Iterable, Sequence
from math import isfinite

Corners = tuple[float, float, float, float]  # xmin, ymin, xmax, ymax as written

# pattern of <source><database> -> the tool, and the number of its first pixel
TOOLS = {
    r"(The )?(PASCAL )?VOC ?20\d\d\b.*": ("the VOC devkit", 1),
    r"Unknown": ("labelImg or CVAT", 0),
    r"MyDatabase": ("Label Studio", 0),
    r"Unspecified": ("makesense.ai", 0),
    r"roboflow\..*": ("Roboflow", 1),
}
FROM_ZERO = ", ".join(name for name, first_pixel in TOOLS.values() if first_pixel == 0)
UNDOCUMENTED = {
    "Roboflow": "it does not document its rule, and xmax and ymax may be 1 px too large; "
    "its COCO and YOLO exports are unambiguous"
}


def recognize_tool(database: str) -> str:
    """The tool that wrote a file, by the content of <source><database>; "" if it is unknown."""
    matches = (
        name for pattern, (name, _) in TOOLS.items() if re.fullmatch(pattern, database, re.I)
    )
    return next(matches, "")


def infer_first_pixel(tool: str, corners: Iterable[Corners], flat: bool) -> tuple[int, str]:
    """The number of the first pixel in the files of one tool, and the reason as text.

    A corner of 0 or a fraction of 1 decides, since tools also write the devkit's name; then the
    tool; then a fraction; then the folder: xml files next to the images are not the devkit's
    layout. A negative corner, of a box that extends beyond its image, does not decide.

    Args:
        tool: as returned by `recognize_tool`.
        corners: of all objects.
        flat: the xml files are next to the images.
    """
    corners = [box for box in corners if all(map(isfinite, box))]
    known = dict(TOOLS.values())
    if any(0 <= value < 1 for box in corners for value in box[:2]):
        return 0, "some corners are below 1"
    if tool in known:
        return known[tool], UNDOCUMENTED.get(tool, "")
    if any(value % 1 for box in corners for value in box):
        return 0, "some corners are fractions"
    if flat:
        return 0, (
            "the xml files are next to the images, as labelImg saves them; "
            "files that count from 1, as the devkit's do, need first_pixel=1"
        )
    return 1, (
        "the folders are the devkit's and nothing indicates another rule; "
        f"files of {FROM_ZERO} count from 0 and need first_pixel=0"
    )


def infer_first_pixels(
    files: Sequence[tuple[str, Sequence[Corners]]], flat: bool
) -> tuple[dict[str, int], tuple[str, ...]]:
    """Tool -> the number of the first pixel, and a line for each tool that says so.

    files: (tool, corners of the objects) of each file of a set.
    """
    first_pixels, notices = {}, []
    for tool in dict.fromkeys(name for name, _ in files):
        boxes = [corners for name, corners in files if name == tool]
        first_pixel, reason = infer_first_pixel(tool, (box for row in boxes for box in row), flat)
        first_pixels[tool] = first_pixel
        count = sum(map(bool, boxes))
        if count:
            text = f"{count} VOC files of {tool or 'an unknown tool'}: pixels counted from "
            notices.append(f"{text}{first_pixel}" + (f" ({reason})" if reason else ""))
    return first_pixels, tuple(notices)
