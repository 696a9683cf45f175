"""The backbone families; `build` returns a backbone by name."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from tinyjax.errors import UserError, suggest
from tinyjax.models import efficientnet, mobilenetv3
from tinyjax.models.layers import NO_EXTRA_LAYERS, ExtraLayers
from tinyjax.models.scaling import Architecture

# Each module defines Model, VARIANTS (name -> Architecture) and BASES (name -> scaling rule).
FAMILIES: dict[str, Any] = {"efficientnet": efficientnet, "mobilenetv3": mobilenetv3}


def variants() -> list[str]:
    """Return all names that `build` accepts, such as "efficientnet/b-3"."""
    return [f"{name}/{variant}" for name, family in FAMILIES.items() for variant in family.VARIANTS]


def architecture(name: str) -> Architecture:
    """Return the architecture of the backbone `name`. Raises UserError if the name is unknown."""
    if name not in variants():
        raise UserError(f"model {name!r} is unknown; {suggest(name, variants())}")
    family, variant = name.split("/")
    return FAMILIES[family].VARIANTS[variant]


def build(
    name: str,
    classes: int | None = None,
    dtype: DTypeLike = jnp.float32,
    eps: float = 0,
    supernet: Architecture | None = None,
    extra_layers: ExtraLayers = NO_EXTRA_LAYERS,
    **multipliers: float,
) -> nn.Module:
    """Build the backbone `name`; `model(x, train)` returns (logits, {stride: features}).

    Args:
        name: "family/variant", one of `variants()`.
        classes: number of logits; None builds no classifier, and logits are None.
        dtype: compute dtype; parameters and running statistics are always float32.
        eps: BatchNorm's epsilon; 0 selects the family's default.
        supernet: architecture that replaces the backbone's own, see `merge_architectures`.
        extra_layers: adapters and squeeze-excite that the family does not have.
        multipliers: `width` and, for EfficientNet, `depth` relative to an unscaled network, for
            sizes between the variants: `build("efficientnet/b0", width=0.5, depth=0.6)`.

    Raises:
        UserError: the name is unknown, or the network does not accept these multipliers.
    """
    arch = architecture(name)
    family_name, variant = name.split("/")
    family = FAMILIES[family_name]
    if multipliers:
        arch = _scale(name, family.BASES.get(variant), multipliers)
    overrides = {"eps": eps} if eps else {}
    return family.Model(supernet or arch, classes, dtype, extra_layers=extra_layers, **overrides)


def _scale(
    name: str, base: Callable[..., Architecture] | None, multipliers: dict[str, float]
) -> Architecture:
    if base is None:
        names = ", ".join(multipliers)
        raise UserError(f"model {name!r} is already scaled: drop {names}, or use an unscaled model")
    accepted = base.__annotations__.keys() - {"return"}
    if unknown := multipliers.keys() - accepted:
        field = min(unknown)
        raise UserError(f"model {name!r}: no multiplier {field!r}; {suggest(field, accepted)}")
    return base(**multipliers)
