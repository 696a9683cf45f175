"""Backbones as pure functions over flat dicts: `build` one by name, `init` its weights, `apply` it.

`init` and `apply` serve any linen module called as `module(x, train)`, including a whole detector.
Code outside this package never handles the nested variable dicts of linen.
"""

from tinyjax.models.functional import Arrays, apply, init
from tinyjax.models.registry import (
    FAMILIES,
    OPTIONS,
    architecture,
    build,
    configured_architecture,
    family,
    variants,
)

__all__ = [
    "FAMILIES",
    "OPTIONS",
    "Arrays",
    "apply",
    "architecture",
    "build",
    "configured_architecture",
    "family",
    "init",
    "variants",
]
