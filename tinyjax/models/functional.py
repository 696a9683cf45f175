"""`init` and `apply` of linen modules as pure functions of flat dicts path -> array."""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jax import Array
from jax.typing import ArrayLike

from tinyjax.core import Arrays
from tinyjax.models.initializers import Initializer, draw_params

__all__ = ["Arrays", "apply", "init"]


def init(model: nn.Module, seed: ArrayLike, *shapes: tuple[int, ...]) -> tuple[Arrays, Arrays]:
    """Draw float32 parameters and running statistics, as flat dicts path -> array.

    A parameter depends only on `seed`, its path and its shape, not on the rest of the network.
    Linen's own initializers can be mixed with those of `tinyjax.models.initializers`; they only
    compile more slowly.

    Args:
        seed: an integer, which may be traced and vmapped.
        shapes: shape (B, H, W, C) of each input of `model(*inputs, train)`; a backbone's
            parameters depend only on C.
    """
    key = jax.random.key(seed, impl="threefry2x32")
    params, stats = _trace_init(model, key, shapes)
    initializers = {path: leaf for path, leaf in params.items() if isinstance(leaf, Initializer)}
    arrays = params | draw_params(key, initializers), stats
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), arrays)


@partial(jax.jit, static_argnames=("model", "shapes"))
def _trace_init(model, key, shapes):
    variables = model.init(key, *map(jnp.zeros, shapes), train=False)
    return _flatten(variables["params"]), _flatten(variables.get("stats", {}))


def apply(
    model: nn.Module,
    params: Arrays,
    stats: Arrays,
    *inputs: Any,
    train: bool,
    frozen_batchnorm: Mapping[str, Array | Literal[True]] = MappingProxyType({}),
    axes: Sequence[str] = (),
    momentum: Array | None = None,
    method: str | None = None,
) -> tuple[Any, Arrays]:
    """Return the output of the model's `method` for `inputs`, and the updated running statistics.

    Args:
        inputs: arrays [B, ...], or whatever the method accepts.
        train: if true, BatchNorm normalizes with the batch's statistics and updates the running
            statistics; otherwise it normalizes with `stats` and returns them unchanged.
        frozen_batchnorm: path of a layer ("backbone/stem/bn") -> True or bool[]. A layer with a
            true value normalizes with `stats` in training too, and does not update them.
        axes: mesh axes that the batch is sharded over. `inputs` are the rows of one shard; batch
            statistics are computed over all shards.
        momentum: weight of the batch's statistics in the update; None: each layer's own momentum.
        method: name of the method; None: `__call__`.
    """
    layers = [path.removesuffix("/mean") for path in stats if path.endswith("/mean")]
    overrides = {"axes": tuple(axes)} | ({} if momentum is None else {"momentum": momentum})
    variables = {
        "params": _unflatten(params),
        "stats": _unflatten(stats),
        "frozen": _unflatten({f"{path}/frozen": value for path, value in frozen_batchnorm.items()}),
        "overrides": _unflatten(
            {f"{path}/{name}": value for path in layers for name, value in overrides.items()}
        ),
    }
    if not train:
        return model.apply(variables, *inputs, train=False, method=method), stats
    out, updated = model.apply(variables, *inputs, train=True, mutable=["stats"], method=method)
    return out, _flatten(updated.get("stats", {}))


_flatten = partial(flatten_dict, sep="/")
_unflatten = partial(unflatten_dict, sep="/")
