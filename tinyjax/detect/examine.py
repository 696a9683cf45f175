"""A detector on one suite, its slices and resamples of its images, all from one matching."""

from collections.abc import Mapping
from contextlib import redirect_stdout
from copy import copy
from io import StringIO
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from tinyjax.detect import analyse
from tinyjax.detect.score import evaluate, ranges, sizes, summary
from tinyjax.robust.examine import WHOLE, Examined, Slice
from tinyjax.robust.numbers import calibration_error

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
    evaluation = evaluate(predictions, truth, **ranges(bins))
    matches = analyse.matches_of(evaluation, predictions, truth)
    threshold = analyse.operating_point(analyse.curves(matches))
    whole = Slice(np.arange(matches.images))
    scores, replicates = {}, {}
    for name, part in {WHOLE: whole, **slices}.items():
        own = _truth(truth, part)
        of_part = evaluation if name == WHOLE else _within(evaluation, part, matches.classes)
        inside = _inside(matches, part)
        scores[name] = {
            **summary(of_part, truth, [*bins]),
            **sizes(own),
            "ECE": calibration(inside),
        }
        replicates[name] = resampled(inside, counts, part)
    return Examined(scores, replicates, _seen(predictions, matches, threshold))


def resampled(matches: analyse.Matches, counts: np.ndarray, part: Slice) -> np.ndarray:
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
        false = np.cumsum(many * seen.false[own], axis=1)[:, hits]
        objects = counts[:, there.image[there.label == k]].sum(1)
        precision = true / np.maximum(true + false, 1)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        for b in np.flatnonzero(objects):
            at = np.searchsorted(true[b] / objects[b], RECALLS)
            found[row, b] = np.append(envelope[b], 0)[at].mean()
    known = ~np.isnan(found)
    total = np.where(known, found, 0).sum(0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan).astype(np.float32)


def calibration(matches: analyse.Matches) -> float:
    """Expected calibration error of the detections, see `calibration_error`."""
    seen = matches.detections
    judged = seen.hit | seen.false
    return calibration_error(seen.score[judged], seen.hit[judged], LEAST)


def _within(evaluation: COCOeval, part: Slice, classes: tuple[str, ...]) -> COCOeval:
    """The evaluation of a slice, from what was matched in all images."""
    found, params = copy(evaluation), copy(evaluation.params)
    areas, images = len(params.areaRng), len(params.imgIds)
    kept = [k for k, name in enumerate(classes) if name in (part.classes or classes)]
    # pycocotools lists (class, range, image), the last fastest
    found.evalImgs = [
        evaluation.evalImgs[(k * areas + a) * images + i]
        for k in kept
        for a in range(areas)
        for i in part.images
    ]
    params.imgIds = [params.imgIds[i] for i in part.images]
    params.catIds = [params.catIds[k] for k in kept]
    found.params = found._paramsEval = params
    with redirect_stdout(StringIO()):
        found.accumulate()
    return found


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


def _inside(matches: analyse.Matches, part: Slice) -> analyse.Matches:
    """Detections and objects of a slice's images and classes."""
    images = np.zeros(matches.images, bool)
    images[part.images] = True
    labels = np.array([name in (part.classes or matches.classes) for name in matches.classes])
    seen, there = matches.detections, matches.objects
    of_seen, of_there = (images[one.image] & labels[one.label] for one in (seen, there))
    return matches._replace(
        detections=analyse.Detections(*(a[of_seen] for a in seen)),
        objects=analyse.Objects(*(a[of_there] for a in there)),
    )


def _seen(
    predictions: Mapping[str, np.ndarray], matches: analyse.Matches, threshold: float
) -> dict[str, np.ndarray]:
    """Detections that pass, boxes float32 [D, 4] in pixels of the file, scores, labels and image
    [D]; of every image how many objects are found, `hits`, and how many are missed or falsely
    detected, `wrong`, int [N].
    """
    seen = matches.detections
    passes = seen.score >= threshold
    at = seen.image[passes], seen.slot[passes]
    hits = np.bincount(seen.image[passes & seen.hit], minlength=matches.images)
    _, wrong = analyse.errors(matches, threshold)
    arrays = {name: np.asarray(predictions[name])[at] for name in ("boxes", "scores", "labels")}
    return {**arrays, "image": at[0], "hits": hits, "wrong": wrong}
