"""Data: sources, records, streams, augmentation, and synthetic scenes. Knows no model."""

from importlib import import_module
from typing import Any

from ml_collections import ConfigDict


def load_set(config: ConfigDict, own: ConfigDict) -> Any:
    """One split by the `data` part of a config: `load` of its format, `own` arguments over the
    common ones.
    """
    load = import_module(f"{__name__}.{config.format}").load
    return load(**{**config.common.to_dict(), **own.to_dict()})
