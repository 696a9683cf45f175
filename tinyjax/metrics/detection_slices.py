"""A detector on one suite, its slices and resamples of its images, all from one prediction."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from faster_coco_eval import COCOeval_faster

from tinyjax.metrics import detection_errors
from tinyjax.metrics.detection import evaluation, sizes, summary
from tinyjax.metrics.robustness import calibration_error
from tinyjax.metrics.slices import WHOLE, Examined, Slice

RECALLS = np.linspace(0, 1, 101)  # COCO's
LEAST = 0.1  # score of a detection that its calibration counts; our own choice: thousands below


def examine(
    predictions: Mapping[str, np.ndarray],
    truth: Mapping[str, Any],
    bins: Mapping[str, tuple[float, float]],
    slices: Mapping[str, Slice],
    counts: np.ndarray,
) -> Examined:
    """What `score` returns and the calibration error, of all images and of each slice; AP50 on
    resampled images; and what is detected above the operating point.

    predictions, truth, bins: see `score`. counts: int [B, N], how often each of B sets has an
    image.
    """
    found = evaluation(predictions, truth, bins)
    matches = detection_errors.match(predictions, truth)
    threshold = detection_errors.operating_point(detection_errors.curves(matches))
    whole = Slice(np.arange(matches.images))
    scores, replicates = {}, {}
    for name, part in {WHOLE: whole, **slices}.items():
        own = _truth(truth, part)
        if name != WHOLE:
            _narrow(found, part, truth)
        inside = _inside(matches, part)
        scores[name] = {
            **summary(found, truth, [*bins]),
            **sizes(own),
            "ECE": calibration(inside),
        }
        replicates[name] = resampled(inside, counts, part)
    return Examined(scores, replicates, _seen(predictions, matches, threshold))


def resampled(matches: detection_errors.Matches, counts: np.ndarray, part: Slice) -> np.ndarray:
    """AP50 on resampled images, float32 [B]: what `score` says where the images of a slice are
    there as often as `counts` has them. NaN of a set without an object.

    An image that is there twice has its detections and objects twice, which weights of 2 in the
    sums of true and false ones say as well.
    """
    seen, there = matches.detections, matches.objects
    classes = [
        k for k, name in enumerate(matches.classes) if name in (part.classes or matches.classes)
    ]
    found = np.full((len(classes), len(counts)), np.nan, np.float32)
    for row, k in enumerate(classes):
        own = np.flatnonzero((seen.label == k) & (seen.hit | seen.false))
        own = own[np.argsort(-seen.score[own], kind="stable")]
        hits = np.flatnonzero(seen.hit[own])
        own = own[: hits[-1] + 1] if len(hits) else own[:0]  # what comes after costs nothing
        many = counts[:, seen.image[own]]  # set detection
        true = np.cumsum(many[:, hits], axis=1)
        # those up to each hit, summed between two hits first: they are many, hits are few
        since = np.add.reduceat(many * seen.false[own], np.append(0, hits)[:-1], axis=1)
        false = np.cumsum(since, axis=1)
        objects = counts[:, there.image[there.label == k]].sum(1)
        precision = true / np.maximum(true + false, 1)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for b in np.flatnonzero(objects):
            at = np.searchsorted(true[b] / objects[b], RECALLS)
            found[row, b] = np.append(envelope[b], 0)[at].mean()
    known = ~np.isnan(found)
    total = np.where(known, found, 0).sum(0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan).astype(np.float32)


def calibration(matches: detection_errors.Matches) -> float:
    """Expected calibration error of the detections, see `calibration_error`."""
    seen = matches.detections
    judged = seen.hit | seen.false
    return calibration_error(seen.score[judged], seen.hit[judged], LEAST)


def _narrow(found: COCOeval_faster, part: Slice, truth: Mapping[str, Any]) -> None:
    """Evaluate a slice with what is loaded already: what was found before is gone then."""
    found.params.imgIds = part.images.tolist()
    found.params.catIds = [
        c["id"] for c in truth["categories"] if c["name"] in (part.classes or (c["name"],))
    ]
    found.evaluate()
    found.accumulate()


def _truth(truth: Mapping[str, Any], part: Slice) -> dict[str, Any]:
    """What of the truth is in a slice, to be counted."""
    images = {*part.images.tolist()}
    names = {c["id"]: c["name"] for c in truth["categories"]}
    return {
        "images": [truth["images"][i] for i in images],
        "annotations": [
            a
            for a in truth["annotations"]
            if a["image_id"] in images
            and (not part.classes or names[a["category_id"]] in part.classes)
        ],
    }


def _inside(matches: detection_errors.Matches, part: Slice) -> detection_errors.Matches:
    """Detections and objects of a slice's images and classes."""
    images = np.zeros(matches.images, bool)
    images[part.images] = True
    labels = np.array([name in (part.classes or matches.classes) for name in matches.classes])
    seen, there = matches.detections, matches.objects
    of_seen, of_there = (images[one.image] & labels[one.label] for one in (seen, there))
    return matches._replace(
        detections=detection_errors.Detections(*(a[of_seen] for a in seen)),
        objects=detection_errors.Objects(*(a[of_there] for a in there)),
    )


def _seen(
    predictions: Mapping[str, np.ndarray], matches: detection_errors.Matches, threshold: float
) -> dict[str, np.ndarray]:
    """Detections that pass, boxes float32 [D, 4] in pixels of the file, scores, labels and image
    [D]; of every image how many objects are found, `hits`, and how many are missed or falsely
    detected, `wrong`, int [N].
    """
    seen = matches.detections
    passes = seen.score >= threshold
    at = seen.image[passes], seen.slot[passes]
    hits = np.bincount(seen.image[passes & seen.hit], minlength=matches.images)
    _, wrong = detection_errors.errors(matches, threshold)
    arrays = {name: np.asarray(predictions[name])[at] for name in ("boxes", "scores", "labels")}
    return {**arrays, "image": at[0], "hits": hits, "wrong": wrong}
