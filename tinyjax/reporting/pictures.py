"""Images with boxes drawn on them: samples of a run, its worst images.

Colors are Okabe and Ito's, told apart with any color vision (jfly.uni-koeln.de/color).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from tinyjax.data.images import to_network
from tinyjax.data.records import Split
from tinyjax.metrics import detection_errors
from tinyjax.run.files import atomic

ON_IMAGE = ("#F0E442", "#56B4E9", "#D55E00", "#CC79A7", "#009E73", "#E69F00", "#0072B2")
HATCH = ((0, 60), (1, 210))  # a dark and a bright line, so that one shows on any ground
HEIGHT, LINE, GAP = 20, 34, 8  # of a score, of a line of text, between things; pixels
THRESHOLD = 0.3  # of the scores that are drawn
PLAIN, RIGHT, WRONG = 3, 1, 4  # widths of lines, pixels
LABEL, CAPTION = (ImageFont.load_default(height) for height in (HEIGHT, 22))


def samples(
    split: Split, predictions: Mapping[str, np.ndarray], path: Path, count: int = 4
) -> None:
    """A contact sheet of `count` images of a split, the same ones at every call.

    predictions: boxes float32 [N, K, 4], scores [N, K], labels [N, K], as they are scored: boxes in
    pixels of the files.
    """
    pool = np.flatnonzero(split.valid.any(-1))
    pool = pool if len(pool) else np.arange(len(split.names))
    chosen = pool[np.unique(np.linspace(0, len(pool) - 1, count).round().astype(int))]
    pairs = []
    for i in chosen:
        left = draw(split.images[i], _truth(split, i))
        pairs.append((left, draw(split.images[i], found=_found(split, predictions, i))))
    grid(pairs, path, [split.names[i] for i in chosen], split.classes)


def worst(
    split: Split,
    predictions: Mapping[str, np.ndarray],
    matches: detection_errors.Matches,
    threshold: float,
    path: Path,
    count: int = 8,
) -> None:
    """The `count` images of a split where most is missed or false (`analyze.worst`), two a row.

    predictions: as of `samples`. matches: of these predictions with `split.truth`. threshold: of
    the scores. What lies in a don't-care region is not drawn. Without an error there is no file.
    """
    chosen = detection_errors.worst(matches, threshold, count)
    if not len(chosen):
        path.unlink(missing_ok=True)
        return
    there, seen = matches.objects, matches.detections
    panels = []
    for i in chosen:
        truth = _truth(split, i)
        # The rows of a split and the annotations of its truth are in the same order.
        missed = np.zeros(len(truth["valid"]), bool)
        missed[truth["valid"]] = there.found[there.image == i] < threshold
        left = draw(split.images[i], {**truth, "missed": missed}, side=640)

        own = (seen.image == i) & (seen.score >= threshold) & (seen.hit | seen.false)
        found = _found(split, predictions, i, seen.slot[own])
        false = seen.false[own]
        right = draw(
            split.images[i], found={**found, "false": false}, threshold=threshold, side=640
        )
        of_truth = f"{missed.sum()} of {truth['valid'].sum()} missed: {split.names[i]}"
        of_found = f"{false.sum()} of {len(false)} false, scores from {threshold:.3f}"
        panels.append(captioned(left, f"truth, {of_truth}"))
        panels.append(captioned(right, f"prediction, {of_found}"))
    rows = [panels[k : k + 4] for k in range(0, len(panels), 4)]
    lines = {
        RIGHT: f"matched at IoU {detection_errors.OVERLAP:.2f}",
        WRONG: "missed (left, truth) or false (right, prediction)",
    }
    save(legend(sheet(rows), split.classes, lines), path)


def save(picture: Image.Image, path: Path) -> None:
    """As a PNG, whole or not at all."""
    with atomic(path) as file:
        picture.save(file, "PNG")


def _truth(split: Split, i: int) -> dict[str, np.ndarray]:
    """The rows of image i as `draw` takes them."""
    return {k: getattr(split, k)[i] for k in ("boxes", "labels", "valid", "ignore")}


def _found(
    split: Split, predictions: Mapping[str, np.ndarray], i: int, slots: Any = slice(None)
) -> dict[str, np.ndarray]:
    """Those predictions for image i, boxes in pixels of the network's input."""
    found = {k: predictions[k][i][slots] for k in ("boxes", "scores", "labels")}
    return {**found, "boxes": to_network(found["boxes"], split.scale[i], split.offset[i])}


def draw(
    image: np.ndarray,
    truth: Mapping[str, np.ndarray] | None = None,
    found: Mapping[str, np.ndarray] | None = None,
    threshold: float = THRESHOLD,
    side: int = 960,
) -> Image.Image:
    """An image with boxes around its objects, in a color per class; small ones enlarged.

    Args:
        image: uint8 [H, W, 1 or 3]. Enlarged 2 or 3 times where that keeps it within `side`, pixels
            kept square, so that a person of 6 px can be seen.
        truth: boxes [G, 4] xyxy in pixels of `image`, labels [G], valid [G], ignore [G]: a thin
            line around each object, hatching over each don't-care region. With missed [G], bool,
            the line is thick around what is missed and thinner around the rest.
        found: boxes [K, 4], scores [K], labels [K]: a line and the score. With false [K], bool, the
            same: only what is false has a thick line and a score.
        threshold: predictions that score less are not drawn.
    """
    pixels = enlarged(image, side)
    factor = len(pixels) // len(image)
    if truth is not None:
        for box in truth["boxes"][truth["ignore"]]:
            _hatch(pixels, box * factor)
    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    if truth is not None:
        for g in np.flatnonzero(truth["valid"]):
            line = _line(truth["missed"][g]) if "missed" in truth else PLAIN - 1
            _outline(pen, truth["boxes"][g] * factor, truth["labels"][g], line)
    if found is not None:
        # A wild prediction must not end a run: no NaN, nothing beyond Pillow's integers.
        boxes = np.nan_to_num(found["boxes"] * factor).clip(-9, 2**15)
        drawn = np.argsort(found["scores"])  # the best last, on top of the others
        drawn = drawn[found["scores"][drawn] >= threshold]
        for k in drawn:
            line = _line(found["false"][k]) if "false" in found else PLAIN
            _outline(pen, boxes[k], found["labels"][k], line)
        for k in drawn[found["false"][drawn]] if "false" in found else drawn:
            x, y, *_ = boxes[k]
            pen.text(
                (max(x - 2, 0), max(y - 5, HEIGHT)),
                f"{found['scores'][k]:.2f}".removeprefix("0"),
                _color(found["labels"][k]),
                font=LABEL,
                anchor="ls",
                stroke_width=1,
                stroke_fill="black",
            )
    return picture


def grid(
    pairs: Sequence[tuple[Image.Image, Image.Image]],
    path: Path,
    names: Sequence[str],
    classes: Sequence[str],
) -> None:
    """A contact sheet: a row per image, truth left and prediction right, classes named below."""
    rows = [
        (
            captioned(left, f"truth: {name}"),
            captioned(right, f"prediction, scores from {THRESHOLD}"),
        )
        for (left, right), name in zip(pairs, names, strict=True)
    ]
    save(legend(sheet(rows), classes), path)


def sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Pictures in rows, each in a place as large as the largest."""
    width, height = (
        max(side) for side in zip(*(one.size for row in rows for one in row), strict=True)
    )
    columns = len(rows[0])
    page = Image.new("RGB", (columns * (width + GAP) - GAP, len(rows) * (height + GAP)), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            page.paste(picture, (x * (width + GAP), y * (height + GAP)))
    return page


def captioned(picture: Image.Image, *lines: str, color: str = "black") -> Image.Image:
    """A picture with lines of text above it, which never are cut off."""
    width = max([picture.width, *(2 + round(CAPTION.getlength(line)) for line in lines)])
    out = Image.new("RGB", (width, LINE * len(lines) + picture.height), "white")
    out.paste(picture, (0, LINE * len(lines)))
    for k, line in enumerate(lines):
        middle = LINE * k + LINE // 2
        ImageDraw.Draw(out).text((2, middle), line, color, font=CAPTION, anchor="lm")
    return out


def enlarged(image: np.ndarray, side: int) -> np.ndarray:
    """uint8 [H, W, 1 or 3] as [h, w, 3], pixels repeated up to 3 times where `side` allows it."""
    height, width, _ = image.shape
    factor = int(np.clip(side // max(height, width), 1, 3))
    return np.broadcast_to(image, (height, width, 3)).repeat(factor, 0).repeat(factor, 1)


def legend(
    picture: Image.Image,
    classes: Sequence[str],
    lines: Mapping[int, str] | None = None,
    ignore_classes: bool = True,
) -> Image.Image:
    """`picture` with a strip below that names the classes' colors, the hatching of don't-care
    regions, and what lines of such a width mean.
    """
    side = LINE // 2
    marks = {name: Image.new("RGB", (side, side), _color(k)) for k, name in enumerate(classes)}
    if ignore_classes:
        ground = np.full((side, side, 3), 128, np.uint8)
        _hatch(ground, np.array([0, 0, side, side]))
        marks["don't care"] = Image.fromarray(ground)
    for width, name in (lines or {}).items():
        marks[name] = Image.new("RGB", (3 * side, side), "white")
        ImageDraw.Draw(marks[name]).line((0, side // 2, 3 * side, side // 2), "black", width)

    places, x, y = [], GAP, 0
    for name, mark in marks.items():
        length = mark.width + GAP + round(CAPTION.getlength(name))
        if x > GAP and x + length > picture.width:
            x, y = GAP, y + LINE
        places.append((x, picture.height + y + LINE // 2))
        x += length + 3 * GAP

    out = Image.new("RGB", (picture.width, picture.height + y + LINE), "white")
    out.paste(picture)
    pen = ImageDraw.Draw(out)
    for (name, mark), (x, middle) in zip(marks.items(), places, strict=True):
        out.paste(mark, (x, middle - side // 2))
        pen.text((x + mark.width + GAP, middle), name, "black", font=CAPTION, anchor="lm")
    return out


def _line(wrong: bool) -> int:
    return WRONG if wrong else RIGHT


def _color(label: int) -> str:
    """The eighth class has the first one's color, half way to white; the fifteenth, to black."""
    again, label = divmod(label, len(ON_IMAGE))
    ground = (None, "white", "black")[again % 3]
    rgb = np.array(ImageColor.getrgb(ON_IMAGE[label]))
    mixed = rgb if ground is None else (rgb + ImageColor.getrgb(ground)) // 2
    return "#{:02X}{:02X}{:02X}".format(*mixed)


def _outline(pen: ImageDraw.ImageDraw, box: np.ndarray, label: int, width: int) -> None:
    """A line just outside the box, which hides nothing of the object, and a dark edge around it."""
    x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
    x2, y2 = max(x1, x2 - 1), max(y1, y2 - 1)  # the last pixel inside
    for grow, thick, color in ((width + 1, width + 1, "black"), (width, width, _color(label))):
        pen.rectangle((x1 - grow, y1 - grow, x2 + grow, y2 + grow), outline=color, width=thick)


def _hatch(pixels: np.ndarray, box: np.ndarray) -> None:
    """Diagonals over a box of uint8 [H, W, 3], in place."""
    height, width, _ = pixels.shape
    limits = [width, height, width, height]
    x1, y1, x2, y2 = np.clip(np.rint(box), 0, limits).astype(int)
    diagonal = np.add.outer(np.arange(y1, y2), np.arange(x1, x2)) % 12
    for offset, gray in HATCH:
        pixels[y1:y2, x1:x2][diagonal == offset] = gray
