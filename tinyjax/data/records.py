"""Splits of data sets on the host: padded arrays for training, a dict in COCO format for scoring.

Boxes are `xyxy` in continuous pixels: (0, 0) is the image's upper left corner, (W, H) its lower
right, and pixel (i, j) covers [j, j + 1) x [i, i + 1).
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyjax.data.images import to_network
from tinyjax.data.layouts import federated
from tinyjax.errors import UserError


class DetectionSplit(NamedTuple):
    """One split of a detection data set: N images with up to G boxes each."""

    inputs: dict[str, Any]  # {"image": uint8 [N, H, W, C]}; the array may be a `streaming.Images`
    boxes: np.ndarray  # float32 [N, G, 4] xyxy in pixels of the network's input; padding rows are 0
    labels: np.ndarray  # int32 [N, G]; the first class is 0; padding and ignored rows are 0
    valid: np.ndarray  # bool [N, G] an object to detect
    ignore: np.ndarray  # bool [N, G] an ignored region: neither object nor background
    scale: np.ndarray  # float32 [N, 2] (sx, sy): x_network = x_file * sx + ox
    offset: np.ndarray  # float32 [N, 2] (ox, oy)
    names: tuple[str, ...]  # file names
    classes: tuple[str, ...]
    truth: dict[str, Any]  # COCO format, in pixels of the files; see `coco_truth`
    notices: tuple[str, ...] = ()  # how ambiguous labels were read, for the report


class ClassificationSplit(NamedTuple):
    """One split of a classification data set: N images with one label each."""

    inputs: dict[str, Any]  # {"image": uint8 [N, H, W, C]}; the array may be a `streaming.Images`
    labels: np.ndarray  # int32 [N]; the first class is 0
    names: tuple[str, ...]  # file names
    classes: tuple[str, ...]
    left_out: int = 0  # number of images of other classes


class Trial(NamedTuple):
    """One draw of queries and gallery, as indices of a split's samples."""

    query: np.ndarray  # int [Q]
    gallery: np.ndarray  # int [G]


class RetrievalProtocol(NamedTuple):
    """Which samples are compared, and how ranks are counted. Scores are means over the trials."""

    trials: tuple[Trial, ...]
    # Pairs (camera of the query, camera of the gallery) that are not compared.
    skipped_cameras: frozenset[tuple[int, int]] = frozenset()
    # The rank of a match counts identities, as in SYSU-MM01, instead of images.
    identity_ranks: bool = False


class RecognitionSplit(NamedTuple):
    """One split of a visible-infrared data set: N images of identities, which are its classes."""

    # "image": uint8 [N, H, W, C], may be a `streaming.Images`; "modality": uint8 [N], 0 visible,
    # 1 infrared
    inputs: dict[str, Any]
    labels: np.ndarray  # int32 [N], the identity
    cameras: np.ndarray  # int32 [N], numbered as in the data set
    captures: np.ndarray  # int32 [N]; images of one moment have one number and are not compared
    names: tuple[str, ...]  # file names
    classes: tuple[str, ...]  # names of the identities
    protocols: dict[str, RetrievalProtocol]  # none in a training split
    # Data set and trial within which `classes` name identities, see `recognition.find_leak`.
    origin: tuple[str, int] = ("", 0)


class Objects(NamedTuple):
    """The labeled boxes of one image, in pixels of its file."""

    boxes: np.ndarray  # float64 [n, 4] xyxy
    labels: np.ndarray  # int [n]; not used where `ignore` is set
    ignore: np.ndarray  # bool [n]
    area: np.ndarray  # float64 [n] px^2, from the source; defines the size bins of the metrics


def build_split(
    images: Any,
    objects: Sequence[Objects],
    infos: Sequence[dict[str, Any]],
    classes: Sequence[str],
    scale: np.ndarray,
    offset: np.ndarray,
    slots: int | None = None,
    frequencies: Mapping[str, str] | None = None,
) -> DetectionSplit:
    """Combine per-image records into one `DetectionSplit`.

    Args:
        images: N of uint8 [H, W, C] at the network's input size, or a `streaming.Images`.
        objects: N, in pixels of the files.
        infos: N COCO image dicts: "file_name", "width", "height" and further fields of the source.
        scale, offset: [N, 2], from file to network pixels.
        slots: G, the number of box rows per image; by default the next multiple of 8 that fits all
            images, so that most splits have the same shape.
        frequencies: class -> r, c or f, see `federated`.

    Raises UserError if an image has more than `slots` boxes.
    """
    max_boxes = max((len(image_objects.boxes) for image_objects in objects), default=0)
    if slots is None:
        slots = max(8, -(-max_boxes // 8) * 8)
    if max_boxes > slots:
        raise UserError(f"slots = {slots}: an image has {max_boxes} boxes; give at least that many")

    n = len(objects)
    scale, offset = np.asarray(scale, np.float32), np.asarray(offset, np.float32)
    boxes = np.zeros((n, slots, 4), np.float32)
    labels = np.zeros((n, slots), np.int32)
    valid = np.zeros((n, slots), bool)
    ignore = np.zeros((n, slots), bool)
    for i, image_objects in enumerate(objects):
        k = len(image_objects.boxes)
        boxes[i, :k] = to_network(image_objects.boxes, scale[i], offset[i])
        labels[i, :k] = np.where(image_objects.ignore, 0, image_objects.labels)
        valid[i, :k] = ~image_objects.ignore
        ignore[i, :k] = image_objects.ignore
    if isinstance(images, Sequence):
        images = np.stack(images)
    return DetectionSplit(
        inputs={"image": images},
        boxes=boxes,
        labels=labels,
        valid=valid,
        ignore=ignore,
        scale=scale,
        offset=offset,
        names=tuple(str(info["file_name"]) for info in infos),
        classes=tuple(classes),
        truth=coco_truth(infos, objects, classes, frequencies or {}),
    )


def coco_truth(
    infos: Sequence[dict[str, Any]],
    objects: Sequence[Objects],
    classes: Sequence[str],
    frequencies: Mapping[str, str],
) -> dict[str, Any]:
    """The ground truth in COCO format, in pixels of the files.

    Image ids are 0..N-1 in the given order; an id of the source is kept as "source_id", and all
    other fields are copied. Category ids are 1..len(classes), also in federated labels. Annotation
    ids start at 1, since pycocotools uses id 0 for "no match". An ignored box becomes a crowd box
    of each class, since pycocotools replaces `ignore` by `iscrowd` and evaluates one class at a
    time.
    """
    images = []
    category_ids = {name: c for c, name in enumerate(classes, start=1)}
    annotations: list[dict[str, Any]] = []
    for i, (info, image_objects) in enumerate(zip(infos, objects, strict=True)):
        source_id = {"source_id": info["id"]} if "id" in info else {}
        labeled = federated.to_ids(info, category_ids)
        images.append({**info, **source_id, **labeled, "id": i})
        rows = zip(*(array.tolist() for array in image_objects), strict=True)
        for (x1, y1, x2, y2), label, ignore, area in rows:
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
    categories = [
        {"id": c, "name": name} | ({"frequency": frequencies[name]} if name in frequencies else {})
        for name, c in category_ids.items()
    ]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def select_images(split: DetectionSplit, indices: Sequence[int]) -> DetectionSplit:
    """The images `indices` of a split, in that order; an index may be repeated.

    To select by a field of the source: `select_images(split, [i for i, info in
    enumerate(split.truth["images"]) if info["time_of_day"] == "day"])`.

    Raises UserError for an index out of range.
    """
    for i in indices:
        if not 0 <= i < len(split.names):
            raise UserError(f"indices: no image {i}; the split has 0..{len(split.names) - 1}")
    by_image = defaultdict(list)
    for annotation in split.truth["annotations"]:
        by_image[annotation["image_id"]].append(annotation)
    annotations = [
        {**a, "image_id": new_id} for new_id, i in enumerate(indices) for a in by_image[i]
    ]
    truth = {
        **split.truth,
        "images": [{**split.truth["images"][i], "id": new_id} for new_id, i in enumerate(indices)],
        "annotations": [{**a, "id": k} for k, a in enumerate(annotations, start=1)],
    }
    rows = np.asarray(indices, np.int64)
    return split._replace(
        inputs={name: array[rows] for name, array in split.inputs.items()},
        **{name: getattr(split, name)[rows] for name in _ARRAYS},
        names=tuple(split.names[i] for i in indices),
        truth=truth,
    )


_ARRAYS = ("boxes", "labels", "valid", "ignore", "scale", "offset")


def background_counts(split: DetectionSplit) -> dict[str, int]:
    """Background category -> number of its labeled objects."""
    total: Counter[str] = Counter()
    for info in split.truth["images"]:
        total.update(info.get("background", {}))
    return dict(total)
