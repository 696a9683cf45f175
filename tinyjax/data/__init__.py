"""Data: sources, records, streams, augmentation, and synthetic scenes. Knows no model."""

from importlib import import_module
from inspect import signature
from typing import Any

from ml_collections import ConfigDict

from tinyjax.errors import UserError, suggest

FORMATS = ("auto", "coco", "voc", "yolo", "arrayrecord", "synthetic")


def load_set(config: ConfigDict, own: ConfigDict, **more: Any) -> Any:
    """One split by the `data` part of a config: `own` arguments over the common ones.

    They are those of `synthetic.load`, or for every other format those of `files.load`; to these
    `more` is added.

    Raises UserError for an unknown format or argument, and all that `load` raises.
    """
    if config.format not in FORMATS:
        raise UserError(f"data.format = {config.format!r}: {suggest(config.format, FORMATS)}")
    arguments = {**config.common.to_dict(), **own.to_dict()}
    if config.format == "synthetic":  # its classes are what they are
        return import_module(f"{__name__}.synthetic").load(**arguments)
    load = import_module(f"{__name__}.files").load
    known = [name for name in signature(load).parameters if name not in ("layout", "refuse")]
    for name in arguments.keys() - {*known}:
        raise UserError(f"data: no argument {name!r} of a set of files; {suggest(name, known)}")
    for name in ("source", "split"):
        if name not in arguments:
            raise UserError(f"data: no {name!r}; give data.common.{name}, or one for each split")
    return load(layout=config.format, **{**arguments, **more})
