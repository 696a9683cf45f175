"""Engines are extras: what is not installed says how it would be."""

from importlib import import_module
from types import ModuleType

from tinyjax.errors import UserError


def module(name: str, extra: str) -> ModuleType:
    """A module of an extra. Raises UserError if it is not there."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f"{name} is not installed: pip install 'tinyjax[{extra}]'") from error
