"""A look at data before training: what is there, what is odd, what a detector could not see."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from tinyjax.data.records import Split, background

THUMBNAIL = (40, 32)  # width, height: what HIT-UAV's leak was measured with
ALIKE = 0.95  # correlation of two thumbnails from which on they are taken for near-duplicates
FEW = 0.05  # of a class's objects may be smaller than a cell before a warning; our own choice
SHOWN = 3  # examples of each kind of problem
LISTED = 30  # classes in a table of them
LONGEST, COARSEST = 640, 32  # px, of a size we suggest: the YOLO family's, and a backbone's stride


class Look(NamedTuple):
    """What one split holds."""

    images: int
    empty: int  # images without objects
    objects: dict[str, int]  # class -> how many
    ignore_classes: int
    background: dict[str, int]  # unused category -> how many
    sides: dict[str, np.ndarray]  # class -> sqrt(w * h) of its objects, in pixels of the network
    overhang: list[str]  # images with a box that overhangs them
    twice: list[str]  # images where a class has the same box twice


def look(split: Split) -> Look:
    """Count what a split holds."""
    label = [split.labels[i][split.valid[i]] for i in range(len(split.names))]
    corner = split.boxes[..., 2:] - split.boxes[..., :2]
    side = np.sqrt(np.maximum(corner.prod(-1), 0))
    sides = {name: side[split.valid & (split.labels == k)] for k, name in enumerate(split.classes)}
    overhang, twice = [], []
    rows: list[list[tuple]] = [[] for _ in split.names]
    for a in split.truth["annotations"]:
        if not a["iscrowd"]:
            rows[a["image_id"]].append((a["category_id"], *a["bbox"]))
    for info, boxes in zip(split.truth["images"], rows, strict=True):
        width, height = info["width"], info["height"]
        if any(x < 0 or y < 0 or x + w > width or y + h > height for _, x, y, w, h in boxes):
            overhang.append(info["file_name"])
        if len(set(boxes)) < len(boxes):
            twice.append(info["file_name"])
    return Look(
        images=len(split.names),
        empty=sum(len(one) == 0 for one in label),
        objects={name: len(values) for name, values in sides.items()},
        ignore_classes=int(split.ignore.sum()),
        background=background(split),
        sides=sides,
        overhang=overhang,
        twice=twice,
    )


def alike(split: Split, other: Split) -> np.ndarray:
    """float32 [N]: for each image of `split` the largest correlation of its thumbnail with one of
    `other`'s. A picture without any contrast is like no other.
    """
    ours, theirs = _thumbnails(split), _thumbnails(other)
    blocks = (ours[i : i + 256] @ theirs.T for i in range(0, len(ours), 256))
    return np.concatenate([block.max(1) for block in blocks])


def _thumbnails(split: Split) -> np.ndarray:
    """float32 [N, pixels], each of mean 0 and length 1."""
    rows = []
    for image in split.images:
        gray = Image.fromarray(image.mean(-1).astype(np.uint8))
        rows.append(np.asarray(gray.resize(THUMBNAIL, Image.Resampling.BOX), np.float32).ravel())
    centerd = np.stack(rows) - np.mean(rows, axis=1, keepdims=True)
    return centerd / np.maximum(np.linalg.norm(centerd, axis=1, keepdims=True), 1e-3)


def lines(name: str, seen: Look) -> list[str]:
    """A split in a few lines."""
    counts = ", ".join(f"{kind} {count}" for kind, count in seen.objects.items())
    extra = [f"{seen.empty} without objects"] if seen.empty else []
    extra += [f"{seen.ignore_classes} don't-care boxes"] if seen.ignore_classes else []
    unused = ", ".join(f"{kind} {count}" for kind, count in seen.background.items())
    extra += [f"background: {unused}"] if unused else []
    return ["; ".join([f"{name}: {seen.images} images, {counts}", *extra])]


def classes(looks: Sequence[tuple[str, Look]]) -> list[str]:
    """A table of how many objects each split has of each class, if one has none of some: a score is
    over fewer classes there. None if all have all.
    """
    names = list(dict.fromkeys(kind for _, seen in looks for kind in seen.objects))
    if len(names) == 1 or all(seen.objects.get(kind) for _, seen in looks for kind in names):
        return []
    width = max(len(kind) for kind in ["objects of class", *names]) + 2
    out = [f"{'objects of class':<{width}}" + "".join(f"{name:>14}" for name, _ in looks)]
    for kind in names[:LISTED]:
        counts = (seen.objects.get(kind) or "-" for _, seen in looks)
        out.append(f"{kind:<{width}}" + "".join(f"{count:>14}" for count in counts))
    return out + [f".. and {len(names) - LISTED} more classes"] * (len(names) > LISTED)


def sizes(seen: Look) -> list[str]:
    """Percentiles of the sides of each class's objects."""
    return percentiles("side of objects, px", seen.sides)


def percentiles(title: str, values: Mapping[str, np.ndarray]) -> list[str]:
    """A table with a row for each name."""
    out = [f"{title:<22}{'5 %':>7}{'25 %':>7}{'50 %':>7}{'75 %':>7}{'95 %':>7}"]
    for name, row in values.items():
        if len(row):
            marks = np.percentile(row, (5, 25, 50, 75, 95))
            out.append(f"  {name:<20}" + "".join(f"{mark:>7.1f}" for mark in marks))
    return out


def common_size(shapes: np.ndarray) -> tuple[int, int]:
    """A (height, width) for images of many: their medians, reduced if need be to `LONGEST`, in
    whole cells of the coarsest stride.

    shapes: int [N, 2], (height, width).
    """
    middle = np.median(shapes, axis=0)
    sides = middle * min(1, LONGEST / middle.max())
    height, width = (max(1, round(side / COARSEST)) * COARSEST for side in sides.tolist())
    return height, width


def warnings(looks: Mapping[str, Look], stride: int) -> list[str]:
    """What a user should know before hours of training; `stride` is the detector's finest."""
    out = []
    for name, seen in looks.items():
        for kind, sides in seen.sides.items():
            small = float(np.mean(sides < stride)) if len(sides) else 0.0
            if small > FEW:
                out.append(
                    f"{name}: {100 * small:.0f} % of the objects of class {kind} are smaller than "
                    f"one cell of the finest stride, {stride} px: give larger images (data.common."
                    "size), or lower model.strides"
                )
            if not len(sides):
                out.append(f"{name}: no object of class {kind}")
        for odd, what in ((seen.overhang, "overhang it"), (seen.twice, "are there twice")):
            if odd:
                out.append(f"{name}: {len(odd)} images with boxes that {what} ({_some(odd)})")
    return out


def leaks(splits: Mapping[str, Split], train: str = "train") -> list[str]:
    """For every split but `train`, how many of its images are near-duplicates of one there."""
    out = []
    for name, split in splits.items():
        if name != train:
            most = alike(split, splits[train])
            many = int((most > ALIKE).sum())
            out.append(
                f"{name}: {many} of {len(most)} images ({100 * many / len(most):.0f} %) have a "
                f"near-duplicate in {train} (thumbnail correlation above {ALIKE}; the largest is "
                f"{most.max():.2f})"
            )
    return out


def brief(
    training: Split, suites: Mapping[str, Split], stride: int, twins: bool = True
) -> list[str]:
    """The look that a run begins with: counts, sizes of the training set's objects, warnings.

    twins: also near-duplicates, for which every image is looked at.
    """
    seen, others = look(training), {name: look(split) for name, split in suites.items()}
    # Not one dict: a suite may have any name.
    named = [("training", seen), *others.items()]
    out = [line for name, one in named for line in lines(name, one)]
    out += sizes(seen)
    if twins:
        many = ", ".join(
            f"{name} {(alike(one, training) > ALIKE).sum()}" for name, one in suites.items()
        )
        title = f"near-duplicates of training images (thumbnail correlation above {ALIKE})"
        out.append(f"{title}: {many}")
    out += classes(named)
    found = warnings({"training": seen}, stride) + warnings(others, stride)
    return out + [f"warning: {text}" for text in found]


def problems(found: Sequence[tuple[str, str]]) -> list[str]:
    """(kind, message) pairs as a loader refuses them, counted by kind, with a few examples each."""
    out = []
    for kind, many in Counter(kind for kind, _ in found).most_common():
        out.append(f"{kind}: {many}")
        out += [f"    {text}" for text in [t for k, t in found if k == kind][:SHOWN]]
    return out


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", .." if len(names) > SHOWN else "")
