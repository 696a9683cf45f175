"""LVIS scores (Gupta et al., arXiv 1908.03195): average precision on federated labels.

An image is labeled for some of the classes only: for those of its objects, and for those in its
`neg_category_ids`, which were verified to be absent. Detections of other classes do not count. For
classes in `not_exhaustive_category_ids`, only some objects of the image are labeled, so a detection
without an object does not count.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tinyjax.errors import UserError
from tinyjax.metrics.detection import (
    average_precisions,
    count_images_and_boxes,
    evaluate_areas,
    half_open_areas,
    mean_precision,
    nonempty_slots,
)

MAX_DETECTIONS = 300  # per image, of all classes together
MAX_CLASS_DETECTIONS = 10_000  # per class, for "AP fixed"
# Closed ranges of px^2, as in lvis-api: an area at an edge is in both ranges.
AREAS = {"APs": (0.0, 32.0**2), "APm": (32.0**2, 96.0**2), "APl": (96.0**2, np.inf)}
FREQUENCIES = {"APr": "r", "APc": "c", "APf": "f"}  # rare, common, frequent
# The package stores a list for each pair of an image and a class: 24 million for LVIS val.
CLASSES_PER_EVALUATION = 50
EVERYWHERE = [-1e6, -1e6, 2e6, 2e6]  # bbox that contains all detections


class Evaluation(NamedTuple):
    """The results of K classes; -1 for a class without objects in the area."""

    precision: np.ndarray  # float64 [T, R, K, A] at IoU thresholds, recalls and areas
    recall: np.ndarray  # float64 [T, K, A]


def score(
    predictions: Mapping[str, np.ndarray],
    truth: Mapping[str, Any],
    bins: Mapping[str, tuple[float, float]],
) -> dict[str, float]:
    """Return the scores of LVIS.

    Args:
        predictions, bins: see `detection.score`.
        truth: see `detection.score`; its images have `neg_category_ids` and
            `not_exhaustive_category_ids`, its categories a `frequency` of r, c or f: fewer than 10,
            fewer than 100, or more training images.

    Returns:
        "AP", "AP50", "AP75", "AR300", with at most 300 detections per image; "APs", "APm", "APl" of
        objects up to 32 x 32, up to 96 x 96 and above; "APr", "APc", "APf" of rare, common and
        frequent classes; "AP/x" and "AP50/x" for each class and bin x; "images" and "boxes". "AP
        fixed" is the AP of the 10,000 detections of each class with the highest scores, without a
        limit per image (Dave et al., arXiv 2102.01066). Scores without objects are NaN; the means
        ignore them.

    Raises:
        UserError: `truth` has no federated labels.
        ValueError: as `detection.score` does.
    """
    check_labels(truth)
    areas = {**half_open_areas(bins), **AREAS}
    limited = keep_per_image(predictions, MAX_DETECTIONS)
    precision, recall = _evaluate(limited, truth, areas)
    scores = average_precisions(precision, [c["name"] for c in truth["categories"]], [*bins])
    for a, name in enumerate(AREAS, start=1 + len(bins)):
        scores[name] = mean_precision(precision[..., a])
    frequencies = np.array([c.get("frequency", "") for c in truth["categories"]])
    for name, frequency in FREQUENCIES.items():
        scores[name] = mean_precision(precision[:, :, frequencies == frequency, 0])
    scores["AR300"] = mean_precision(recall[..., 0])
    fixed = keep_per_class(predictions, MAX_CLASS_DETECTIONS)
    scores["AP fixed"] = mean_precision(_evaluate(fixed, truth, {}).precision)
    return {**scores, **count_images_and_boxes(truth)}


def check_labels(truth: Mapping[str, Any]) -> None:
    """Raise UserError if no image has `neg_category_ids`."""
    if not any("neg_category_ids" in image for image in truth["images"]):
        raise UserError(
            "score.protocol = 'lvis': the labels are not federated, no image has "
            "neg_category_ids; give protocol = 'coco'"
        )


def keep_per_image(predictions: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Return the predictions with only the `count` highest scores of each image."""
    image, slot = nonempty_slots(predictions)
    return _keep(predictions, image, slot, image, count)


def keep_per_class(predictions: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """Return the predictions with only the `count` highest scores of each class."""
    image, slot = nonempty_slots(predictions)
    return _keep(predictions, image, slot, np.asarray(predictions["labels"])[image, slot], count)


def _keep(
    predictions: Mapping[str, np.ndarray],
    image: np.ndarray,
    slot: np.ndarray,
    group: np.ndarray,
    count: int,
) -> dict[str, np.ndarray]:
    """Empty the slots of all detections but the `count` highest scores of each group.

    image, slot, group: int [D]. In a tie the first detection is kept.
    """
    values = np.asarray(predictions["scores"])[image, slot]
    order = np.lexsort((-values, group))  # stable
    starts = np.searchsorted(group[order], group[order])
    kept = order[np.arange(len(order)) - starts < count]
    scores = np.zeros_like(predictions["scores"])
    scores[image[kept], slot[kept]] = values[kept]
    return {**predictions, "scores": scores}


def _evaluate(
    predictions: Mapping[str, np.ndarray],
    truth: Mapping[str, Any],
    areas: Mapping[str, tuple[float, float]],
) -> Evaluation:
    """Evaluate all classes, without a limit of detections per image."""
    labels, slots = np.asarray(predictions["labels"]), predictions["scores"].shape[1]
    # The package needs a frequency of each category, but only for its own summary.
    categories = [{"frequency": "f", **c} for c in truth["categories"]]
    results = []
    for start in range(0, len(categories), CLASSES_PER_EVALUATION):
        ids = [c["id"] for c in categories[start : start + CLASSES_PER_EVALUATION]]
        in_group = np.isin(labels + 1, ids)
        annotations = [a for a in truth["annotations"] if a["category_id"] in ids]
        evaluation = evaluate_areas(
            {**predictions, "scores": np.where(in_group, predictions["scores"], 0)},
            {**truth, "categories": categories, "annotations": annotations},
            areas,
            max_detections=slots,
            lvis_style=True,
            category_ids=ids,
        )
        results.append(evaluation.eval)
    return Evaluation(
        np.concatenate([result["precision"][..., 0] for result in results], axis=2),
        np.concatenate([result["recall"][..., 0] for result in results], axis=1),
    )


def as_coco(
    predictions: Mapping[str, np.ndarray], truth: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return predictions and truth for which COCO's matches are those of LVIS.

    Detections that LVIS does not count are dropped, except for classes that are not exhaustively
    labeled: for these, an ignored region covers the whole image.
    """
    regions = [
        {
            "image_id": image["id"],
            "category_id": category,
            "bbox": EVERYWHERE,
            "area": EVERYWHERE[2] * EVERYWHERE[3],
            "iscrowd": 1,
            "ignore": 1,
        }
        for image in truth["images"]
        for category in image.get("not_exhaustive_category_ids", ())
    ]
    return (
        labeled_detections(predictions, truth),
        {**truth, "annotations": [*truth["annotations"], *regions]},
    )


def labeled_detections(
    predictions: Mapping[str, np.ndarray], truth: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return the 300 detections of each image, without those of classes that it is not labeled
    for.
    """
    limited = keep_per_image(predictions, MAX_DETECTIONS)
    labeled = np.zeros((len(truth["images"]), len(truth["categories"])), bool)
    for image in truth["images"]:
        labeled[image["id"], _labels(image.get("neg_category_ids", ()))] = True
    for annotation in truth["annotations"]:
        labeled[annotation["image_id"], annotation["category_id"] - 1] = True
    counted = np.take_along_axis(labeled, np.asarray(limited["labels"], np.int64), axis=1)
    return {**limited, "scores": np.where(counted, limited["scores"], 0)}


def _labels(category_ids: Sequence[int]) -> np.ndarray:
    return np.array(category_ids, np.int64) - 1
