"""Backbones as pure functions over flat dicts: `build` one by name, `init` its weights, `apply` it.

`init` and `apply` serve any linen module called as `module(x, train)`, including a whole detector.
Code outside this package never handles the nested variable dicts of linen.
"""

from tinyjax.models.functional import Arrays, apply, init
from tinyjax.models.registry import FAMILIES, architecture, build, family, variants

__all__ = ["FAMILIES", "Arrays", "apply", "architecture", "build", "family", "init", "variants"]
