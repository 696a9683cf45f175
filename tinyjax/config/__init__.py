"""Configs: the functions that config files and commands use. Imports no JAX."""

from tinyjax.config.defaults import classifier, detector
from tinyjax.config.parsing import (
    definitions,
    from_json,
    from_run,
    load,
    override,
    parse_arg,
    parse_options,
    to_json,
    with_fields,
)

__all__ = [
    "classifier",
    "definitions",
    "detector",
    "from_json",
    "from_run",
    "load",
    "override",
    "parse_arg",
    "parse_options",
    "to_json",
    "with_fields",
]
