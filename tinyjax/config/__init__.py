"""Configurations: what config files, commands and tests use of this folder. Imports no JAX."""

from tinyjax.config.defaults import classifier, detector
from tinyjax.config.parsing import (
    COMMA,
    PREFIX,
    definitions,
    find_field,
    from_json,
    from_run,
    leaves,
    load,
    override,
    parse_arg,
    parse_options,
    set_field,
    to_json,
    with_fields,
)

__all__ = [
    "COMMA",
    "PREFIX",
    "classifier",
    "definitions",
    "detector",
    "find_field",
    "from_json",
    "from_run",
    "leaves",
    "load",
    "override",
    "parse_arg",
    "parse_options",
    "set_field",
    "to_json",
    "with_fields",
]
