"""Statistics of splits before training: counts, sizes, likely mistakes and near-duplicates."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
from PIL import Image

from tinyjax.data.records import DetectionSplit, background_counts

THUMBNAIL = (40, 32)  # (width, height), with which the near-duplicates in HIT-UAV were counted
NEAR_DUPLICATE = 0.95  # correlation above which two thumbnails count as near-duplicates
MAX_SMALL_FRACTION = 0.05  # warn if more of a class's objects are smaller than a cell; our choice
MAX_EXAMPLES = 3  # of each problem
MAX_TABLE_CLASSES = 30
MAX_SIDE, MAX_STRIDE = 640, 32  # px: the YOLO family's input size, a backbone's coarsest stride


class SplitSummary(NamedTuple):
    """Counts and object sizes of one split."""

    images: int
    empty: int  # number of images without objects
    objects: dict[str, int]  # class -> number of objects
    ignored: int  # number of ignored regions
    background: dict[str, int]  # unused category -> number of objects
    sides: dict[str, np.ndarray]  # class -> sqrt(w * h) of its objects, px of the network's input
    overhang: list[str]  # images with a box that extends beyond the image
    repeated: list[str]  # images in which a class has the same box twice
    notices: tuple[str, ...]  # how ambiguous labels were read


def summarize(split: DetectionSplit) -> SplitSummary:
    """Count the objects of a split, measure their sizes and find unusual images."""
    labels = [split.labels[i][split.valid[i]] for i in range(len(split.names))]
    extent = split.boxes[..., 2:] - split.boxes[..., :2]
    side = np.sqrt(np.maximum(extent.prod(-1), 0))
    object_labels = split.labels[split.valid]
    order = np.argsort(object_labels, kind="stable")
    ends = np.bincount(object_labels, minlength=len(split.classes)).cumsum()[:-1]
    by_class = np.split(side[split.valid][order], ends)
    sides = dict(zip(split.classes, by_class, strict=True))
    overhang, repeated = [], []
    rows: list[list[tuple]] = [[] for _ in split.names]
    for a in split.truth["annotations"]:
        if not a["iscrowd"]:
            rows[a["image_id"]].append((a["category_id"], *a["bbox"]))
    for info, boxes in zip(split.truth["images"], rows, strict=True):
        width, height = info["width"], info["height"]
        if any(x < 0 or y < 0 or x + w > width or y + h > height for _, x, y, w, h in boxes):
            overhang.append(info["file_name"])
        if len(set(boxes)) < len(boxes):
            repeated.append(info["file_name"])
    return SplitSummary(
        images=len(split.names),
        empty=sum(len(image_labels) == 0 for image_labels in labels),
        objects={name: len(values) for name, values in sides.items()},
        ignored=int(split.ignore.sum()),
        background=background_counts(split),
        sides=sides,
        overhang=overhang,
        repeated=repeated,
        notices=split.notices,
    )


def max_similarity(split: DetectionSplit, other: DetectionSplit) -> np.ndarray:
    """float32 [N]: for each image of `split`, the highest correlation of its thumbnail with one of
    `other`. A uniform image correlates with none.
    """
    queries, keys = _thumbnails(split), _thumbnails(other)
    blocks = (queries[i : i + 256] @ keys.T for i in range(0, len(queries), 256))
    return np.concatenate([block.max(1) for block in blocks])


def _thumbnails(split: DetectionSplit) -> np.ndarray:
    """float32 [N, pixels], each of mean 0 and length 1."""
    rows = []
    for image in split.inputs["image"]:
        gray = Image.fromarray(image.mean(-1).astype(np.uint8))
        rows.append(np.asarray(gray.resize(THUMBNAIL, Image.Resampling.BOX), np.float32).ravel())
    centered = np.stack(rows) - np.mean(rows, axis=1, keepdims=True)
    return centered / np.maximum(np.linalg.norm(centered, axis=1, keepdims=True), 1e-3)


# ---- tables


def summary_lines(name: str, summary: SplitSummary) -> list[str]:
    """A split's counts as text, and how its ambiguous labels were read."""
    counts = ", ".join(f"{category} {count}" for category, count in summary.objects.items())
    extra = [f"{summary.empty} without objects"] if summary.empty else []
    extra += [f"{summary.ignored} ignored regions"] if summary.ignored else []
    unused = ", ".join(f"{category} {count}" for category, count in summary.background.items())
    extra += [f"background: {unused}"] if unused else []
    counted = "; ".join([f"{name}: {summary.images} images, {counts}", *extra])
    return [counted, *(f"  {notice}" for notice in summary.notices)]


def class_table(summaries: Sequence[tuple[str, SplitSummary]]) -> list[str]:
    """A table of object counts by class and split; empty for one class, or if each split has all.

    A split's score omits the classes that it lacks.
    """
    names = list(dict.fromkeys(name for _, summary in summaries for name in summary.objects))
    complete = all(summary.objects.get(name) for _, summary in summaries for name in names)
    if len(names) == 1 or complete:
        return []
    width = max(len(name) for name in ["objects of class", *names]) + 2
    header = "".join(f"{split:>14}" for split, _ in summaries)
    out = [f"{'objects of class':<{width}}{header}"]
    for name in names[:MAX_TABLE_CLASSES]:
        counts = (summary.objects.get(name) or "-" for _, summary in summaries)
        out.append(f"{name:<{width}}" + "".join(f"{count:>14}" for count in counts))
    omitted = len(names) - MAX_TABLE_CLASSES
    return out + [f".. and {omitted} more classes"] * (omitted > 0)


def size_table(summary: SplitSummary) -> list[str]:
    """Percentiles of the sides of each class's objects, of `MAX_TABLE_CLASSES` classes."""
    sides = dict(islice(summary.sides.items(), MAX_TABLE_CLASSES))
    omitted = len(summary.sides) - len(sides)
    lines = percentile_table("side of objects, px", sides)
    return lines + [f".. and {omitted} more classes"] * (omitted > 0)


def percentile_table(title: str, values: Mapping[str, np.ndarray]) -> list[str]:
    """A table of percentiles with a row for each name; names without values are left out."""
    out = [f"{title:<22}{'5 %':>7}{'25 %':>7}{'50 %':>7}{'75 %':>7}{'95 %':>7}"]
    for name, row in values.items():
        if len(row):
            percentiles = np.percentile(row, (5, 25, 50, 75, 95))
            out.append(f"  {name:<20}" + "".join(f" {value:>6.1f}" for value in percentiles))
    return out


def suggest_size(shapes: np.ndarray) -> tuple[int, int]:
    """A common (height, width) for images of several sizes: the medians, scaled down to `MAX_SIDE`
    if larger, rounded to multiples of `MAX_STRIDE`.

    shapes: int [N, 2], (height, width).
    """
    median = np.median(shapes, axis=0)
    sides = median * min(1, MAX_SIDE / median.max())
    height, width = (max(1, round(side / MAX_STRIDE)) * MAX_STRIDE for side in sides.tolist())
    return height, width


# ---- warnings


def find_warnings(summaries: Mapping[str, SplitSummary], stride: int) -> list[str]:
    """Likely mistakes, by split; `stride` is the detector's finest."""
    out = []
    for name, summary in summaries.items():
        for category, sides in summary.sides.items():
            small = float(np.mean(sides < stride)) if len(sides) else 0.0
            if small > MAX_SMALL_FRACTION:
                out.append(
                    f"{name}: {100 * small:.0f} % of the objects of class {category} are smaller "
                    f"than one cell of the finest stride, {stride} px: give larger images "
                    "(data.common.size), or lower model.strides"
                )
            if not len(sides):
                out.append(f"{name}: no object of class {category}")
        for files, text in (
            (summary.overhang, "extend beyond the image"),
            (summary.repeated, "occur twice"),
        ):
            if files:
                examples = _examples(files)
                out.append(f"{name}: {len(files)} images with boxes that {text} ({examples})")
    return out


def near_duplicate_lines(splits: Mapping[str, DetectionSplit], train: str = "train") -> list[str]:
    """For each split except `train`, the number of images with a near-duplicate in `train`."""
    out = []
    for name, split in splits.items():
        if name != train:
            similarity = max_similarity(split, splits[train])
            count = int((similarity > NEAR_DUPLICATE).sum())
            percent = f"{100 * count / len(similarity):.0f} %"
            out.append(
                f"{name}: {count} of {len(similarity)} images ({percent}) have a near-duplicate in "
                f"{train} (thumbnail correlation above {NEAR_DUPLICATE}; the largest is "
                f"{similarity.max():.2f})"
            )
    return out


def data_report(
    training: DetectionSplit,
    suites: Mapping[str, DetectionSplit],
    stride: int,
    find_duplicates: bool = True,
) -> list[str]:
    """The lines that a run logs about its data: counts, sizes of the training set's objects,
    warnings.

    find_duplicates: also count near-duplicates, which reads each image.
    """
    summary = summarize(training)
    suite_summaries = {name: summarize(split) for name, split in suites.items()}
    # Pairs, not a dict: a suite may be named "training".
    named = [("training", summary), *suite_summaries.items()]
    out = [line for name, split_summary in named for line in summary_lines(name, split_summary)]
    out += size_table(summary)
    if find_duplicates:
        counts = ", ".join(
            f"{name} {(max_similarity(split, training) > NEAR_DUPLICATE).sum()}"
            for name, split in suites.items()
        )
        title = f"near-duplicates of training images (thumbnail correlation above {NEAR_DUPLICATE})"
        out.append(f"{title}: {counts}")
    out += class_table(named)
    warnings = find_warnings({"training": summary}, stride)
    warnings += find_warnings(suite_summaries, stride)
    return out + [f"warning: {text}" for text in warnings]


def problem_lines(problems: Sequence[tuple[str, str]]) -> list[str]:
    """(problem, message) pairs as passed to `on_error`, counted by problem, with examples."""
    out = []
    for problem, count in Counter(problem for problem, _ in problems).most_common():
        out.append(f"{problem}: {count}")
        messages = [message for name, message in problems if name == problem]
        out += [f"    {message}" for message in messages[:MAX_EXAMPLES]]
    return out


def _examples(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_EXAMPLES]) + (", .." if len(names) > MAX_EXAMPLES else "")
