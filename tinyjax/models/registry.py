"""The backbone families; `build` returns a backbone by name."""

import re
from importlib import import_module
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from tinyjax.errors import UserError, suggest
from tinyjax.models.layers import NO_EXTRA_LAYERS, ExtraLayers
from tinyjax.models.scaling import Architecture

# Modules that define Model, VARIANTS (name -> Architecture), BASES (variant -> scaling rule) and
# TORCH_FORMATS (library -> `torch_names.TorchFormat`).
FAMILIES = (
    *("efficientnet", "mobilenetv3", "shufflenetv2", "ghostnet"),
    *("resnet", "convnext", "swin", "vit", "lightcnn"),
)

_MULTIPLIERS = re.compile(r"(?:w(?P<width>[0-9]*\.?[0-9]+))?(?:d(?P<depth>[0-9]*\.?[0-9]+))?")


def family(name: str) -> Any:
    """Return the module of the family of the backbone `name`, or of the family `name`."""
    return import_module(f"tinyjax.models.{name.partition('/')[0]}")


def variants() -> list[str]:
    """Return all names that `build` accepts without multipliers, such as "efficientnet/b-3"."""
    return [f"{name}/{variant}" for name in FAMILIES for variant in family(name).VARIANTS]


def architecture(name: str) -> Architecture:
    """Return the architecture of the backbone `name`.

    name: one of `variants()`; an unscaled one may be followed by multipliers of its width and, for
    some families, its depth: "resnet/18@w0.25" or "resnet/18@w0.25d0.5".

    Raises UserError if the name is unknown, the network does not have these multipliers, or their
    values are out of range.
    """
    variant_name, at, text = name.partition("@")
    if variant_name not in variants():
        of_family = [v for v in variants() if v.startswith(f"{variant_name.partition('/')[0]}/")]
        advice = suggest(variant_name, of_family or variants())
        raise UserError(f"model {variant_name!r} is unknown; {advice}")
    variant = variant_name.partition("/")[2]
    if not at:
        return family(name).VARIANTS[variant]
    match = _MULTIPLIERS.fullmatch(text)
    if not match or not text:
        raise UserError(f"model {name!r}: give multipliers as in {variant_name}@w0.5 or @w0.5d0.5")
    if not (rule := family(name).BASES.get(variant)):
        scalable = [f"{f}/{v}" for f in FAMILIES for v in family(f).BASES]
        raise UserError(
            f"model {name!r}: {variant_name} has no multipliers; models that have: "
            f"{', '.join(scalable)}"
        )
    multipliers = {field: float(value) for field, value in match.groupdict().items() if value}
    accepted = rule.__annotations__.keys() - {"return"}
    if unknown := multipliers.keys() - accepted:
        raise UserError(f"model {name!r}: {variant_name} has no multiplier of its {min(unknown)}")
    try:
        return rule(**multipliers)
    except UserError as error:
        raise UserError(f"model {name!r}: {error}") from error


def build(
    name: str,
    classes: int | None = None,
    dtype: DTypeLike = jnp.float32,
    eps: float = 0,
    supernet: Architecture | None = None,
    extra_layers: ExtraLayers = NO_EXTRA_LAYERS,
) -> nn.Module:
    """Build the backbone `name`; `model(x, train)` returns (logits, {stride: features}).

    Args:
        name: "family/variant", see `architecture`.
        classes: number of logits; None builds no classifier, and logits are None.
        dtype: compute dtype; parameters and running statistics are always float32.
        eps: BatchNorm's epsilon; 0 selects the family's default.
        supernet: architecture that replaces the backbone's own, see `merge_architectures`.
        extra_layers: adapters and squeeze-excite that the family does not have.

    Raises UserError as `architecture` does.
    """
    arch = architecture(name)
    overrides = {"eps": eps} if eps else {}
    model = family(name).Model
    return model(supernet or arch, classes, dtype, extra_layers=extra_layers, **overrides)
