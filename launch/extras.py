"""Import of packages that are extras of tinyjax."""

from importlib import import_module
from types import ModuleType

from tinyjax.errors import UserError


def import_extra(name: str, extra: str) -> ModuleType:
    """Import a module of an extra. Raises UserError if it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f"{name} is not installed: pip install 'tinyjax[{extra}]'") from error
