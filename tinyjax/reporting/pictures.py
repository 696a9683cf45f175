"""Images with boxes drawn on them: samples of a run, and its worst images.

Colors are Okabe and Ito's, which can be told apart with any color vision
(jfly.uni-koeln.de/color).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from tinyjax.data.images import to_network
from tinyjax.data.records import DetectionSplit
from tinyjax.metrics import detection_errors
from tinyjax.reporting.fonts import class_names, drawable, pillow_font
from tinyjax.run.files import atomic

MAX_LEGEND_CLASSES = 80  # as many as COCO has
COLORS = ("#F0E442", "#56B4E9", "#D55E00", "#CC79A7", "#009E73", "#E69F00", "#0072B2")
HATCHING = ((0, 60), (1, 210))  # offset and gray of a dark and a bright line, visible on any image
TEXT_HEIGHT, LINE_HEIGHT, GAP = 20, 34, 8  # scores, captions, space between pictures; pixels
MIN_SCORE = 0.3  # of drawn predictions
DEFAULT_WIDTH, CORRECT_WIDTH, WRONG_WIDTH = 3, 1, 4  # of lines, pixels
CAPTION_HEIGHT = 22
SCORE_FONT = ImageFont.load_default(TEXT_HEIGHT)


# ---- sheets of a run


def save_samples(
    split: DetectionSplit, predictions: Mapping[str, np.ndarray], path: Path, count: int = 4
) -> None:
    """Write a sheet of `count` images of a split with truth and predictions.

    The choice of images depends on the split alone.

    predictions: boxes float32 [N, K, 4] in pixels of the files, scores [N, K], labels [N, K].
    """
    with_objects = np.flatnonzero(split.valid.any(-1))
    candidates = with_objects if len(with_objects) else np.arange(len(split.names))
    chosen = np.unique(np.linspace(0, len(candidates) - 1, count).round().astype(int))
    chosen = candidates[chosen]
    pairs = []
    for i in chosen:
        image = split.inputs["image"][i]
        left = draw_boxes(image, truth_of(split, i))
        right = draw_boxes(image, predictions=predictions_of(split, predictions, i))
        pairs.append((left, right))
    save_pairs(pairs, path, [split.names[i] for i in chosen], split.classes)


def draw_samples(split: DetectionSplit, file: Path, count: int = 12) -> None:
    """Draw images at even distances in a split, with their boxes, three per row."""
    indices = np.unique(np.linspace(0, len(split.names) - 1, count).round().astype(int))
    drawn = [draw_boxes(split.inputs["image"][i], truth_of(split, i)) for i in indices]
    width, height = (max(side) + GAP for side in zip(*(image.size for image in drawn), strict=True))
    page = Image.new("RGB", (3 * width, -(-len(drawn) // 3) * height), "white")
    for k, image in enumerate(drawn):
        page.paste(image, (k % 3 * width, k // 3 * height))
    add_legend(page, split.classes).save(file)


def save_worst(
    split: DetectionSplit,
    predictions: Mapping[str, np.ndarray],
    matches: detection_errors.Matches,
    threshold: float,
    path: Path,
    max_images: int = 8,
) -> None:
    """Write a sheet of the images with the most errors (`detection_errors.worst_images`).

    Detections in ignored regions are not drawn. Without errors an existing file is removed.

    Args:
        predictions: as in `save_samples`.
        matches: between these predictions and `split.truth`.
        threshold: minimum score of a detection.
    """
    chosen = detection_errors.worst_images(matches, threshold, max_images)
    if not len(chosen):
        path.unlink(missing_ok=True)
        return
    detections, objects = matches.detections, matches.objects
    panels = []
    for i in chosen:
        image, truth = split.inputs["image"][i], truth_of(split, i)
        # The rows of a split and the annotations of its truth are in the same order.
        missed = np.zeros(len(truth["valid"]), bool)
        missed[truth["valid"]] = objects.match_score[objects.image == i] < threshold
        left = draw_boxes(image, {**truth, "missed": missed}, max_side=640)

        passes = (detections.image == i) & (detections.score >= threshold)
        passes &= detections.true_positive | detections.false_positive
        false = detections.false_positive[passes]
        shown = {**predictions_of(split, predictions, i, detections.slot[passes]), "false": false}
        right = draw_boxes(image, predictions=shown, threshold=threshold, max_side=640)
        num_missed = f"{missed.sum()} of {truth['valid'].sum()} missed"
        num_false = f"{false.sum()} of {len(false)} false"
        panels.append(add_caption(left, f"truth, {num_missed}: {split.names[i]}"))
        panels.append(add_caption(right, f"prediction, {num_false}, scores from {threshold:.3f}"))
    rows = [panels[k : k + 4] for k in range(0, len(panels), 4)]
    lines = {
        CORRECT_WIDTH: f"matched at IoU {detection_errors.IOU_THRESHOLD:.2f}",
        WRONG_WIDTH: "missed (left, truth) or false (right, prediction)",
    }
    save(add_legend(tile(rows), split.classes, lines), path)


def save_pairs(
    pairs: Sequence[tuple[Image.Image, Image.Image]],
    path: Path,
    names: Sequence[str],
    classes: Sequence[str],
) -> None:
    """Write a sheet with a row per image: truth left, prediction right, class colors below."""
    rows = [
        (
            add_caption(left, f"truth: {name}"),
            add_caption(right, f"prediction, scores from {MIN_SCORE}"),
        )
        for (left, right), name in zip(pairs, names, strict=True)
    ]
    save(add_legend(tile(rows), classes), path)


def save(picture: Image.Image, path: Path) -> None:
    """Write a PNG file atomically."""
    with atomic(path) as file:
        picture.save(file, "PNG")


def truth_of(split: DetectionSplit, i: int) -> dict[str, np.ndarray]:
    """The labels of image i, as `draw_boxes` takes them."""
    return {k: getattr(split, k)[i] for k in ("boxes", "labels", "valid", "ignore")}


def predictions_of(
    split: DetectionSplit,
    predictions: Mapping[str, np.ndarray],
    i: int,
    slots: Any = slice(None),
) -> dict[str, np.ndarray]:
    """Predictions for image i, with boxes in pixels of the network's input."""
    arrays = {k: predictions[k][i][slots] for k in ("boxes", "scores", "labels")}
    return {**arrays, "boxes": to_network(arrays["boxes"], split.scale[i], split.offset[i])}


# ---- one picture


def draw_boxes(
    image: np.ndarray,
    truth: Mapping[str, np.ndarray] | None = None,
    predictions: Mapping[str, np.ndarray] | None = None,
    threshold: float = MIN_SCORE,
    max_side: int = 960,
) -> Image.Image:
    """Draw boxes on an image, in one color per class. Small images are enlarged.

    Args:
        image: uint8 [H, W, 1 or 3]. Enlarged 2 or 3 times if its sides are then at most `max_side`
            pixels; pixels stay square, so that a person of 6 px is visible.
        truth: boxes [G, 4] xyxy in pixels of `image`, labels [G], valid [G], ignore [G]: a thin
            line around each object, hatching over each ignored region. With missed [G], bool, the
            line is thick around missed objects and thinner around the others.
        predictions: boxes [K, 4], scores [K], labels [K]: a line and the score. With false [K],
            bool, only false positives have a thick line and a score.
        threshold: predictions with a lower score are not drawn.
    """
    pixels = enlarge(image, max_side)
    factor = len(pixels) // len(image)
    if truth is not None:
        for box in truth["boxes"][truth["ignore"]]:
            _hatch(pixels, box * factor)
    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    if truth is not None:
        for g in np.flatnonzero(truth["valid"]):
            width = _line_width(truth["missed"][g]) if "missed" in truth else DEFAULT_WIDTH - 1
            _outline(pen, truth["boxes"][g] * factor, truth["labels"][g], width)
    if predictions is not None:
        _draw_predictions(pen, predictions, factor, threshold)
    return picture


def _draw_predictions(
    pen: ImageDraw.ImageDraw,
    predictions: Mapping[str, np.ndarray],
    factor: int,
    threshold: float,
) -> None:
    # Pillow raises for NaN and for coordinates beyond its integers.
    boxes = np.nan_to_num(predictions["boxes"] * factor).clip(-9, 2**15)
    order = np.argsort(predictions["scores"])  # the highest score last, on top of the others
    order = order[predictions["scores"][order] >= threshold]
    for k in order:
        width = _line_width(predictions["false"][k]) if "false" in predictions else DEFAULT_WIDTH
        _outline(pen, boxes[k], predictions["labels"][k], width)
    for k in order[predictions["false"][order]] if "false" in predictions else order:
        x, y, *_ = boxes[k]
        pen.text(
            (max(x - 2, 0), max(y - 5, TEXT_HEIGHT)),
            f"{predictions['scores'][k]:.2f}".removeprefix("0"),
            _color(predictions["labels"][k]),
            font=SCORE_FONT,
            anchor="ls",
            stroke_width=1,
            stroke_fill="black",
        )


def tile(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """Arrange pictures in rows; all cells have the largest width and the largest height."""
    width, height = (max(side) for side in zip(*(p.size for row in rows for p in row), strict=True))
    columns = len(rows[0])
    page = Image.new("RGB", (columns * (width + GAP) - GAP, len(rows) * (height + GAP)), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            page.paste(picture, (x * (width + GAP), y * (height + GAP)))
    return page


def add_caption(picture: Image.Image, *lines: str, color: str = "black") -> Image.Image:
    """A picture with lines of text above it, widened if the text is wider."""
    lines = tuple(map(drawable, lines))
    fonts = [pillow_font(line, CAPTION_HEIGHT) for line in lines]
    lengths = (font.getlength(line) for font, line in zip(fonts, lines, strict=True))
    width = max([picture.width, *(2 + round(length) for length in lengths)])
    result = Image.new("RGB", (width, LINE_HEIGHT * len(lines) + picture.height), "white")
    result.paste(picture, (0, LINE_HEIGHT * len(lines)))
    for k, line in enumerate(lines):
        middle = LINE_HEIGHT * k + LINE_HEIGHT // 2
        ImageDraw.Draw(result).text((2, middle), line, color, font=fonts[k], anchor="lm")
    return result


def enlarge(image: np.ndarray, max_side: int) -> np.ndarray:
    """uint8 [H, W, 1 or 3] to [h, w, 3], with pixels repeated up to 3 times within `max_side`."""
    height, width, _ = image.shape
    factor = int(np.clip(max_side // max(height, width), 1, 3))
    return np.broadcast_to(image, (height, width, 3)).repeat(factor, 0).repeat(factor, 1)


def add_legend(
    picture: Image.Image,
    classes: Sequence[str],
    lines: Mapping[int, str] | None = None,
    ignored: bool = True,
) -> Image.Image:
    """A picture with a legend below it: the colors of the classes, hatching, line widths.

    lines: line width -> its meaning. ignored: whether to explain the hatching of ignored regions.
    """
    side = LINE_HEIGHT // 2
    marks = {
        name: Image.new("RGB", (side, side), _color(k))
        for k, name in enumerate(class_names(classes[:MAX_LEGEND_CLASSES]))
    }
    if (omitted := len(classes) - MAX_LEGEND_CLASSES) > 0:
        marks[f"and {omitted} more classes"] = Image.new("RGB", (side, side), "white")
    if ignored:
        background = np.full((side, side, 3), 128, np.uint8)
        _hatch(background, np.array([0, 0, side, side]))
        marks["ignored"] = Image.fromarray(background)
    for width, name in (lines or {}).items():
        marks[name] = Image.new("RGB", (3 * side, side), "white")
        ImageDraw.Draw(marks[name]).line((0, side // 2, 3 * side, side // 2), "black", width)

    positions, x, y = [], GAP, 0
    for name, mark in marks.items():
        font = pillow_font(name, CAPTION_HEIGHT)
        length = mark.width + GAP + round(font.getlength(name))
        if x > GAP and x + length > picture.width:
            x, y = GAP, y + LINE_HEIGHT
        positions.append((x, picture.height + y + LINE_HEIGHT // 2, font))
        x += length + 3 * GAP

    result = Image.new("RGB", (picture.width, picture.height + y + LINE_HEIGHT), "white")
    result.paste(picture)
    pen = ImageDraw.Draw(result)
    for (name, mark), (x, middle, font) in zip(marks.items(), positions, strict=True):
        result.paste(mark, (x, middle - side // 2))
        pen.text((x + mark.width + GAP, middle), name, "black", font=font, anchor="lm")
    return result


def _line_width(wrong: bool) -> int:
    return WRONG_WIDTH if wrong else CORRECT_WIDTH


def _color(label: int) -> str:
    """The color of a class.

    Colors repeat from the eighth class on, mixed with white, and from the fifteenth on, with black.
    """
    cycle, label = divmod(label, len(COLORS))
    mixed_with = (None, "white", "black")[cycle % 3]
    rgb = np.array(ImageColor.getrgb(COLORS[label]))
    mixed = rgb if mixed_with is None else (rgb + ImageColor.getrgb(mixed_with)) // 2
    return "#{:02X}{:02X}{:02X}".format(*mixed)


def _outline(pen: ImageDraw.ImageDraw, box: np.ndarray, label: int, width: int) -> None:
    """Draw a line with a dark edge just outside the box, so that the object stays visible."""
    x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
    x2, y2 = max(x1, x2 - 1), max(y1, y2 - 1)  # the last pixel inside
    for line_width, color in ((width + 1, "black"), (width, _color(label))):
        corners = (x1 - line_width, y1 - line_width, x2 + line_width, y2 + line_width)
        pen.rectangle(corners, outline=color, width=line_width)


def _hatch(pixels: np.ndarray, box: np.ndarray) -> None:
    """Draw diagonals over a box of uint8 [H, W, 3], in place."""
    height, width, _ = pixels.shape
    limits = [width, height, width, height]
    x1, y1, x2, y2 = np.clip(np.rint(box), 0, limits).astype(int)
    diagonal = np.add.outer(np.arange(y1, y2), np.arange(x1, x2)) % 12
    for offset, gray in HATCHING:
        pixels[y1:y2, x1:x2][diagonal == offset] = gray
