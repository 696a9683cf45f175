"""Exported files as trained networks: with the predictions of the run that they come from.

    network = open_network(Path("mine.onnx"))
    predict, _ = network.functions[""]
    predict(None, {"image": images})  # {"boxes": .., "scores": .., "labels": ..}

The runtime of the file computes its outputs. What a file leaves to its reader, the decoding and
suppression of boxes, is computed by the functions of the detector.
"""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from ml_collections import ConfigDict

from tinyjax import config as configs
from tinyjax.config.parsing import PREFIX
from tinyjax.data.modality import MODALITIES
from tinyjax.detectors.nms import class_wise_nms
from tinyjax.errors import UserError, shorten
from tinyjax.exporting import runtimes
from tinyjax.exporting.formats import FORMATS
from tinyjax.exporting.runtimes import FileDescription, Runner
from tinyjax.inference.model import PredictFunctions
from tinyjax.population.prediction import predict_all
from tinyjax.tasks.detect import get_detector

REQUIRED = ("task", "classes", "input", "config")  # keys of the metadata
FIXED_FIELDS = ("model.", "task", "predict.", "score.feature")  # part of what a file computes


class FileNetwork(NamedTuple):
    """A network in one file, or in a file for each modality."""

    path: Path  # as it was given to tinyjax.export: without a modality
    config: ConfigDict  # of the run
    metadata: dict[str, Any]  # inputs, classes, trained_on: as in the metadata of weights
    functions: PredictFunctions

    def predict(self, inputs: Mapping[str, Any]) -> list[dict[str, np.ndarray]]:
        """The predictions for N samples, in a list of one, see `predict_all`.

        inputs: arrays [N, ...] by name, with "modality" if there is a file for each.
        """
        if "" in self.functions:
            return predict_all(*self.functions[""], inputs)
        modality = np.asarray(inputs["modality"])
        results: dict[str, np.ndarray] = {}
        for name, value in MODALITIES.items():
            rows = np.flatnonzero(modality == value)
            if not len(rows):
                continue
            selected = {key: array[rows] for key, array in inputs.items()}
            (outputs,) = predict_all(*self.functions[name], selected)
            for key, array in outputs.items():
                shape = (len(modality), *array.shape[1:])
                results.setdefault(key, np.zeros(shape, array.dtype))[rows] = array
        return [results]


def open_network(path: Path, overrides: Iterable[str] = ()) -> FileNetwork:
    """The network in a file of `tinyjax.export`, computed on all cores that this process may use.

    Args:
        path: the file; for recognition, that of either modality, or the path that was given to
            tinyjax.export.
        overrides: changes of the run's config, such as "nms.iou_threshold=0.6".

    Raises UserError for a suffix that is not in FORMATS, for files that are missing, broken or not
    written by tinyjax.export, for overrides of what the file computes, and if the runtime is not
    installed.
    """
    base, descriptions = _find_files(path)
    (_, (first, _)), *_ = descriptions.values()
    config = _override(path, first, overrides)
    functions = {
        modality: (_make_predict(file, description, config), None)
        for modality, (file, description) in descriptions.items()
    }
    shape = _input_shape(first)
    metadata = {
        "inputs": {"image": shape, **({} if "" in descriptions else {"modality": ()})},
        "classes": tuple(first["classes"]),
        "trained_on": tuple(first.get("trained_on", ())),
    }
    return FileNetwork(base, config, metadata, functions)


# ---- files


def describe(file: Path) -> FileDescription:
    """The description of a file of tinyjax.export. Raises UserError as `open_network` does."""
    check_suffix(file)
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    description = FORMATS[file.suffix].describe(file)
    metadata = description.metadata
    required = (*REQUIRED, "outputs") if metadata.get("task") == "detect" else REQUIRED
    if missing := [name for name in required if name not in metadata]:
        raise UserError(
            f"{file}: no {missing[0]!r} in its metadata, so that it was not written by this "
            "version of tinyjax.export; export the network again"
        )
    try:
        _input_shape(metadata)
        configs.from_run(metadata["config"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{file}: its metadata is damaged ({error!r}); export the network again"
        ) from error
    return description


def check_suffix(file: Path) -> None:
    """Raise UserError if files with this suffix are not read."""
    if file.suffix not in FORMATS:
        known = ", ".join(FORMATS)
        raise UserError(f"{file}: not a file of tinyjax.export; give one that ends in {known}")


def with_modality(file: Path, modality: str) -> Path:
    """The file of a modality: a-visible.onnx for a.onnx."""
    return file.with_stem(f"{file.stem}-{modality}")


def _find_files(path: Path) -> tuple[Path, dict[str, tuple[Path, FileDescription]]]:
    """The path without a modality, and the files and descriptions of a network, by modality."""
    first, *_ = MODALITIES
    if not path.is_file() and with_modality(path, first).is_file():
        path = with_modality(path, first)
    description = describe(path)
    if not (modality := description.metadata.get("modality", "")):
        return path, {"": (path, description)}
    base = path.with_stem(path.stem.removesuffix(f"-{modality}"))
    files = {name: path if name == modality else with_modality(base, name) for name in MODALITIES}
    descriptions = {name: (file, describe(file)) for name, file in files.items()}
    for name, (file, other) in descriptions.items():
        if other.metadata != {**description.metadata, "modality": name}:
            raise UserError(
                f"{file}: not the {name} file of the network in {path}; give the two files of one "
                "export"
            )
    return base, descriptions


def _input_shape(metadata: Mapping[str, Any]) -> tuple[int, int, int]:
    shape = metadata["input"]
    return shape["height"], shape["width"], shape["channels"]


def _override(path: Path, metadata: Mapping[str, Any], overrides: Iterable[str]) -> ConfigDict:
    """The config of the run with overrides. Raises UserError for fields that the file computes."""
    has_nms = metadata.get("outputs") == "detections"
    fixed = (*FIXED_FIELDS, "nms.") if has_nms else FIXED_FIELDS
    overrides = [*overrides]
    if parts := [text for text in overrides if text.removeprefix(PREFIX).startswith(fixed)]:
        raise UserError(
            f"{shorten(parts)}: part of what {path} computes; give this to tinyjax.export"
        )
    return configs.override(configs.from_run(metadata["config"]), overrides)


# ---- predictions


def _make_predict(
    file: Path, description: FileDescription, config: ConfigDict
) -> Callable[..., Mapping[str, Any]]:
    """A `ModelFunctions.predict` that ignores its variables."""
    metadata = description.metadata
    run = FORMATS[file.suffix].load(file, runtimes.all_cores())
    decode = _make_decode(metadata, config)

    def predict(_: None, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        images = np.asarray(inputs["image"]).astype(metadata["input"]["dtype"], copy=False)
        return decode(_run_batches(run, images, description.batch))

    return predict


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


def _make_decode(
    metadata: Mapping[str, Any], config: ConfigDict
) -> Callable[[Mapping[str, np.ndarray]], Mapping[str, Any]]:
    """The function from outputs of a file to predictions of its task."""
    if config.task != "detect":
        return dict
    if metadata["outputs"] == "detections":
        return _split_detections
    if metadata["outputs"] == "boxes":
        return jax.jit(lambda x: class_wise_nms(x["scores"], x["boxes"], **config.nms))
    detector, (height, width, _) = get_detector(config), _input_shape(metadata)
    flatten = partial(_flatten_levels, strides=config.model.strides, classes=metadata["classes"])
    return jax.jit(lambda x: detector.decode(flatten(x), (height, width), config))


def _split_detections(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    rows = outputs["detections"]
    return {"boxes": rows[..., :4], "scores": rows[..., 4], "labels": rows[..., 5].astype(np.int32)}


def _flatten_levels(
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
