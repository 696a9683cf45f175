"""Configurations: what config files, commands and tests use of this folder. Imports no JAX."""

from tinyjax.config.defaults import classifier, detector
from tinyjax.config.parsing import (
    COMMA,
    PREFIX,
    changed,
    from_json,
    leaves,
    load,
    names,
    of_run,
    options,
    override,
    parse_arg,
    place,
    put,
    to_json,
)

__all__ = [
    "COMMA",
    "PREFIX",
    "changed",
    "classifier",
    "detector",
    "from_json",
    "leaves",
    "load",
    "names",
    "of_run",
    "options",
    "override",
    "parse_arg",
    "place",
    "put",
    "to_json",
]
