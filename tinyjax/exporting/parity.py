"""Proof that a file computes what the network computes, on images of a suite and on random ones."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from tinyjax.core import Split
from tinyjax.data.modality import MODALITIES
from tinyjax.exporting.functions import ExportedFunction
from tinyjax.exporting.runtimes import Runner
from tinyjax.inference.model import Model

MAX_RELATIVE_DIFFERENCE = 1e-3  # of an output's largest value; float32 alone explains 1e-5


def proof_images(
    model: Model, split: Split | None, count: int, modality: str = ""
) -> dict[str, np.ndarray]:
    """Name of a source -> at most `count` images uint8 [n, H, W, C]: random pixels, and those of
    `split`, the suite that selects the run's best weights, unless it is None.
    """
    shape = model.input_shape
    images = {"random": np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)}
    if split is not None:
        rows = np.arange(len(split.names))
        if modality:
            rows = rows[np.asarray(split.inputs["modality"]) == MODALITIES[modality]]
        images[model.config.monitor] = np.asarray(split.inputs["image"][rows[:count]])
    return images


def compare(
    expected: Callable[[np.ndarray], Mapping[str, Any]],
    actual: Runner,
    images: Mapping[str, np.ndarray],
    dtype: str,
    batch: int = 1,
) -> dict[str, Any]:
    """The greatest differences between two functions, as JSON types.

    Args:
        expected, actual: images of `dtype` [batch, H, W, C] -> outputs by name.
        images: see `proof_images`; a last incomplete batch is left out, unless it is the only one.

    Returns:
        {"images": {source: count}, "outputs": {name: {"max_difference", "max_value", "relative"}}},
        where relative is the quotient of the two.
    """
    outputs: dict[str, dict[str, float]] = {}
    counts = dict.fromkeys(images, 0)
    for source, pixels in images.items():
        for rows in _batches(pixels.astype(dtype), batch):
            counts[source] += len(rows)
            outputs_of_file = actual(rows)
            for name, value in jax.device_get(dict(expected(rows))).items():
                _record(outputs.setdefault(name, {}), value, outputs_of_file[name])
    for row in outputs.values():
        row["relative"] = row["max_difference"] / max(row["max_value"], 1e-6)
    return {"images": counts, "outputs": outputs}


def greatest(parity: Mapping[str, Any]) -> float:
    """The greatest relative difference of all outputs."""
    return max(row["relative"] for row in parity["outputs"].values())


def make_expected(function: ExportedFunction) -> Callable[[np.ndarray], Mapping[str, Any]]:
    """The function of the network, compiled."""
    return jax.jit(function.call)


def ranked_scores(model: Model) -> Callable[[np.ndarray], Mapping[str, Any]]:
    """The run's own detections as scores f32[N, K] in descending order; in this form, detections
    with equal scores may change places.
    """
    predict, variables = model.predict_functions[""]
    return lambda images: {"scores": predict(variables, {"image": images})["scores"]}


def _batches(pixels: np.ndarray, batch: int) -> list[np.ndarray]:
    if len(pixels) < batch:
        pixels = np.resize(pixels, (batch, *pixels.shape[1:]))
    return [pixels[i : i + batch] for i in range(0, len(pixels) - batch + 1, batch)]


def _record(row: dict[str, float], expected: np.ndarray, actual: np.ndarray) -> None:
    if expected.shape != actual.shape:
        raise ValueError(f"outputs of shapes {expected.shape} and {actual.shape}")
    difference = np.abs(expected.astype(np.float64) - actual).max(initial=0)
    row["max_difference"] = max(row.get("max_difference", 0), float(difference))
    row["max_value"] = max(row.get("max_value", 0), float(np.abs(expected).max(initial=0)))
