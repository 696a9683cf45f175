"""Backbones. `build` one by name, `init` its weights, `apply` it: three functions over flat dicts.

`init` and `apply` serve any linen module called as `module(x, train)`, a whole detector included;
nothing outside this room sees the module library's own trees.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib import import_module
from types import MappingProxyType
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from tinyjax.errors import UserError, suggest
from tinyjax.models.initializers import Law, draw
from tinyjax.models.layers import PLAIN, Added
from tinyjax.models.scaling import Architecture

FAMILIES = ("efficientnet", "mobilenetv3")

Flat = dict[str, Array]


def variants() -> list[str]:
    """Every name that `build` knows, such as "efficientnet/b-3"."""
    return [f"{family}/{variant}" for family in FAMILIES for variant in _family(family).VARIANTS]


def architecture(name: str) -> Architecture:
    """What the backbone of that name is made of. Raises UserError for an unknown one."""
    if name not in variants():
        raise UserError(f"model {name!r} is unknown; {suggest(name, variants())}")
    family, variant = name.split("/")
    return _family(family).VARIANTS[variant]


def build(
    name: str,
    classes: int | None = None,
    dtype: DTypeLike = jnp.float32,
    eps: float = 0,
    wide: Architecture | None = None,
    added: Added = PLAIN,
    **multipliers: float,
) -> nn.Module:
    """The backbone of that name; called as `model(x, train)` it gives (logits, {stride: features}).

    Args:
        name: "family/variant", one of `variants()`.
        classes: logits of the classifier; None for none, and logits are None.
        dtype: to compute in; parameters and statistics are float32 in any case.
        eps: BatchNorm's; 0 for the family's own.
        wide: the architecture to build in the place of its own, see `union`.
        added: adapters and squeeze-excite that it has not by itself.
        multipliers: `width` (and `depth`) of a network off the ladders, times a family's unscaled
            one: `build("efficientnet/b0", width=0.5, depth=0.6)`.

    Raises:
        UserError: unknown name, or multipliers that the named network does not take.
    """
    arch = architecture(name)
    family, variant = name.split("/")
    module = _family(family)
    if multipliers:
        arch = _scaled(name, module.BASES.get(variant), multipliers)
    own = {"eps": eps} if eps else {}
    return module.Model(wide or arch, classes, dtype, added=added, **own)


def init(model: nn.Module, seed: ArrayLike, shape: tuple[int, ...]) -> tuple[Flat, Flat]:
    """Fresh float32 weights and running statistics, as flat dicts path -> array.

    A weight is a function of `seed` (an integer, which may be traced and mapped), its path and its
    shape: not of `classes`, or of what else the network holds. Ordinary initializers of linen may
    be mixed with those of `initial`; they only take longer to compile.

    Args:
        shape: of an input, (B, H, W, C); only C matters to a backbone.
    """
    key = jax.random.key(seed, impl="threefry2x32")
    params, stats = _declared(model, key, shape)
    laws = {path: leaf for path, leaf in params.items() if isinstance(leaf, Law)}
    fresh = params | draw(key, laws), stats
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), fresh)


@partial(jax.jit, static_argnames=("model", "shape"))
def _declared(model, key, shape):
    variables = model.init(key, jnp.zeros(shape), train=False)
    return _flatten(variables["params"]), _flatten(variables["stats"])


def apply(
    model: nn.Module,
    params: Flat,
    stats: Flat,
    x: Array,
    train: bool,
    fixed: Mapping[str, Array | Literal[True]] = MappingProxyType({}),
    axes: Sequence[str] = (),
    momentum: Array | None = None,
) -> tuple[Any, Flat]:
    """The model's output for x [B, H, W, C], and the running statistics after it.

    With `train` BatchNorm uses the batch's moments and returns moved ones; without, it uses `stats`
    and returns them. fixed: BatchNorm layers that do the latter in either case, by their paths such
    as "backbone/stem/bn": True, or a bool[] that says whether. axes: of a mesh that the batch is
    spread over: x are a shard's rows, the moments those of the whole batch. momentum: the weight of
    the batch's moments in the moved ones; None: each layer's own.
    """
    layers = [path.removesuffix("/mean") for path in stats if path.endswith("/mean")]
    over = [("axes", tuple(axes)), *([] if momentum is None else [("momentum", momentum)])]
    variables = {
        "params": _unflatten(params),
        "stats": _unflatten(stats),
        "fixed": _unflatten({f"{path}/fixed": value for path, value in fixed.items()}),
        "over": _unflatten({f"{path}/{name}": value for path in layers for name, value in over}),
    }
    if not train:
        return model.apply(variables, x, train=False), stats
    out, moved = model.apply(variables, x, train=True, mutable=["stats"])
    return out, _flatten(moved["stats"])


_flatten = partial(flatten_dict, sep="/")
_unflatten = partial(unflatten_dict, sep="/")


def _family(name: str):
    return import_module(f"{__name__}.{name}")


def _scaled(name: str, base, multipliers: dict[str, float]):
    given = ", ".join(multipliers)
    if base is None:
        raise UserError(f"model {name!r} is already scaled: drop {given}, or name a base network")
    known = base.__annotations__.keys() - {"return"}
    if unknown := multipliers.keys() - known:
        field = min(unknown)
        raise UserError(f"model {name!r}: no multiplier {field!r}; {suggest(field, known)}")
    return base(**multipliers)
