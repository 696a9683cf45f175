"""The backbone families; `build` returns a backbone by name."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from tinyjax.errors import UserError, suggest
from tinyjax.models.backbone import Backbone
from tinyjax.models.layers import NO_EXTRA_LAYERS, ExtraLayers, spatial_mean
from tinyjax.models.path_blocks import NUM_BLOCKS
from tinyjax.models.scaling import Architecture, Transition

# Modules that define Model, VARIANTS (name -> Architecture), BASES (variant -> scaling rule) and
# TORCH_FORMATS (library -> `torch_names.TorchFormat`).
FAMILIES = (
    *("efficientnet", "mobilenetv3", "shufflenetv2", "ghostnet"),
    *("resnet", "convnext", "swin", "vit", "lightcnn"),
)

# Keyword arguments of `architecture`, which the configs of some tasks have in `model`.
OPTIONS = ("path_blocks", "last_stride", "hidden")

_MULTIPLIERS = re.compile(r"(?:w(?P<width>[0-9]*\.?[0-9]+))?(?:d(?P<depth>[0-9]*\.?[0-9]+))?")


def family(name: str) -> Any:
    """Return the module of the family of the backbone `name`, or of the family `name`."""
    return import_module(f"tinyjax.models.{name.partition('/')[0]}")


def variants() -> list[str]:
    """Return all names that `build` accepts without multipliers, such as "efficientnet/b-3"."""
    return [f"{name}/{variant}" for name in FAMILIES for variant in family(name).VARIANTS]


def architecture(
    name: str, path_blocks: int = 0, last_stride: int = 2, hidden: bool = True
) -> Architecture:
    """Return the architecture of the backbone `name`.

    Args:
        name: one of `variants()`; an unscaled one may be followed by multipliers of its width and,
            for some families, its depth: "resnet/18@w0.25" or "resnet/18@w0.25d0.5".
        path_blocks: TOPLight's blocks 1 to this one exist once per modality; 0: one path.
        last_stride: of the last block that has a stride, 1 or 2. With 1 it keeps the layers of a
            block with a stride, so that pretrained weights fit.
        hidden: if false, leave out the linear layer between pooling and classifier, in families
            that have a 1x1 convolution before the pooling.

    Raises UserError if the name is unknown, the network does not have these multipliers, or a value
    is out of range.
    """
    arch = _named_architecture(name)
    if path_blocks not in range(NUM_BLOCKS):
        raise UserError(f"model.path_blocks = {path_blocks}: give 0 to {NUM_BLOCKS - 1}")
    if last_stride not in (1, 2):
        raise UserError(f"model.last_stride = {last_stride}: give 1 or 2")
    if last_stride == 1:
        arch = _without_last_stride(arch, name)
    if arch.head and not hidden:
        arch = arch._replace(hidden=0)
    return arch._replace(path_blocks=path_blocks)


def configured_architecture(model: Mapping[str, Any]) -> Architecture:
    """Return the architecture that a config's `model` describes. Raises as `architecture` does."""
    return architecture(
        model["backbone"], **{name: model[name] for name in OPTIONS if name in model}
    )


def _without_last_stride(arch: Architecture, name: str) -> Architecture:
    strided = [
        (stage, i)
        for stage, blocks in enumerate(arch.stages)
        for i, block in enumerate(blocks)
        if block.stride > 1
    ]
    stage, i = strided[-1] if strided else (-1, -1)
    blocks = [*arch.stages[stage]]
    if not strided or not isinstance(blocks[i], Transition):
        raise UserError(
            f"model.last_stride = 1: the last layer of {name} with a stride cannot have another; "
            "give 2"
        )
    blocks[i] = replace(blocks[i], stride=1, transition=True)
    stages = (*arch.stages[:stage], tuple(blocks), *arch.stages[stage + 1 :])
    return arch._replace(stages=stages)


def _named_architecture(name: str) -> Architecture:
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
    pooling: Callable[[Array], Array] = spatial_mean,
    **options: Any,
) -> Backbone:
    """Build the backbone `name`; `model(x, train)` returns (logits, {stride: features}).

    Args:
        name: "family/variant", see `architecture`.
        classes: number of logits; None builds no classifier, and logits are None; 0: see
            `Backbone`.
        dtype: compute dtype; parameters and running statistics are always float32.
        eps: BatchNorm's epsilon; 0 selects the family's default.
        supernet: architecture that replaces the backbone's own, see `merge_architectures`.
        extra_layers: adapters and squeeze-excite that the family does not have.
        pooling: see `Backbone`.
        options: of `architecture`; `supernet`, if given, must have been built with them.

    Raises UserError as `architecture` does.
    """
    arch = architecture(name, **options)
    overrides = {"eps": eps} if eps else {}
    model = family(name).Model
    return model(
        supernet or arch, classes, dtype, extra_layers=extra_layers, pooling=pooling, **overrides
    )
