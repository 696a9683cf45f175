"""COCO scores of detections, and the processes that compute them.

faster-coco-eval computes the same scores as pycocotools (tests/metrics/test_detection_slices.py) in
a sixth of the time. Run as a program, this module is a worker of `run_in_processes`.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster

MAX_DETECTIONS = 100  # per image and class
AT50, AT75 = 0, 5  # indices in COCO's IoU thresholds, 0.50, 0.55 .. 0.95


def score(
    predictions: Mapping[str, np.ndarray],
    truth: Mapping[str, Any],
    bins: Mapping[str, tuple[float, float]],
) -> dict[str, float]:
    """Return the average precision over IoU 0.50:0.05:0.95 (Lin et al., Microsoft COCO, 2014).

    Args:
        predictions: "boxes" float32 [N, K, 4], xyxy in original pixels; "scores" float32 [N, K],
            where 0 or less marks an empty slot; "labels" int32 [N, K], 0-based. A slot with a
            non-finite score or box counts as empty, so that the score of a diverged member is 0.
        truth: COCO dict in original pixels; image ids are 0..N-1, category ids are label + 1. An
            ignored region has a crowd annotation for each class.
        bins: name -> (low, high), half-open range of sqrt(area) in original pixels.

    Returns:
        "AP", "AP50", "AP75", "AR100"; "AP/x" and "AP50/x" for each class and each bin x; "images"
        and "boxes", the numbers of images and of objects. Scores of classes and bins without
        objects are NaN; the means ignore them.

    Raises:
        ValueError: predictions and truth differ in the number of images, or a label is not a class.
    """
    evaluation = evaluate(predictions, truth, bins)
    return {**summarize(evaluation, truth, [*bins]), **count_images_and_boxes(truth)}


def evaluate(
    predictions: Mapping[str, np.ndarray],
    truth: Mapping[str, Any],
    bins: Mapping[str, tuple[float, float]],
) -> COCOeval_faster:
    """Evaluate all objects and each bin; for arguments and errors see `score`."""
    return evaluate_areas(predictions, truth, half_open_areas(bins))


def evaluate_areas(
    predictions: Mapping[str, np.ndarray],
    truth: Mapping[str, Any],
    areas: Mapping[str, tuple[float, float]],
    max_detections: int = MAX_DETECTIONS,
    lvis_style: bool = False,
    category_ids: Sequence[int] = (),
) -> COCOeval_faster:
    """Evaluate all objects, and those in each closed range of `areas` in px^2.

    max_detections: per image and class. lvis_style: with the rules of federated labels.
    category_ids: of the classes to evaluate; (): all. For the other arguments see `score`.
    """
    coco = load_coco(predictions, truth, COCO)
    evaluation = COCOeval_faster(*coco, "bbox", print_function=_no_print, lvis_style=lvis_style)
    evaluation.params.maxDets = [max_detections]
    evaluation.params.areaRng = [(0.0, np.inf), *areas.values()]
    evaluation.params.areaRngLbl = ["all", *areas]
    if category_ids:
        evaluation.params.catIds = [*category_ids]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def summarize(
    evaluation: COCOeval_faster, truth: Mapping[str, Any], bins: Sequence[str]
) -> dict[str, float]:
    """Return the scores that `score` returns, without the counts."""
    precision = evaluation.eval["precision"][..., 0]  # iou recall class area
    names = {c["id"]: c["name"] for c in truth["categories"]}
    scores = average_precisions(precision, [names[i] for i in evaluation.params.catIds], bins)
    scores["AR100"] = mean_precision(evaluation.eval["recall"][:, :, 0, 0])  # iou class
    return scores


def average_precisions(
    precision: np.ndarray, classes: Sequence[str], bins: Sequence[str]
) -> dict[str, float]:
    """Return "AP", "AP50", "AP75", and "AP/x" and "AP50/x" for each class and bin x.

    precision: float64 [T, R, C, A], at COCO's IoU thresholds and recalls; -1 where a class has no
        objects. The areas are those of all objects, then of the bins; further ones are ignored.
    """
    all_sizes = precision[..., 0]
    subsets = {name: all_sizes[:, :, k] for k, name in enumerate(classes)}
    subsets |= {name: precision[..., a] for a, name in enumerate(bins, start=1)}
    scores = {
        "AP": mean_precision(all_sizes),
        "AP50": mean_precision(all_sizes[AT50]),
        "AP75": mean_precision(all_sizes[AT75]),
    }
    for name, subset in subsets.items():
        scores |= {f"AP/{name}": mean_precision(subset)}
        scores |= {f"AP50/{name}": mean_precision(subset[AT50])}
    return scores


def count_images_and_boxes(truth: Mapping[str, Any]) -> dict[str, float]:
    """Return the number of "images", and of "boxes" (objects)."""
    objects = sum(not a["iscrowd"] for a in truth["annotations"])
    return {"images": float(len(truth["images"])), "boxes": float(objects)}


def run_in_processes(jobs: Sequence[tuple], function: str = f"{__name__}:score") -> list[Any]:
    """Call "module:function" with the arguments of each job, in as many processes as cores.

    Scoring one network takes seconds; in one process, the device would be idle for minutes while a
    population is scored. The processes are started by subprocess, because multiprocessing would
    import the caller's script again.
    """
    workers = min(len(jobs), os.cpu_count() or 1)
    if workers == 1:
        return [_import_function(function)(*job) for job in jobs]
    worker_jobs = [jobs[i::workers] for i in range(workers)]
    with ThreadPoolExecutor(workers) as threads:
        results = [*threads.map(_run_worker, [function] * workers, worker_jobs)]
    return [results[i % workers][i // workers] for i in range(len(jobs))]


def _import_function(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def _run_worker(function: str, jobs: Sequence[tuple]) -> list[Any]:
    worker = subprocess.run(
        [sys.executable, "-m", "tinyjax.metrics.detection"],
        input=pickle.dumps((function, jobs)),
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,  # only the main process handles Ctrl-C
    )
    return pickle.loads(worker.stdout)


def nonempty_slots(predictions: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return image and slot, int [D] each, of the detections in nonempty slots."""
    scores, boxes = (np.asarray(predictions[name]) for name in ("scores", "boxes"))
    image, slot = np.nonzero((scores > 0) & np.isfinite(scores) & np.isfinite(boxes).all(-1))
    return image, slot


def prediction_arrays(
    predictions: Mapping[str, np.ndarray], truth: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the image, box (float64 [D, 4]), score and label of detections in nonempty slots.

    Raises the ValueErrors of `score`.
    """
    if (n := len(predictions["boxes"])) != len(truth["images"]):
        raise ValueError(f"predictions for {n} images, but truth has {len(truth['images'])} images")

    image, slot = nonempty_slots(predictions)
    boxes, scores, labels = (
        np.asarray(predictions[name])[image, slot] for name in ("boxes", "scores", "labels")
    )
    if not set(np.unique(labels)) <= {c["id"] - 1 for c in truth["categories"]}:
        raise ValueError(
            f"labels {np.unique(labels)}, but truth has {len(truth['categories'])} classes"
        )
    return image, boxes.astype(np.float64), scores, labels


def load_coco(
    predictions: Mapping[str, np.ndarray], truth: Mapping[str, Any], api: type[Any]
) -> tuple[Any, Any]:
    """Return truth and detections as instances of `api`, an evaluation package's `COCO` class.

    Annotation ids are 1 + the index in `truth["annotations"]`, because 0 means "no match";
    detection ids are 1 + the index in `nonempty_slots(predictions)`.

    Raises the ValueErrors of `score`.
    """
    image, boxes, scores, labels = prediction_arrays(predictions, truth)
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
    # Copy, because the packages modify annotations.
    objects = [{**a, "id": i} for i, a in enumerate(truth["annotations"], start=1)]
    result = (api(), api())
    for coco, annotations in zip(result, (objects, detections), strict=True):
        coco.dataset = {**truth, "annotations": annotations}
        coco.createIndex()
    return result


def half_open_areas(bins: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Convert [low, high) in sides of a square to the closed area ranges of pycocotools."""
    return {
        name: (low**2, float(np.nextafter(high**2, -np.inf))) for name, (low, high) in bins.items()
    }


def _no_print(*_: object) -> None:
    """Replace the print function of the package, which would print for each evaluation."""


def mean_precision(values: np.ndarray) -> float:
    """Return the mean without -1, pycocotools' value for a class or bin without objects."""
    values = values[values > -1]
    return float(values.mean()) if values.size else float("nan")


if __name__ == "__main__":
    function, jobs = pickle.load(sys.stdin.buffer)
    pickle.dump([_import_function(function)(*job) for job in jobs], sys.stdout.buffer)
