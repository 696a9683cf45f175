"""How well an integer file agrees with the float32 file that it was made from, on training images.

    agreement = make_agreement(config, function, file, inputs)
    agreement(integers)  # greater is better

The error of the outputs is not enough for a detector: most of its cells are background, and boxes
that overlap compete. The detections of the float32 file therefore take the place of labels.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from tinyjax.exporting import runtimes
from tinyjax.exporting.activations import Inputs
from tinyjax.exporting.functions import ExportedFunction
from tinyjax.exporting.predictions import make_predict, predict_samples
from tinyjax.exporting.runtimes import FileDescription
from tinyjax.metrics import detection

Agreement = Callable[[bytes], float]
Outputs = list[dict[str, np.ndarray]]  # of each batch, by name

DETECTIONS_PER_IMAGE = 8  # on average


def make_agreement(
    config: ConfigDict, function: ExportedFunction, file: bytes, inputs: Inputs
) -> Agreement:
    """The function that says how well an integer file agrees with a float32 file.

    For a single-stage detector: AP50, where the best detections of the float32 file are objects.
    Otherwise, and for a detector without detections: minus the error of the outputs.
    """
    is_single_stage = config.task == "detect" and "component" not in function.metadata
    agreement = (
        _agreement_of_detections(config, function, file, inputs) if is_single_stage else None
    )
    if agreement:
        return agreement
    expected = run_file(file, inputs)
    return lambda integers: -output_error(expected, run_file(integers, inputs))


def _agreement_of_detections(
    config: ConfigDict, function: ExportedFunction, file: bytes, inputs: Inputs
) -> Agreement | None:
    """None if the float32 file has no detections."""
    images = np.concatenate(inputs)
    read = {**function.metadata["input"], "dtype": "float32"}
    description = FileDescription({**function.metadata, "input": read}, len(inputs[0]))

    def detect(content: bytes) -> dict[str, np.ndarray]:
        predict = make_predict(runtimes.load_litert(content), description, config)
        (predictions,) = predict_samples({"": (predict, None)}, {"image": images})
        return predictions

    truth = as_truth(detect(file), function.metadata)
    if not truth["annotations"]:
        return None
    return lambda integers: detection.score(detect(integers), truth, {})["AP50"]


def as_truth(predictions: Mapping[str, np.ndarray], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A COCO dict in which the best detections of all images together are objects.

    predictions: see `detection.score`. metadata: of the file.
    """
    image, slot = detection.nonempty_slots(predictions)
    size = {name: metadata["input"][name] for name in ("width", "height")}
    count = len(predictions["scores"])
    best = np.argsort(-predictions["scores"][image, slot], kind="stable")
    best = best[: DETECTIONS_PER_IMAGE * count]
    rows = image[best], slot[best]
    boxes, labels = predictions["boxes"][rows], predictions["labels"][rows]
    sides = boxes[:, 2:] - boxes[:, :2]
    annotations = [
        {
            "image_id": int(i),
            "category_id": int(label) + 1,
            "bbox": [*map(float, (*corner, *side))],
            "area": float(side.prod()),
            "iscrowd": 0,
        }
        for i, label, corner, side in zip(rows[0], labels, boxes[:, :2], sides, strict=True)
    ]
    return {
        "images": [{"id": i, **size} for i in range(count)],
        "annotations": annotations,
        "categories": [{"id": k, "name": c} for k, c in enumerate(metadata["classes"], 1)],
    }


def run_file(file: bytes, inputs: Inputs) -> Outputs:
    """The outputs of a file, float32, or dequantized."""
    run = runtimes.load_litert(file)
    return [run(batch) for batch in inputs]


def output_error(expected: Outputs, actual: Outputs) -> float:
    """The greatest, over outputs, of root mean square difference / standard deviation.

    The mean over the cells of a detector is weighted by their highest score: most cells are
    background, and whether its logit is -9 or -7 hardly matters.
    """

    def relative(name: str) -> float:
        x, y = (np.stack([outputs[name] for outputs in each]) for each in (expected, actual))
        weights = np.ones_like(x)
        logits = f"logits_{name.rpartition('_')[2]}"  # of the same stride
        if logits in expected[0]:
            scores = 1 / (1 + np.exp(-np.stack([outputs[logits] for outputs in expected])))
            weights = weights * scores.max(-1, keepdims=True)
        return float(np.sqrt(np.average(np.square(x - y), weights=weights)) / max(x.std(), 1e-12))

    return max(map(relative, expected[0]))
