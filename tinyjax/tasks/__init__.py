"""Tasks. Each module defines a `core.Task`; `get_task` returns it by name."""

from importlib import import_module
from typing import Any

import jax.numpy as jnp
from ml_collections import ConfigDict

from tinyjax import models
from tinyjax.core import Task
from tinyjax.errors import UserError, suggest
from tinyjax.models.backbone import Backbone
from tinyjax.models.layers import EXCITE_SETTINGS, ExtraLayers
from tinyjax.models.scaling import Architecture

TASKS = ("detect", "classify", "reid", "pretrain")
DTYPES = ("float32", "bfloat16")


def get_task(name: str) -> Task:
    """The task with this name. Raises UserError for an unknown name."""
    if name not in TASKS:
        raise UserError(f"task = {name!r}: {suggest(name, TASKS)}")
    return import_module(f"{__name__}.{name}").TASK


def build_backbone(
    config: ConfigDict,
    classes: int | None = None,
    supernet: Architecture | None = None,
    **options: Any,
) -> Backbone:
    """The backbone that `config.model` describes, or its family's network with the architecture
    `supernet`. classes: outputs of the classifier; None: features only. options: of `models.build`.

    Raises UserError for an unknown backbone, dtype or squeeze-excite.
    """
    m = config.model
    if m.dtype not in DTYPES:
        raise UserError(f"model.dtype = {m.dtype!r}: {suggest(m.dtype, DTYPES)}")
    if m.squeeze_excite not in ("", *EXCITE_SETTINGS):
        hint = suggest(m.squeeze_excite, EXCITE_SETTINGS)
        raise UserError(f"model.squeeze_excite = {m.squeeze_excite!r}: {hint}, or '' for none")
    return models.build(
        m.backbone,
        classes,
        dtype=jnp.dtype(m.dtype),
        eps=m.batchnorm_eps,
        supernet=supernet,
        extra_layers=ExtraLayers(m.adapters, m.squeeze_excite),
        **{name: m[name] for name in models.OPTIONS if name in m},
        **options,
    )
