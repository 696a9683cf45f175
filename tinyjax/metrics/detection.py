"""Scores of detections, by faster-coco-eval: pycocotools' numbers in a sixth of its time
(tests/metrics/test_detection_slices.py). As a program it is a worker of `score_each`.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

MAX_DETECTIONS = 100  # per image and class


def score(
    predictions: Mapping[str, np.ndarray],
    truth: Mapping[str, Any],
    bins: Mapping[str, tuple[float, float]],
) -> dict[str, float]:
    """Average precision over IoU 0.50:0.05:0.95 (Lin et al., Microsoft COCO, 2014).

    Args:
        predictions: "boxes" float32 [N, K, 4], xyxy in original pixels; "scores" float32 [N, K],
            where 0 or less marks an empty slot; "labels" int32 [N, K], 0-based. A slot whose score
            or box is not finite is empty too: a diverged member scores 0.
        truth: COCO dict in original pixels, image ids 0..N-1 and category ids label + 1. A
            don't-care region is one crowd annotation of every class.
        bins: name -> (low, high), half-open, of sqrt(area) in original pixels.

    Returns:
        "AP", "AP50", "AP75", "AR100"; "AP/x" and "AP50/x" for every class and every bin x; "images"
        and "boxes", the counts of images and of objects. NaN where there is no object to find; such
        classes and bins stay out of the means.

    Raises:
        ValueError: the predictions are not of these images or name a class that there is not.
    """
    return {**summary(evaluation(predictions, truth, bins), truth, [*bins]), **sizes(truth)}


def evaluation(
    predictions: Mapping[str, np.ndarray],
    truth: Mapping[str, Any],
    bins: Mapping[str, tuple[float, float]],
) -> COCOeval_faster:
    """The evaluation of what `score` takes, of everything and of every bin; raises as it does."""
    found = COCOeval_faster(*loaded(predictions, truth, COCO), "bbox", print_function=_unsaid)
    found.params.maxDets = [MAX_DETECTIONS]
    found.params.areaRng = [(0.0, np.inf), *map(_areas, bins.values())]
    found.params.areaRngLbl = ["all", *bins]
    found.evaluate()
    found.accumulate()
    return found


def summary(
    found: COCOeval_faster, truth: Mapping[str, Any], bins: Sequence[str]
) -> dict[str, float]:
    """What `score` returns of an evaluation with its bins, but counts."""
    thresholds = found.params.iouThrs
    at50, at75 = np.searchsorted(thresholds, [0.5 - 1e-6, 0.75 - 1e-6])
    precision = found.eval["precision"][..., 0]  # iou recall class area
    names = {c["id"]: c["name"] for c in truth["categories"]}
    whole = precision[..., 0]
    parts = {names[i]: whole[:, :, k] for k, i in enumerate(found.params.catIds)}
    parts |= {name: precision[..., a] for a, name in enumerate(bins, start=1)}

    scores = {"AP": _mean(whole), "AP50": _mean(whole[at50]), "AP75": _mean(whole[at75])}
    for name, part in parts.items():
        scores |= {f"AP/{name}": _mean(part), f"AP50/{name}": _mean(part[at50])}
    scores["AR100"] = _mean(found.eval["recall"][:, :, 0, 0])  # iou class
    return scores


def sizes(truth: Mapping[str, Any]) -> dict[str, float]:
    """Counts of images and of objects."""
    objects = sum(not a["iscrowd"] for a in truth["annotations"])
    return {"images": float(len(truth["images"])), "boxes": float(objects)}


def score_each(jobs: Sequence[tuple], work: str = f"{__name__}:score") -> list[Any]:
    """`score` of the arguments of each job, or another function "module:name", in as many processes
    as there are cores.

    Of a network it takes seconds, and of a population minutes in which a device would wait. The
    processes are plain ones: those of multiprocessing run a caller's script once more.
    """
    workers = min(len(jobs), os.cpu_count() or 1)
    if workers == 1:
        return [_named(work)(*job) for job in jobs]
    with ThreadPoolExecutor(workers) as threads:
        parts = [
            *threads.map(_elsewhere, [work] * workers, [jobs[i::workers] for i in range(workers)])
        ]
    return [parts[i % workers][i // workers] for i in range(len(jobs))]


def _named(work):
    module, _, name = work.partition(":")
    return getattr(import_module(module), name)


def _elsewhere(work, jobs):
    done = subprocess.run(
        [sys.executable, "-m", "tinyjax.metrics.detection"],
        input=pickle.dumps((work, jobs)),
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,  # Ctrl-C is the trainer's to answer
    )
    return pickle.loads(done.stdout)


def filled(predictions: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Image and slot, int [D] each, of every detection that is scored."""
    scores, boxes = (np.asarray(predictions[name]) for name in ("scores", "boxes"))
    image, slot = np.nonzero((scores > 0) & np.isfinite(scores) & np.isfinite(boxes).all(-1))
    return image, slot


def loaded(
    predictions: Mapping[str, np.ndarray], truth: Mapping[str, Any], api: type[Any]
) -> tuple[Any, Any]:
    """Truth and detections as the `COCO` of a package. Its annotation ids are 1 + the place in
    `truth["annotations"]` (0 says "no match"), its detection ids 1 + that in `filled(predictions)`.

    Raises ValueError as `score` does.
    """
    if (n := len(predictions["boxes"])) != len(truth["images"]):
        raise ValueError(f"predictions of {n} images for {len(truth['images'])} images")

    image, slot = filled(predictions)
    boxes, scores, labels = (
        np.asarray(predictions[name])[image, slot] for name in ("boxes", "scores", "labels")
    )
    boxes = boxes.astype(np.float64)
    if not set(np.unique(labels)) <= {c["id"] - 1 for c in truth["categories"]}:
        raise ValueError(f"labels {np.unique(labels)} for {len(truth['categories'])} classes")

    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], 0)
    rows = zip(
        image.tolist(),
        (labels + 1).tolist(),
        np.concatenate([boxes[:, :2], sides], -1).tolist(),
        sides.prod(-1).tolist(),
        scores.tolist(),
        strict=True,
    )
    keys = ("image_id", "category_id", "bbox", "area", "score", "id")
    detections = [dict(zip(keys, (*r, i), strict=True)) for i, r in enumerate(rows, 1)]
    # Copies: the packages write into annotations.
    objects = [{**a, "id": i} for i, a in enumerate(truth["annotations"], start=1)]
    found = (api(), api())
    for coco, annotations in zip(found, (objects, detections), strict=True):
        coco.dataset = {**truth, "annotations": annotations}
        coco.createIndex()
    return found


def _areas(sides: tuple[float, float]) -> tuple[float, float]:
    """[low, high) in sides of a square -> the closed range of areas that pycocotools wants."""
    low, high = sides
    return low**2, np.nextafter(high**2, -np.inf)


def _unsaid(*_: object) -> None:
    """Instead of what the package logs of each evaluation."""


def _mean(values: np.ndarray) -> float:
    """pycocotools writes -1 where a class or bin has no object."""
    values = values[values > -1]
    return float(values.mean()) if values.size else float("nan")


if __name__ == "__main__":
    work, jobs = pickle.load(sys.stdin.buffer)
    pickle.dump([_named(work)(*job) for job in jobs], sys.stdout.buffer)
