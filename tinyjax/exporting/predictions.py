"""From the outputs of exported files to predictions of a task.

A file leaves decoding and suppression of boxes to its reader, unless it has them inside. Here they
are those of the detector's own functions.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from tinyjax.data.modality import MODALITIES
from tinyjax.detectors.nms import class_wise_nms
from tinyjax.exporting import two_stage
from tinyjax.exporting.runtimes import FileDescription, Runner
from tinyjax.inference.model import PredictFunctions
from tinyjax.population.prediction import predict_all
from tinyjax.tasks.detect import get_detector


def predict_samples(
    functions: PredictFunctions, inputs: Mapping[str, Any]
) -> list[dict[str, np.ndarray]]:
    """The predictions for N samples, in a list of one, see `predict_all`.

    Args:
        functions: one for all samples, or one for each modality.
        inputs: arrays [N, ...] by name, with "modality" if there is a function for each.
    """
    if "" in functions:
        return predict_all(*functions[""], inputs)
    modality = np.asarray(inputs["modality"])
    results: dict[str, np.ndarray] = {}
    for name, value in MODALITIES.items():
        rows = np.flatnonzero(modality == value)
        if not len(rows):
            continue
        selected = {key: array[rows] for key, array in inputs.items()}
        (outputs,) = predict_all(*functions[name], selected)
        for key, array in outputs.items():
            shape = (len(modality), *array.shape[1:])
            results.setdefault(key, np.zeros(shape, array.dtype))[rows] = array
    return [results]


def make_functions(
    files: Mapping[str, tuple[Runner, FileDescription]], config: ConfigDict
) -> PredictFunctions:
    """The files of a network, by the names of `functions.file_names`, as its predict functions.

    config: see `make_predict`.
    """
    if two_stage.RPN in files:
        return {"": (make_two_stage_predict(files, config), None)}
    return {name: (make_predict(*file, config), None) for name, file in files.items()}


def make_two_stage_predict(
    files: Mapping[str, tuple[Runner, FileDescription]], config: ConfigDict
) -> Callable[..., Mapping[str, Any]]:
    """As `make_predict`, for the components of a two-stage detector."""
    metadata = files[two_stage.RPN][1].metadata
    shape = metadata["input"]
    runs = {
        name: partial(_run_batches, run, batch=description.batch)
        for name, (run, description) in files.items()
    }
    image_size = shape["height"], shape["width"]
    predict = two_stage.make_predict(runs, config, len(metadata["classes"]), image_size)
    return lambda _, inputs: predict(np.asarray(inputs["image"]).astype(shape["dtype"], copy=False))


def make_predict(
    run: Runner, description: FileDescription, config: ConfigDict
) -> Callable[..., Mapping[str, Any]]:
    """A file as a `ModelFunctions.predict`, which ignores its variables.

    Args:
        run: the file in its runtime.
        config: of the run that the file comes from; its rules of suppression may differ.
    """
    dtype = description.metadata["input"]["dtype"]
    decode = make_decode(description.metadata, config)

    def predict(_: None, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        images = np.asarray(inputs["image"]).astype(dtype, copy=False)
        return decode(_run_batches(run, images, description.batch))

    return predict


def make_decode(
    metadata: Mapping[str, Any], config: ConfigDict
) -> Callable[[Mapping[str, np.ndarray]], Mapping[str, Any]]:
    """The function from outputs of a file to predictions of its task."""
    if config.task != "detect":
        return dict
    if metadata["outputs"] == "detections":
        return _split_detections
    if metadata["outputs"] == "boxes":
        return jax.jit(lambda x: class_wise_nms(x["scores"], x["boxes"], **config.nms))
    size = metadata["input"]["height"], metadata["input"]["width"]
    detector = get_detector(config)
    flatten = partial(flatten_levels, strides=config.model.strides, classes=metadata["classes"])
    return jax.jit(lambda x: detector.decode(flatten(x), size, config))


def flatten_levels(
    outputs: Mapping[str, Array], strides: Iterable[int], classes: Iterable[str]
) -> tuple[Array, ...]:
    """Raw outputs <name>_<stride> f32[N, h, w, A n] -> f32[N, all anchors, n] of each name: the
    outputs of a detector's network, logits first. n: classes for logits, 4 for boxes.
    """
    names = dict.fromkeys(name.rpartition("_")[0] for name in outputs)
    widths = {name: len([*classes]) if name == "logits" else 4 for name in names}
    flat = {
        name: jnp.concatenate(
            [(x := outputs[f"{name}_{s}"]).reshape(len(x), -1, n) for s in strides], axis=1
        )
        for name, n in widths.items()
    }
    return flat.pop("logits"), *flat.values()


def _run_batches(run: Runner, images: np.ndarray, batch: int | None) -> dict[str, np.ndarray]:
    """The outputs for N images of a file with any number of images per call, or `batch`."""
    if batch is None or batch == len(images):
        return run(images)
    outputs = []
    for start in range(0, len(images), batch):
        rows = np.minimum(np.arange(start, start + batch), len(images) - 1)
        outputs.append(run(images[rows]))
    joined = {name: np.concatenate([rows[name] for rows in outputs]) for name in outputs[0]}
    return {name: array[: len(images)] for name, array in joined.items()}


def _split_detections(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    rows = outputs["detections"]
    return {"boxes": rows[..., :4], "scores": rows[..., 4], "labels": rows[..., 5].astype(np.int32)}
