"""What is measured on a population's batches before, or instead of, training it."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from tinyjax.data.sampling import batch_at, draws
from tinyjax.population.devices import fetch
from tinyjax.population.stack import Population
from tinyjax.step import Variables, frozen_batchnorm
from tinyjax.transfer import regularizers

Lifted = Callable[..., Any]


def mean_over_batches(
    measure: Callable[..., Any],
    wanted: Callable[[str], bool],
    joined: Population,
    own: tuple[Variables, dict, dict],
    feed: Callable[..., Iterator[Any]],
    batch: int,
    batches: int,
    lifted: Lifted,
) -> Any:
    """Of each member the mean over its first batches of training of `measure(loss, params, batch)`,
    a tree of arrays.

    loss: (params, batch, alone=False) -> scalar, alone: with BatchNorm by its running moments.
    wanted: of which parameters that train. own: variables, hyper and part of each member. feed: see
    `feed`.
    """

    def one(own, shared):
        (variables, hyper, part), (data, at) = own, shared
        fixed = frozen_batchnorm(hyper, joined.moving.fixed)
        key = draws(hyper["seed"], at)

        def loss(params, rows, alone=False):
            layers = (path.removesuffix("/mean") for path in variables.stats)
            own = dict.fromkeys(layers, True) if alone else fixed
            now = Variables({**variables.params, **params}, variables.stats)
            return joined.task.loss(now, own, rows, key, hyper)[0]

        params = {
            path: leaf
            for path, leaf in variables.params.items()
            if path in joined.moving.paths and wanted(path)
        }
        return measure(loss, params, batch_at(data, part, hyper["seed"], at, batch))

    whole = lifted(one)
    added = jax.jit(lambda sums, *rest: jax.tree.map(jnp.add, sums, whole(*rest)), donate_argnums=0)
    sums = None
    for at, data in zip(range(batches), feed(whole=True), strict=False):
        shared = (data, jnp.int32(at))
        if sums is None:
            zeros = jax.eval_shape(whole, own, shared)
            sums = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), zeros)
        sums = added(sums, own, shared)
    return jax.tree.map(lambda leaf: leaf / batches, fetch(sums))


def batchnorm_estimator(
    joined: Population, batch: int, lifted: Lifted, axes: Sequence[str] = ()
) -> Any:
    """`estimate(own, data, step) -> Variables`, to be called for step = 0, 1, ..: each member's
    network, the running moments of its BatchNorm the mean over its batches up to that one. Layers
    that are frozen keep theirs. own, data: as of `means`. axes: of the joined task.
    """

    def one(own, shared):
        (variables, hyper, part), (data, at) = own, shared
        rows = batch_at(data, part, hyper["seed"], at, batch, axes)
        fixed, key = frozen_batchnorm(hyper, joined.moving.fixed), draws(hyper["seed"], at)
        averaged = {**hyper, "momentum": 1 / (at + 1)}
        _, (stats, _) = joined.task.loss(variables, fixed, rows, key, averaged)
        return variables._replace(stats={path: stats[path] for path in variables.stats})

    program = jax.jit(lifted(one))
    return lambda own, data, step: program(own, (data, jnp.int32(step)))


def regularizer_arrays(
    config: ConfigDict,
    joined: Population,
    own: tuple[Variables, dict, dict],
    feed: Callable[..., Iterator[Any]],
    n: int,
    lifted: Lifted,
) -> dict[str, np.ndarray]:
    """What the step needs of a pull besides its strength: "start" and "importance", vectors of the
    parameters that train, or of several members [M, numbers].

    config: what members share of it. own, feed, lifted: see `means`. n: images of the training set.
    """
    kind, batches = config.regularizer.name, min(config.regularizer.batches, n // config.batch)
    importance = None
    if kind != "l2sp":
        measure = partial(regularizers.importance, kind)
        importance = mean_over_batches(
            measure, regularizers.is_regularized, joined, own, feed, config.batch, batches, lifted
        )
    variables = fetch(own[0])
    paths = [path for path in variables.params if path in joined.moving.paths]
    several = np.ndim(next(iter(variables.stats.values()))) > 1  # a layer's moments are a vector

    def laid_out(leaves):
        rows = (
            leaf.reshape((len(leaf), -1) if several else -1) for leaf in map(np.asarray, leaves)
        )
        return np.concatenate([*rows], -1, dtype=np.float32)

    params = [variables.params[path] for path in paths]
    weights = [
        np.zeros_like(leaf)
        if not regularizers.is_regularized(path)
        else (np.ones_like(leaf) if importance is None else importance[path])
        for path, leaf in zip(paths, params, strict=True)
    ]
    return {"start": laid_out(params), "importance": laid_out(weights)}
