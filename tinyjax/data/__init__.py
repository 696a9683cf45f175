"""Data: sources, records, streams, augmentation, and synthetic scenes. Knows no model."""

from importlib import import_module
from typing import Any

from ml_collections import ConfigDict

from tinyjax.errors import UserError, suggest

FORMATS = ("coco", "synthetic")


def load_set(config: ConfigDict, own: ConfigDict) -> Any:
    """One split by the `data` part of a config: `load` of its format, `own` arguments over the
    common ones.
    """
    if config.format not in FORMATS:
        raise UserError(f"data.format = {config.format!r}: {suggest(config.format, FORMATS)}")
    load = import_module(f"{__name__}.{config.format}").load
    return load(**{**config.common.to_dict(), **own.to_dict()})
