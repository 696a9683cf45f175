"""What tasks have in common. A task is a module of this room; `module` finds it by name."""

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType, ModuleType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from tinyjax import models
from tinyjax.errors import UserError, suggest
from tinyjax.models.layers import GATES, Added
from tinyjax.models.scaling import Architecture
from tinyjax.step import Variables

TASKS = ("detect", "classify")
DTYPES = ("float32", "bfloat16")


def module(name: str) -> ModuleType:
    """The task of that name. Raises UserError."""
    if name not in TASKS:
        raise UserError(f"task = {name!r}: {suggest(name, TASKS)}")
    return import_module(f"{__name__}.{name}")


def build_backbone(
    config: ConfigDict, classes: int | None = None, wide: Architecture | None = None
) -> nn.Module:
    """The backbone of a config, or with the union `wide` in the place of its architecture.

    Raises UserError for an unknown one, an unknown dtype, or unknown gates.
    """
    m = config.model
    if m.dtype not in DTYPES:
        raise UserError(f"model.dtype = {m.dtype!r}: {suggest(m.dtype, DTYPES)}")
    if m.excite not in ("", *GATES):
        raise UserError(
            f"model.squeeze_excite = {m.excite!r}: {suggest(m.excite, GATES)}, or nothing"
        )
    added = Added(m.adapters, m.excite)
    dtype = jnp.dtype(m.dtype)
    return models.build(m.backbone, classes, dtype=dtype, eps=m.eps, wide=wide, added=added)


def hyper_of(config: ConfigDict, multiplier: Mapping[str, float] = MappingProxyType({})) -> dict:
    """The numbers of a config that a population may vary, as arrays.

    multiplier: path -> part of the learning rate, where that is not the same for all members.
    """
    numbers = {
        "seed": config.seed,
        "lr": config.optimizer.lr,
        "weight_decay": config.optimizer.weight_decay,
        "ema": config.ema,
        "augment": config.augment.to_dict(),
        "loss": config.loss.to_dict(),
        **({"multiplier": dict(multiplier)} if multiplier else {}),
    }
    return jax.tree.map(jnp.asarray, numbers)


def predict_all(
    predict: Callable[..., Any],
    variables: Variables,
    images: np.ndarray,
    batch: int = 32,
    members: int = 1,
) -> list[dict[str, np.ndarray]]:
    """Each member's predictions for N images of the network's size, in batches of one shape.

    predict: `Task.predict`, of several members lifted over them, as `variables` are. The last batch
    is filled up with its own last image, so that nothing is compiled for a remainder.
    """
    parts = []
    for start in range(0, len(images), batch):
        rows = np.minimum(np.arange(start, start + batch), len(images) - 1)
        parts.append(jax.device_get(predict(variables, images[rows])))
    axis = 0 if members == 1 else 1
    whole = {name: np.concatenate([p[name] for p in parts], axis) for name in parts[0]}
    if members == 1:
        return [{name: array[: len(images)] for name, array in whole.items()}]
    return [
        {name: array[i, : len(images)] for name, array in whole.items()} for i in range(members)
    ]
