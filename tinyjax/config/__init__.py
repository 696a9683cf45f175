"""Configs: the functions that config files and commands use. Imports no JAX."""

from tinyjax.config.defaults import classifier, detector, pretraining, recognizer
from tinyjax.config.parsing import (
    definitions,
    from_json,
    from_run,
    given_source,
    load,
    override,
    parse_arg,
    parse_options,
    to_json,
    with_fields,
)
from tinyjax.config.spec import format_arg

__all__ = [
    "classifier",
    "definitions",
    "detector",
    "format_arg",
    "from_json",
    "from_run",
    "given_source",
    "load",
    "override",
    "parse_arg",
    "parse_options",
    "pretraining",
    "recognizer",
    "to_json",
    "with_fields",
]
