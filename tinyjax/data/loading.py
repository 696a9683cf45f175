"""Load a split of any format, as described by the `data` of a config."""

import logging
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from ml_collections import ConfigDict

from tinyjax.data.layouts.catalog import CLASSIFICATION_SETS, DETECTION_SETS, PUBLISHED_SETS
from tinyjax.errors import UserError, suggest

log = logging.getLogger("tinyjax")

DETECTION_FORMATS = ("auto", "coco", "voc", "yolo", "arrayrecord", "synthetic", *DETECTION_SETS)
CLASS_FOLDERS = "folder"
CLASSIFICATION_FORMATS = (CLASS_FOLDERS, "list", "tfds", "synthetic", *CLASSIFICATION_SETS)
RECOGNITION_FORMATS = ("sysu", "regdb", "llcm", "oulu", "buaa", "pairs", "synthetic")
SYNTHETIC_SETS = {  # formats of a task -> module of `data.synthetic`, its arguments, what it draws
    DETECTION_FORMATS: ("dataset", ("n", "size", "seed"), "scenes"),
    CLASSIFICATION_FORMATS: (
        "visible_people", ("n", "size", "seed", "split", "per_camera"), "people",
    ),
    RECOGNITION_FORMATS: ("identities", ("n", "size", "seed", "split", "per_camera"), "identities"),
}  # fmt: skip
CORRUPTION_FIELDS = ("corrupt", "severities")  # of a suite, which `evaluate` expands to many splits


def load_split(
    config: ConfigDict,
    split: ConfigDict,
    formats: Sequence[str] = DETECTION_FORMATS,
    corruption: tuple[str, int] | None = None,
    **extra: Any,
) -> Any:
    """Load one split: a `DetectionSplit`, a `ClassificationSplit` or, for `RECOGNITION_FORMATS`, a
    `RecognitionSplit`.

    Args:
        config: the `data` of a config. With `on_error` = "skip", invalid images and boxes are left
            out and logged; with "stop" the first one is an error. With `stream`, images stay on
            disk.
        split: the split's arguments, which override `config.common`. They are fields of
            the options' class in `data.options`; for "synthetic" those of `load` in the task's
            module of `data.synthetic`. A split may set its own "format".
        formats: the formats of the task.
        corruption: name and severity.
        extra: further options; not used if the format is "synthetic".

    Raises UserError for an unknown format or argument, a missing argument, and as the loader does.
    """
    on_error = config.get("on_error", "stop")  # runs of older versions have no such field
    if on_error not in ("stop", "skip"):
        raise UserError(f"data.on_error = {on_error!r}: give stop or skip")
    arguments = {**config.common.to_dict(), **split.to_dict()}
    for name in CORRUPTION_FIELDS:
        arguments.pop(name, None)
    data_format = arguments.pop("format", config.format)
    if data_format not in formats:
        raise UserError(f"data.format = {data_format!r}: {suggest(data_format, formats)}")
    stream = config.get("stream", False)
    if data_format == "synthetic":
        return _load_synthetic(arguments, stream, corruption, tuple(formats))

    from tinyjax.data.layouts import published
    from tinyjax.data.options import config_fields

    options_type, load = _select_loader(data_format)
    _check_arguments(data_format, arguments, *config_fields(options_type))
    problems: list[tuple[str, str]] = []
    if on_error == "skip":
        extra["on_error"] = lambda problem, message: problems.append((problem, message))
    layout = data_format
    if data_format in CLASSIFICATION_SETS:
        published.check_files(arguments["source"], arguments["split"], data_format)
        layout = PUBLISHED_SETS[data_format].layout
    fields = {"layout": layout, "stream": stream, "corruption": corruption, **arguments, **extra}
    try:
        return load(options_type(**fields))
    finally:  # they also explain an error, such as that no image is left
        if problems:
            from tinyjax.data.statistics import problem_lines

            log.warning("\n".join([f"left out of {arguments['split']}:", *problem_lines(problems)]))


def _select_loader(data_format: str) -> tuple[Any, Callable[[Any], Any]]:
    """The type of a format's options, and its loader."""
    from tinyjax.data import classification, detection, recognition
    from tinyjax.data.options import ClassificationOptions, DetectionOptions, RecognitionOptions

    if data_format in RECOGNITION_FORMATS:
        return RecognitionOptions, recognition.load
    if data_format in CLASSIFICATION_FORMATS:
        return ClassificationOptions, classification.load
    return DetectionOptions, detection.load


def _check_arguments(
    data_format: str, arguments: Mapping[str, Any], known: Sequence[str], required: Sequence[str]
) -> None:
    mistakes = []
    unknown = [name for name in arguments if name not in known]
    if len(unknown) == 1:
        hint = suggest(unknown[0], known)
        mistakes = [f"data: no argument {unknown[0]!r} of a {data_format} set; {hint}"]
    elif unknown:  # all in one line, because often the format is the mistake
        names = ", ".join(map(repr, unknown))
        mistakes = [f"data: no arguments {names} of a {data_format} set; known: {', '.join(known)}"]
    mistakes += [
        f"data: no {name!r}; give data.common.{name}, or one for each split"
        for name in required
        if name not in arguments
    ]
    if mistakes:
        raise UserError(*mistakes)


def _load_synthetic(
    arguments: Mapping[str, Any],
    stream: bool,
    corruption: tuple[str, int] | None,
    formats: tuple[str, ...],
) -> Any:
    module, known, noun = SYNTHETIC_SETS[formats]
    loader = import_module(f"tinyjax.data.synthetic.{module}")
    _check_arguments("synthetic", arguments, [*known, *loader.STRENGTHS], ["n"])
    if stream:
        raise UserError(f"data.stream: synthetic {noun} are generated in memory; leave it out")
    split = loader.load(**arguments)
    return _corrupt_images(split, corruption) if corruption else split


def _corrupt_images(split: Any, corruption: tuple[str, int]) -> Any:
    """A split in memory with corrupted images; infrared ones stay gray."""
    import numpy as np

    from tinyjax.data.corruptions.corrupt import corrupt
    from tinyjax.data.modality import INFRARED, VISIBLE

    images = split.inputs["image"]
    modality = split.inputs.get("modality", np.full(len(images), VISIBLE))
    corrupted = np.empty_like(images)
    for i, (pixels, name) in enumerate(zip(images, split.names, strict=True)):
        channels = slice(1) if modality[i] == INFRARED else slice(None)
        corrupted[i] = corrupt(pixels[..., channels], *corruption, name)
    return split._replace(inputs={**split.inputs, "image": corrupted})
