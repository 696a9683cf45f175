"""Data: sources, records, streams, augmentation, and synthetic scenes. Knows no model."""

import logging
from collections.abc import Sequence
from importlib import import_module
from inspect import signature
from typing import Any

from ml_collections import ConfigDict

from tinyjax.data.layouts.catalog import BOXES, SETS, WHOLE
from tinyjax.errors import UserError, suggest

log = logging.getLogger("tinyjax")

FORMATS = ("auto", "coco", "voc", "yolo", "arrayrecord", "synthetic", *BOXES)  # of boxes
CORRUPTED = ("corrupt", "severities")  # of a suite: what `evaluate` makes many splits of
LABELED = ("folder", "list", "tfds", *WHOLE)  # of whole images


def load_set(
    config: ConfigDict, own: ConfigDict, formats: Sequence[str] = FORMATS, **more: Any
) -> Any:
    """One split by the `data` part of a config: `own` arguments over the common ones.

    A split may have a "format" of its own. All else are arguments of `synthetic.load`, of
    `classification.load` for the formats in `LABELED`, or of `files.load`; to the latter two
    `more` is added. With `stream` they leave the images on disk. formats: those the task knows.
    With `broken` = "skip" the images and boxes that `load` refuses are left out and logged; with
    "stop" the first one is an error.

    Raises UserError for an unknown format or argument, and all that `load` raises.
    """
    broken = config.get("on_error", "stop")  # runs of old do not say
    if broken not in ("stop", "skip"):
        raise UserError(f"data.on_error = {broken!r}: give stop or skip")
    arguments = {**config.common.to_dict(), **own.to_dict()}
    for name in CORRUPTED:
        arguments.pop(name, None)
    form = arguments.pop("format", config.format)
    if form not in formats:
        raise UserError(f"data.format = {form!r}: {suggest(form, formats)}")
    made = form == "synthetic"
    room = {"synthetic": "synthetic.dataset", **dict.fromkeys(LABELED, "classification")}
    load = import_module(f"tinyjax.data.{room.get(form, 'detection')}").load
    ours = ("layout", "refuse", "stream", "strengths", "match", "corrupt")
    known = [n for n in signature(load).parameters if n not in ours]
    known += import_module("tinyjax.data.synthetic.dataset").STRENGTHS if made else ()
    for name in arguments.keys() - {*known}:
        raise UserError(f"data: no argument {name!r} of a {form} set; {suggest(name, known)}")
    stream = config.get("stream", False)
    if made and stream:
        raise UserError("data.stream: synthetic scenes are made in memory; leave it out")
    if made:  # its classes are what they are
        return _corrupted(load(**arguments), more.get("corrupt"))
    for name, parameter in signature(load).parameters.items():
        if parameter.default is parameter.empty and name not in arguments:
            raise UserError(f"data: no {name!r}; give data.common.{name}, or one for each split")
    found: list[tuple[str, str]] = []
    if broken == "skip":
        more["refuse"] = lambda kind, message: found.append((kind, message))
    if form in WHOLE:  # their files are lists; what the set needs beside them stands there?
        import_module("tinyjax.data.layouts.published").stands(
            arguments["source"], arguments["split"], form
        )
        form = SETS[form].layout
    split = load(layout=form, stream=stream, **{**arguments, **more})
    if found:
        problems = import_module("tinyjax.data.statistics").problems(found)
        log.warning("\n".join([f"{arguments['split']}: left out", *problems]))
    return split


def _corrupted(split: Any, corruption: tuple[str, int] | None) -> Any:
    if not corruption:
        return split
    import numpy as np

    from tinyjax.data.corruptions.corrupt import corrupt

    pairs = zip(split.images, split.names, strict=True)
    return split._replace(images=np.stack([corrupt(x, *corruption, name) for x, name in pairs]))
