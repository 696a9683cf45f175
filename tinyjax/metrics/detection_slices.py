"""Scores of a detector on a suite, on its slices and on resamples of its images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from faster_coco_eval import COCOeval_faster

from tinyjax.metrics import detection_errors, protocols
from tinyjax.metrics.detection import count_images_and_boxes, evaluate, summarize
from tinyjax.metrics.robustness import calibration_error
from tinyjax.metrics.slices import ALL_IMAGES, Slice, SuiteResult, class_slice_name

# Detections with a lower score do not count in the calibration error: there are thousands of them.
# The value is our own choice.
MIN_CONFIDENCE = 0.1


def evaluate_slices(
    predictions: Mapping[str, np.ndarray],
    truth: Mapping[str, Any],
    bins: Mapping[str, tuple[float, float]],
    slices: Mapping[str, Slice],
    counts: np.ndarray,
    protocol: str = "coco",
) -> SuiteResult:
    """Evaluate all images and each slice, from one set of predictions.

    Returns the scores of `protocols.score` with the calibration error, AP50 on resampled images,
    also of each class, and the detections that pass the operating point's threshold.

    predictions, truth, bins: see `score`. counts: int [B, N], how often each resample contains each
    image. protocol: see `protocols`.
    """
    subsets = {ALL_IMAGES: Slice(np.arange(len(truth["images"]))), **slices}
    scores = _score_slices(predictions, truth, bins, subsets, protocol)
    matches = protocols.match(predictions, truth, protocol)
    threshold = detection_errors.operating_point(detection_errors.threshold_curves(matches))
    replicates = {}
    for name, subset in subsets.items():
        slice_matches = _select_matches(matches, subset)
        scores[name]["ECE"] = detection_calibration_error(slice_matches)
        by_class = resampled_ap50(slice_matches, counts, subset, protocols.RECALLS[protocol])
        mean = detection_errors.mean_over_classes(np.array([*by_class.values()]))
        replicates[name] = mean.astype(np.float32)
        if name == ALL_IMAGES:
            replicates |= {class_slice_name([k]): values for k, values in by_class.items()}
    return SuiteResult(scores, replicates, _passing_detections(predictions, matches, threshold))


def resampled_ap50(
    matches: detection_errors.Matches,
    counts: np.ndarray,
    subset: Slice,
    recalls: np.ndarray | None = detection_errors.RECALLS,
) -> dict[str, np.ndarray]:
    """Return the AP50 of each class of a slice on resampled images.

    Class -> float32 [B]; NaN for a resample without objects of the class.

    If an image is drawn twice, its detections and objects occur twice; this is computed as a weight
    of 2 in the sums of true and false positives.

    recalls: see `protocols.RECALLS`.
    """
    detections, objects = matches.detections, matches.objects
    names = subset.classes or matches.classes
    classes = [k for k, name in enumerate(matches.classes) if name in names]
    average_precision = np.full((len(classes), len(counts)), np.nan, np.float32)
    for row, k in enumerate(classes):
        counted = detections.true_positive | detections.false_positive
        order = np.flatnonzero((detections.label == k) & counted)
        order = order[np.argsort(-detections.score[order], kind="stable")]
        hits = np.flatnonzero(detections.true_positive[order])
        # detections after the last true positive do not change the average precision
        order = order[: hits[-1] + 1] if len(hits) else order[:0]
        weights = counts[:, detections.image[order]]  # resample detection
        tp = np.cumsum(weights[:, hits], axis=1)
        # There are far more false than true positives, so first sum the false positives between
        # each two true positives, then take the cumulative sum.
        false_positives = weights * detections.false_positive[order]
        fp = np.cumsum(np.add.reduceat(false_positives, np.append(0, hits)[:-1], axis=1), axis=1)
        num_objects = counts[:, objects.image[objects.label == k]].sum(1)
        precision = tp / np.maximum(tp + fp, 1)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for b in np.flatnonzero(num_objects):
            recall = tp[b] / num_objects[b]
            if recalls is None:
                average_precision[row, b] = np.diff(recall, prepend=0) @ envelope[b]
            else:
                index = np.searchsorted(recall, recalls)
                average_precision[row, b] = np.append(envelope[b], 0)[index].mean()
    return dict(zip((matches.classes[k] for k in classes), average_precision, strict=True))


def detection_calibration_error(matches: detection_errors.Matches) -> float:
    """Return the expected calibration error of the detections, see `calibration_error`."""
    detections = matches.detections
    counted = detections.true_positive | detections.false_positive
    return calibration_error(
        detections.score[counted], detections.true_positive[counted], MIN_CONFIDENCE
    )


def _score_slices(
    predictions: Mapping[str, np.ndarray],
    truth: Mapping[str, Any],
    bins: Mapping[str, tuple[float, float]],
    subsets: Mapping[str, Slice],
    protocol: str,
) -> dict[str, dict[str, float]]:
    """Return the scores of each slice; all images are the first one."""
    if protocol != "coco":
        return {
            name: protocols.score(*_select(predictions, truth, subset), bins, protocol)
            for name, subset in subsets.items()
        }
    evaluation = evaluate(predictions, truth, bins)
    scores = {}
    for name, subset in subsets.items():
        if name != ALL_IMAGES:
            _evaluate_slice(evaluation, subset, truth)
        counts = count_images_and_boxes(_select_truth(truth, subset))
        scores[name] = {**summarize(evaluation, truth, [*bins]), **counts}
    return scores


def _select(
    predictions: Mapping[str, np.ndarray], truth: Mapping[str, Any], subset: Slice
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return predictions and truth of a slice, with images numbered from 0.

    Detections and objects of other classes are left out.
    """
    numbers = {image: k for k, image in enumerate(subset.images.tolist())}
    rows = {name: np.asarray(array)[subset.images] for name, array in predictions.items()}
    names = subset.classes or tuple(c["name"] for c in truth["categories"])
    in_slice = np.array([c["name"] in names for c in truth["categories"]])
    rows["scores"] = np.where(in_slice[rows["labels"]], rows["scores"], 0)
    selected = _select_truth(truth, subset)
    selected["images"] = [{**truth["images"][i], "id": k} for i, k in numbers.items()]
    selected["annotations"] = [
        {**a, "image_id": numbers[a["image_id"]]} for a in selected["annotations"]
    ]
    return rows, {**truth, **selected}


def _evaluate_slice(evaluation: COCOeval_faster, subset: Slice, truth: Mapping[str, Any]) -> None:
    """Evaluate a slice of the data in `evaluation`, and overwrite the results stored there."""
    evaluation.params.imgIds = subset.images.tolist()
    evaluation.params.catIds = [
        c["id"] for c in truth["categories"] if c["name"] in (subset.classes or (c["name"],))
    ]
    evaluation.evaluate()
    evaluation.accumulate()


def _select_truth(truth: Mapping[str, Any], subset: Slice) -> dict[str, Any]:
    """Return images and annotations of a slice."""
    images = {*subset.images.tolist()}
    names = {c["id"]: c["name"] for c in truth["categories"]}
    return {
        "images": [truth["images"][i] for i in images],
        "annotations": [
            a
            for a in truth["annotations"]
            if a["image_id"] in images
            and (not subset.classes or names[a["category_id"]] in subset.classes)
        ],
    }


def _select_matches(matches: detection_errors.Matches, subset: Slice) -> detection_errors.Matches:
    """Return detections and objects of a slice's images and classes."""
    images = np.zeros(matches.images, bool)
    images[subset.images] = True
    names = subset.classes or matches.classes
    labels = np.array([name in names for name in matches.classes])
    detections, objects = matches.detections, matches.objects
    detection_mask, object_mask = (
        images[rows.image] & labels[rows.label] for rows in (detections, objects)
    )
    return matches._replace(
        detections=detection_errors.Detections(*(a[detection_mask] for a in detections)),
        objects=detection_errors.Objects(*(a[object_mask] for a in objects)),
    )


def _passing_detections(
    predictions: Mapping[str, np.ndarray], matches: detection_errors.Matches, threshold: float
) -> dict[str, np.ndarray]:
    """Return the detections that pass the threshold, and the number of errors in each image.

    "boxes" float32 [D, 4] in pixels of the file, "scores", "labels" and "image" [D]; "hits" int
    [N]: number of detected objects; "wrong" int [N]: number of missed objects and false positives.
    """
    detections = matches.detections
    passes = detections.score >= threshold
    image, slot = detections.image[passes], detections.slot[passes]
    hits = np.bincount(
        detections.image[passes & detections.true_positive], minlength=matches.images
    )
    _, num_errors = detection_errors.image_errors(matches, threshold)
    arrays = {
        name: np.asarray(predictions[name])[image, slot] for name in ("boxes", "scores", "labels")
    }
    return {**arrays, "image": image, "hits": hits, "wrong": num_errors}
