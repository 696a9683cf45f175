"""What every source is turned into. Detection: padded arrays to train on, a COCO dict to score by.

Boxes are `xyxy` in continuous pixels: (0, 0) is the image's upper left corner, (W, H) its lower
right, and pixel (i, j) covers [j, j + 1) x [i, i + 1).
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyjax.data.images import to_network
from tinyjax.errors import UserError


class Split(NamedTuple):
    """One split of a detection data set, on the host."""

    images: np.ndarray  # uint8 [N, H, W, C], the network's input size
    boxes: np.ndarray  # float32 [N, G, 4] xyxy in pixels of the network's input; padding rows are 0
    labels: np.ndarray  # int32 [N, G]; first class is 0; padding and don't-care rows are 0
    valid: np.ndarray  # bool [N, G] a real object; a don't-care box is not one
    ignore: np.ndarray  # bool [N, G] a don't-care box
    scale: np.ndarray  # float32 [N, 2] (sx, sy): x_network = x_file * sx + ox
    offset: np.ndarray  # float32 [N, 2] (ox, oy)
    names: tuple[str, ...]  # file names
    classes: tuple[str, ...]
    truth: dict[str, Any]  # COCO format, in ORIGINAL pixels; see `truth_of`


class Labeled(NamedTuple):
    """One split of a classification data set, on the host."""

    images: np.ndarray  # uint8 [N, H, W, C]
    labels: np.ndarray  # int32 [N], the first class is 0
    names: tuple[str, ...]  # of the images
    classes: tuple[str, ...]
    left_out: int = 0  # images of other classes


class Objects(NamedTuple):
    """The labeled boxes of one image, in pixels of its file."""

    boxes: np.ndarray  # float64 [n, 4] xyxy
    labels: np.ndarray  # int [n]; what a don't-care row says is not read
    ignore: np.ndarray  # bool [n]
    area: np.ndarray  # float64 [n] px^2, the source's own number: size bins go by it


def stack(
    images: Any,
    objects: Sequence[Objects],
    infos: Sequence[dict[str, Any]],
    classes: Sequence[str],
    scale: np.ndarray,
    offset: np.ndarray,
    slots: int | None = None,
) -> Split:
    """Join per-image lists into one `Split`.

    images: N of uint8 [H, W, C], in the network's size already, or a `disk.Images` of them.
    objects: N, in pixels of the file. infos: N COCO image dicts ("file_name", "width", "height" and
    whatever the source adds). scale, offset: [N, 2], from file to network. slots: G, the rows of
    boxes per image; by default the next multiple of 8 that holds the fullest image, so that splits
    seldom differ in shape.

    Raises UserError if an image holds more than `slots` boxes.
    """
    most = max((len(one.boxes) for one in objects), default=0)
    if slots is None:
        slots = max(8, -(-most // 8) * 8)
    if most > slots:
        raise UserError(f"slots = {slots}: an image holds {most} boxes; give at least {most}")

    n = len(objects)
    scale, offset = np.asarray(scale, np.float32), np.asarray(offset, np.float32)
    boxes = np.zeros((n, slots, 4), np.float32)
    labels = np.zeros((n, slots), np.int32)
    valid = np.zeros((n, slots), bool)
    ignore = np.zeros((n, slots), bool)
    for i, one in enumerate(objects):
        k = len(one.boxes)
        boxes[i, :k] = to_network(one.boxes, scale[i], offset[i])
        labels[i, :k] = np.where(one.ignore, 0, one.labels)
        valid[i, :k] = ~one.ignore
        ignore[i, :k] = one.ignore
    names = tuple(str(info["file_name"]) for info in infos)
    truth = truth_of(infos, objects, classes)
    if isinstance(images, Sequence):
        images = np.stack(images)
    return Split(images, boxes, labels, valid, ignore, scale, offset, names, tuple(classes), truth)


def truth_of(
    infos: Sequence[dict[str, Any]], objects: Sequence[Objects], classes: Sequence[str]
) -> dict[str, Any]:
    """The COCO-format dict to score by, in original pixels.

    Image ids are 0..N-1 in the given order (a source's own id is kept as "source_id", all its
    other fields as they are), category ids 1..len(classes). Annotation ids start at 1: pycocotools
    takes id 0 for "no match". A don't-care box becomes a crowd box of every class, since
    pycocotools overwrites `ignore` by `iscrowd` and looks at one class at a time.
    """
    images = []
    annotations: list[dict[str, Any]] = []
    for i, (info, one) in enumerate(zip(infos, objects, strict=True)):
        own = {"source_id": info["id"]} if "id" in info else {}
        images.append({**info, **own, "id": i})
        for (x1, y1, x2, y2), label, ignore, area in zip(*(a.tolist() for a in one), strict=True):
            for c in range(len(classes)) if ignore else (label,):
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": i,
                        "category_id": c + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": area,
                        "iscrowd": int(ignore),
                        "ignore": int(ignore),
                    }
                )
    categories = [{"id": c + 1, "name": name} for c, name in enumerate(classes)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def subset(split: Split, keep: Sequence[int]) -> Split:
    """The images `keep` of a split, in that order; a number given twice is there twice.

    A slice by a field of the source is
    `subset(split, [i for i, m in enumerate(split.truth["images"]) if m["time_of_day"] == "day"])`.

    Raises UserError for a number that is no image of the split.
    """
    for i in keep:
        if not 0 <= i < len(split.names):
            raise UserError(f"keep: no image {i}; the split has 0..{len(split.names) - 1}")
    of_image = defaultdict(list)
    for annotation in split.truth["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    kept = [{**a, "image_id": new} for new, i in enumerate(keep) for a in of_image[i]]
    truth = {
        **split.truth,
        "images": [{**split.truth["images"][i], "id": new} for new, i in enumerate(keep)],
        "annotations": [{**a, "id": k} for k, a in enumerate(kept, start=1)],
    }
    at = np.asarray(keep, np.int64)
    arrays = {name: getattr(split, name)[at] for name in _PER_IMAGE}
    return split._replace(**arrays, names=tuple(split.names[i] for i in keep), truth=truth)


_PER_IMAGE = ("images", "boxes", "labels", "valid", "ignore", "scale", "offset")


def background(split: Split) -> dict[str, int]:
    """How many labeled objects of each unused category of the source count as background."""
    total: Counter[str] = Counter()
    for image in split.truth["images"]:
        total.update(image.get("background", {}))
    return dict(total)
