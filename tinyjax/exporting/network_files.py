"""Exported files as trained networks: with the predictions of the run that they come from.

    network = open_network(Path("mine.onnx"))
    predict, _ = network.functions[""]
    predict(None, {"image": images})  # {"boxes": .., "scores": .., "labels": ..}

The runtime of the file computes its outputs, and `predictions` what a file leaves to its reader.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from tinyjax import config as configs
from tinyjax.config.parsing import PREFIX
from tinyjax.data.modality import MODALITIES
from tinyjax.errors import UserError, shorten
from tinyjax.exporting import runtimes, two_stage
from tinyjax.exporting.formats import FORMATS
from tinyjax.exporting.predictions import make_functions, predict_samples
from tinyjax.exporting.runtimes import FileDescription, Runner
from tinyjax.inference.model import PredictFunctions

REQUIRED = ("task", "classes", "input", "config")  # keys of the metadata
# Fields of the config that are part of what a file computes.
FIXED_FIELDS = ("model.", "task", "predict.", "score.feature", "roi.")


class FileNetwork(NamedTuple):
    """A network in one file, or in a file for each modality or component."""

    path: Path  # as it was given to tinyjax.export: without a modality or component
    config: ConfigDict  # of the run
    metadata: dict[str, Any]  # inputs, classes, trained_on: as in the metadata of weights
    functions: PredictFunctions

    def predict(self, inputs: Mapping[str, Any]) -> list[dict[str, np.ndarray]]:
        """The predictions for N samples, in a list of one, see `predict_samples`."""
        return predict_samples(self.functions, inputs)


def open_network(path: Path, overrides: Iterable[str] = ()) -> FileNetwork:
    """The network in a file of `tinyjax.export`, computed on all cores that this process may use.

    Args:
        path: the file; of a network in several files, one of them, or the path that was given to
            tinyjax.export.
        overrides: changes of the run's config, such as "nms.iou_threshold=0.6".

    Raises UserError for a suffix that is not in FORMATS, for files that are missing, broken or not
    written by tinyjax.export, for overrides of what the file computes, and if the runtime is not
    installed.
    """
    base, descriptions = _find_files(path)
    (_, (first, _)), *_ = descriptions.values()
    config = _override(path, first, overrides)
    functions = make_functions(
        {name: (_load(file), description) for name, (file, description) in descriptions.items()},
        config,
    )
    shape = _input_shape(first)
    metadata = {
        "inputs": {"image": shape, **({} if "" in functions else {"modality": ()})},
        "classes": tuple(first["classes"]),
        "trained_on": tuple(first.get("trained_on", ())),
    }
    return FileNetwork(base, config, metadata, functions)


# ---- files


def _load(file: Path) -> Runner:
    return FORMATS[file.suffix].load(file, runtimes.all_cores())


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


def with_name(file: Path, name: str) -> Path:
    """The file of a modality or component: a-visible.onnx for a.onnx; "": the file itself."""
    return file.with_stem(f"{file.stem}-{name}") if name else file


def record_path(file: Path) -> Path:
    """The record of a file: mine.onnx.json, so that mine.tflite next to it has another one."""
    return file.with_name(f"{file.name}.json")


def _find_files(path: Path) -> tuple[Path, dict[str, tuple[Path, FileDescription]]]:
    """The path without a name, and the files and descriptions of a network, by modality or
    component.
    """
    first, *_ = MODALITIES
    named = [with_name(path, name) for name in (first, two_stage.RPN)]
    path = next((file for file in (path, *named) if file.is_file()), path)
    description = describe(path)
    metadata = description.metadata
    key = "component" if "component" in metadata else "modality"
    if not (given := metadata.get(key, "")):
        return path, {"": (path, description)}
    names = tuple(MODALITIES)
    if key == "component":
        names = two_stage.components(configs.from_run(metadata["config"]))
    base = path.with_stem(path.stem.removesuffix(f"-{given}"))
    files = {name: path if name == given else with_name(base, name) for name in names}
    descriptions = {name: (file, describe(file)) for name, file in files.items()}
    differing = {key, "input", "quantization"} if key == "component" else {key}
    for name, (file, other) in descriptions.items():
        if other.metadata.get(key) != name or any(
            other.metadata.get(field) != metadata.get(field)
            for field in {*other.metadata, *metadata} - differing
        ):
            raise UserError(
                f"{file}: not the {name} file of the network in {path}; give the files of one "
                "export"
            )
    return base, descriptions


def _input_shape(metadata: Mapping[str, Any]) -> tuple[int, int, int]:
    shape = metadata["input"]
    return shape["height"], shape["width"], shape["channels"]


def _override(path: Path, metadata: Mapping[str, Any], overrides: Iterable[str]) -> ConfigDict:
    """The config of the run with overrides. Raises UserError for fields that the file computes."""
    outputs = metadata.get("outputs")
    fixed = (*FIXED_FIELDS, *(() if outputs == "raw" else ("proposals.",)))
    fixed += ("nms.",) if outputs == "detections" else ()
    overrides = [*overrides]
    if parts := [text for text in overrides if text.removeprefix(PREFIX).startswith(fixed)]:
        raise UserError(
            f"{shorten(parts)}: part of what {path} computes; give this to tinyjax.export"
        )
    return configs.override(configs.from_run(metadata["config"]), overrides)
