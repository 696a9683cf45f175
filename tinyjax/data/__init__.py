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
    made = config.format == "synthetic"
    load = import_module(f"{__name__}.{'synthetic' if made else 'files'}").load
    known = [n for n in signature(load).parameters if n not in ("layout", "refuse", "strengths")]
    known += import_module(f"{__name__}.synthetic").STRENGTHS if made else ()
    for name in arguments.keys() - {*known}:
        raise UserError(
            f"data: no argument {name!r} of a {config.format} set; {suggest(name, known)}"
        )
    if made:  # its classes are what they are
        return load(**arguments)
    for name in ("source", "split"):
        if name not in arguments:
            raise UserError(f"data: no {name!r}; give data.common.{name}, or one for each split")
    return load(layout=config.format, **{**arguments, **more})
