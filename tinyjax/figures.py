"""Pictures of a run: curves of its metrics, samples of its detections.

Colours are Okabe and Ito's, told apart with any colour vision (jfly.uni-koeln.de/color).
"""

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cycler import cycler
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from PIL import Image, ImageDraw, ImageFont

from tinyjax.data.images import to_network
from tinyjax.data.records import Split

# The same colours twice: what stands out on paper does not on a dark image.
ON_WHITE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
ON_IMAGE = ("#F0E442", "#56B4E9", "#D55E00", "#CC79A7", "#009E73", "#E69F00", "#0072B2")
HATCH = ((0, 60), (1, 210))  # a dark and a bright line, so that one shows on any ground
HEIGHT, LINE, GAP = 20, 34, 8  # of a score, of a line of text, between things; pixels
THRESHOLD = 0.3  # of the scores that are drawn
LABEL, CAPTION = (ImageFont.load_default(height) for height in (HEIGHT, 22))

STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=ON_WHITE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "savefig.dpi": 200,
}

Series = dict[tuple[str, str], np.ndarray]  # (split, metric) -> float64 [points, 2], step and value


def curves(metrics: Path, folder: Path) -> None:
    """Draw a run's metrics.csv (columns step, split, metric, value) into `folder`.

    training.png: the loss, its parts (metrics "loss", "*_loss" of split "train") and the learning
    rate ("lr"). scores.png: AP and AP50 of every suite. A figure with nothing in it is not made.
    """
    series = _read(metrics)
    folder.mkdir(parents=True, exist_ok=True)
    losses = {m: v for (s, m), v in series.items() if s == "train" and m.endswith("loss")}
    rate = series.get(("train", "lr"))
    scores = {
        name: {s: v for (s, m), v in series.items() if m == name and s != "train"}
        for name in ("AP", "AP50")
    }
    with rc_context(STYLE):
        if losses and rate is not None:
            _training(losses, rate).savefig(folder / "training.png")
        if scores["AP"]:
            _scores(scores).savefig(folder / "scores.png")


def _training(losses: Mapping[str, np.ndarray], rate: np.ndarray) -> Figure:
    figure = Figure(figsize=(5.2, 4.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for i, (name, points) in enumerate(losses.items()):
        step, value = points.T
        above.plot(step, value, color=f"C{i}", alpha=0.25, linewidth=0.8)
        above.plot(step, _running_mean(value), color=f"C{i}", label=name.replace("_", " "))
    above.set(ylabel="training loss", yscale="log")
    above.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    above.yaxis.set_major_formatter(ScalarFormatter())
    above.yaxis.set_minor_formatter(NullFormatter())
    above.legend(ncols=2, title="bold: running mean")
    below.plot(*rate.T, color=ON_WHITE[-1])
    below.set(ylabel="learning rate", xlabel="step", ylim=(0, None), xlim=(0, None))
    below.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3), useMathText=True)
    return figure


def _scores(scores: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    figure = Figure(figsize=(6.4, 2.8), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, 2, sharex=True)
    titles = {"AP": "AP (IoU 0.50:0.95)", "AP50": "AP50 (IoU 0.50)"}
    for axes, (name, suites) in zip(panels, scores.items(), strict=True):
        for suite, points in suites.items():
            axes.plot(*points.T, marker="o", markersize=3, label=suite)
        axes.set(xlabel="step", ylabel=titles[name], ylim=(0, None), xlim=(0, None))
    panels[0].legend(title="suite")
    return figure


def _read(metrics: Path) -> Series:
    rows = defaultdict(list)
    with metrics.open(newline="") as stream:
        for row in csv.DictReader(stream):
            rows[row["split"], row["metric"]].append((float(row["step"]), float(row["value"])))
    return {key: np.array(sorted(points)) for key, points in rows.items()}


def _running_mean(values: np.ndarray) -> np.ndarray:
    """Mean over a centred window of a twentieth of the curve, cut off at the ends."""
    window = np.ones(2 * (len(values) // 40) + 1)
    total = np.convolve(values, window, "full")
    count = np.convolve(np.ones_like(values), window, "full")
    half = len(window) // 2
    return (total / count)[half : half + len(values)]


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
        truth = {k: getattr(split, k)[i] for k in ("boxes", "labels", "valid", "ignore")}
        found = {k: predictions[k][i] for k in ("boxes", "scores", "labels")}
        found["boxes"] = to_network(found["boxes"], split.scale[i], split.offset[i])
        pairs.append((draw(split.images[i], truth=truth), draw(split.images[i], found=found)))
    grid(pairs, path, [split.names[i] for i in chosen], split.classes)


def draw(
    image: np.ndarray,
    truth: Mapping[str, np.ndarray] | None = None,
    found: Mapping[str, np.ndarray] | None = None,
    threshold: float = THRESHOLD,
) -> Image.Image:
    """An image with boxes around its objects, in a colour per class; small ones enlarged.

    Args:
        image: uint8 [H, W, 1 or 3]. Up to 480 px a side it is enlarged 2 or 3 times, pixels kept
            square, so that a person of 6 px can be seen.
        truth: boxes [G, 4] xyxy in pixels of `image`, labels [G], valid [G], ignore [G]: a thin
            line around each object, hatching over each don't-care region.
        found: boxes [K, 4], scores [K], labels [K]: a line and the score.
        threshold: predictions that score less are not drawn.
    """
    height, width, _ = image.shape
    factor = int(np.clip(960 // max(height, width), 1, 3))
    pixels = np.broadcast_to(image, (height, width, 3)).repeat(factor, 0).repeat(factor, 1)
    if truth is not None:
        for box in truth["boxes"][truth["ignore"]]:
            _hatch(pixels, box * factor)
    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    if truth is not None:
        real = truth["valid"]
        for box, label in zip(truth["boxes"][real], truth["labels"][real], strict=True):
            _outline(pen, box * factor, label, 2)
    if found is not None:
        # A wild prediction must not end a run: no NaN, nothing beyond Pillow's integers.
        boxes = np.nan_to_num(found["boxes"] * factor).clip(-9, 2**15)
        drawn = np.argsort(found["scores"])  # the best last, on top of the others
        drawn = drawn[found["scores"][drawn] >= threshold]
        for k in drawn:
            _outline(pen, boxes[k], found["labels"][k], 3)
        for k in drawn:
            x, y, *_ = boxes[k]
            pen.text(
                (max(x - 2, 0), max(y - 5, HEIGHT)),
                f"{found['scores'][k]:.2f}".removeprefix("0"),
                _colour(found["labels"][k]),
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
            _captioned(left, f"truth: {name}"),
            _captioned(right, f"prediction, scores from {THRESHOLD}"),
        )
        for (left, right), name in zip(pairs, names, strict=True)
    ]
    width = max(left.width for left, _ in rows)
    sheet = Image.new("RGB", (2 * width + GAP, sum(left.height + GAP for left, _ in rows)), "white")
    y = 0
    for left, right in rows:
        sheet.paste(left, (0, y))
        sheet.paste(right, (width + GAP, y))
        y += left.height + GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    legend(sheet, classes).save(path)


def _captioned(picture: Image.Image, text: str) -> Image.Image:
    out = Image.new("RGB", (picture.width, LINE + picture.height), "white")
    out.paste(picture, (0, LINE))
    ImageDraw.Draw(out).text((2, LINE // 2), text, "black", font=CAPTION, anchor="lm")
    return out


def legend(picture: Image.Image, classes: Sequence[str]) -> Image.Image:
    """`picture` with a strip below that names the classes' colours and the hatching."""
    side = LINE // 2
    ground = np.full((side, side, 3), 128, np.uint8)
    _hatch(ground, np.array([0, 0, side, side]))
    marks = [Image.new("RGB", (side, side), _colour(k)) for k in range(len(classes))]
    marks.append(Image.fromarray(ground))

    out = Image.new("RGB", (picture.width, picture.height + LINE), "white")
    out.paste(picture)
    pen = ImageDraw.Draw(out)
    x, middle = GAP, picture.height + LINE // 2
    for mark, name in zip(marks, [*classes, "don't care"], strict=True):
        out.paste(mark, (x, middle - side // 2))
        x += side + GAP
        pen.text((x, middle), name, "black", font=CAPTION, anchor="lm")
        x += round(pen.textlength(name, font=CAPTION)) + 3 * GAP
    return out


def _colour(label: int) -> str:
    return ON_IMAGE[label % len(ON_IMAGE)]


def _outline(pen: ImageDraw.ImageDraw, box: np.ndarray, label: int, width: int) -> None:
    """A line just outside the box, which hides nothing of the object, and a dark edge around it."""
    x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
    x2, y2 = max(x1, x2 - 1), max(y1, y2 - 1)  # the last pixel inside
    for grow, thick, colour in ((width + 1, width + 1, "black"), (width, width, _colour(label))):
        pen.rectangle((x1 - grow, y1 - grow, x2 + grow, y2 + grow), outline=colour, width=thick)


def _hatch(pixels: np.ndarray, box: np.ndarray) -> None:
    """Diagonals over a box of uint8 [H, W, 3], in place."""
    height, width, _ = pixels.shape
    limits = [width, height, width, height]
    x1, y1, x2, y2 = np.clip(np.rint(box), 0, limits).astype(int)
    diagonal = np.add.outer(np.arange(y1, y2), np.arange(x1, x2)) % 12
    for offset, grey in HATCH:
        pixels[y1:y2, x1:x2][diagonal == offset] = grey
