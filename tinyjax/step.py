"""The training step of one member, once, for every task: gradient, freezing, clip, optimizer, EMA,
divergence.

`step(state, batch, hyper) -> (state, metrics)` is pure. Whatever a sweep may vary without changing
shapes is an array in `hyper`; the learning rate, too, is applied here and not inside the optimizer.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.tree_util import register_dataclass

from tinyjax.data.sampling import draws
from tinyjax.errors import UserError, suggest
from tinyjax.transfer import regularizers, rgn

Flat = dict[str, Array]


class Variables(NamedTuple):
    """What a network computes with."""

    params: Flat
    stats: Flat


@partial(register_dataclass, data_fields=["vector"], meta_fields=["shapes"])
@dataclass(frozen=True)
class Packed:
    """Arrays by path, end to end in one vector [.., numbers].

    Between steps weights live like this: an optimizer over hundreds of small arrays is thousands of
    loops, which take longer to compile than the network (docs/performance.md).
    """

    vector: Array
    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def sizes(self) -> list[int]:
        return [math.prod(shape) for _, shape in self.shapes]

    def unpack(self) -> Flat:
        """The arrays [.., *shape]."""
        found, begin = {}, 0
        for (path, shape), size in zip(self.shapes, self.sizes, strict=True):
            part = self.vector[..., begin : begin + size]
            found[path], begin = part.reshape((*part.shape[:-1], *shape)), begin + size
        return found


def pack(arrays: Flat) -> Packed:
    """One member's arrays, all of the same dtype, in this order."""
    vector = jnp.concatenate([*map(jnp.ravel, arrays.values())]) if arrays else jnp.zeros(0)
    return Packed(vector, tuple((path, leaf.shape) for path, leaf in arrays.items()))


class Weights(NamedTuple):
    """What changes in training: the parameters that train, and BatchNorm's running moments."""

    params: Packed
    stats: Packed


class Best(NamedTuple):
    """The averaged weights that scored best so far; score -inf and step -1 before the first
    evaluation.
    """

    score: Array
    step: Array
    weights: Weights


class State(NamedTuple):
    """One member, whole: what a checkpoint holds."""

    step: Array  # int32, updates done; also the position in the data
    weights: Weights
    still: Flat  # the parameters that do not train
    moments: Any  # of weights.params.vector
    ema: Weights
    best: Best
    diverged_at: (
        Array  # int32, the step of the first non-finite loss or gradient; -1 while training
    )
    ratios: Array | None = None  # f32[tensors], of `rgn.auto_rates`, if somebody's rates are such

    def variables(self, weights: Weights) -> Variables:
        """The network of `state.weights`, `state.ema` or `state.best.weights`, on the host: there
        nothing is compiled for the cutting.
        """
        still, (params, stats) = jax.device_get((self.still, weights))
        return Variables({**still, **params.unpack()}, stats.unpack())


class Task(NamedTuple):
    """Plain functions closed over the static part of the config."""

    init: Callable[..., Variables]  # (seed) -> Variables
    # (variables, fixed, batch, key, hyper) -> (f32[], (stats, metrics)); hyper: perhaps `momentum`,
    # by which all of BatchNorm's moments move
    loss: Callable[..., Any]
    predict: Callable[..., Any]  # (variables, images) -> predictions in fixed shapes
    score: Callable[..., list[dict[str, float]]]  # ([predictions], split) -> numbers of each, host


class Trainable(NamedTuple):
    """What trains in every member; the rest is not differentiated and has no moments."""

    paths: frozenset[str]
    fixed: frozenset[str] = frozenset()  # BatchNorm layers that use and keep their running moments


def trainable(multiplier: Mapping[str, float]) -> Trainable:
    """What trains, if paths of parameters and of BatchNorm's moments have these multipliers."""
    still = {path for path, rate in multiplier.items() if rate == 0}
    fixed = (path.removesuffix("/mean") for path in still if path.endswith("/mean"))
    return Trainable(frozenset(multiplier.keys() - still), frozenset(fixed))


def frozen_batchnorm(hyper: Mapping[str, Any], always: Iterable[str] = ()) -> dict[str, Any]:
    """The BatchNorm layers that use and keep their running moments: `always`, or in this member."""
    multiplier = hyper.get("multiplier", {})
    means = (path for path in multiplier if path.endswith("/mean"))
    fixed = {path.removesuffix("/mean"): multiplier[path] == 0 for path in means}
    return fixed | dict.fromkeys(always, True)


def init_state(
    variables: Variables,
    tx: optax.GradientTransformation,
    moving: Trainable | None = None,
    auto: bool = False,
) -> State:
    """A member at step 0, with its first weights. auto: some member has `rgn.auto_rates`."""
    params, stats = variables
    trains = {path: leaf for path, leaf in params.items() if not moving or path in moving.paths}
    still = {path: leaf for path, leaf in params.items() if path not in trains}
    weights = Weights(pack(trains), pack(stats))
    ema, copy = (jax.tree.map(jnp.copy, weights) for _ in range(2))
    best = Best(jnp.float32(-jnp.inf), jnp.int32(-1), copy)
    moments = tx.init(weights.params.vector)
    ratios = jnp.zeros(len(trains)) if auto else None
    return State(jnp.int32(0), weights, still, moments, ema, best, jnp.int32(-1), ratios)


def keep_best(state: State, score: Array) -> State:
    """The averaged weights take the place of the best ones if `score` is above theirs."""
    new = Best(score, state.step, state.ema)
    better = score > state.best.score
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), new, state.best)
    return state._replace(best=best)


def make_optimizer(
    name: str, momentum: float, b2: float, clip: float
) -> optax.GradientTransformation:
    """Everything between gradient and learning rate; decay is added by the step, decoupled.

    name: "adamw" (`momentum` is its first coefficient, `b2` its second), "sgd" (torch's) or
    "nesterov". clip: of the gradient's global norm; 0: none.
    """
    rules = {
        "adamw": lambda: optax.scale_by_adam(momentum, b2),
        "sgd": lambda: optax.trace(momentum),
        "nesterov": lambda: optax.trace(momentum, nesterov=True),
    }
    if name not in rules:
        raise UserError(f"optimizer.name = {name!r}: {suggest(name, rules)}")
    limit = optax.clip_by_global_norm(clip) if clip else optax.identity()
    return optax.chain(limit, rules[name]())


def make_schedule(
    steps: int, warmup: int, flat: float, end: float, shape: str = "cosine"
) -> Callable[[Array], Array]:
    """Multiplier of the learning rate: linear warm-up, constant to `flat` of all steps, then down
    to `end` by a cosine or, if `shape` says so, linearly. Raises UserError for another shape.
    """
    bend = max(warmup, round(flat * steps))
    shapes: dict[str, Callable[[Array], Array]] = {
        "cosine": lambda fraction: (1 + jnp.cos(math.pi * fraction)) / 2,
        "linear": lambda fraction: 1 - fraction,
    }
    if shape not in shapes:
        raise UserError(f"schedule.shape = {shape!r}: {suggest(shape, shapes)}")

    def schedule(step):
        up = (step + 1) / max(warmup, 1)
        fraction = jnp.clip((step - bend) / max(steps - bend, 1), 0, 1)
        return jnp.minimum(up, end + (1 - end) * shapes[shape](fraction))

    return schedule


def make_step(
    task: Task,
    tx: optax.GradientTransformation,
    schedule: Callable[[Array], Array],
    moving: Trainable | None = None,
    axes: Sequence[str] = (),
):
    """The step of one member.

    moving: what trains; None is everything. axes: of a mesh that its batch is spread over; the
    task's loss and metrics are then a shard's parts of sums.

    Returns:
        `step(state, batch, hyper) -> (state, metrics)`. hyper: scalars `seed`, `lr`,
        `weight_decay`, `ema` and what the task's loss reads, and perhaps `multiplier`: path ->
        scalar on the learning rate, for parameters and BatchNorm's moments alike; a path that is
        not in it has 1. A multiplier of 0 freezes as `moving` does, in this member only. Where some
        member has them also `pull`: `strength`, and as vectors of the parameters that train `start`
        and `importance`, see `transfer.pull`; and `auto_rgn`, the power of `rgn.auto_rates`. A step
        whose loss or gradient is not finite changes nothing but `diverged_at`, and neither does any
        after it.
    """
    always = frozenset() if moving is None else moving.fixed

    def step(state: State, batch: Any, hyper: dict) -> tuple[State, dict[str, Array]]:
        key, fixed = draws(hyper["seed"], state.step), frozen_batchnorm(hyper, always)
        params, stats = state.weights

        def loss_of(trains):
            variables = Variables({**state.still, **trains}, stats.unpack())
            return task.loss(variables, fixed, batch, key, hyper)

        # With respect to the arrays: that of the cuts from the vector would be a sum of vectors.
        (loss, (new_stats, metrics)), gradient = jax.value_and_grad(loss_of, has_aux=True)(
            params.unpack()
        )
        gradient = pack({path: gradient[path] for path, _ in params.shapes}).vector
        loss, metrics, gradient = jax.lax.psum((loss, metrics, gradient), axes)
        part: Any = 1.0
        if multiplier := hyper.get("multiplier"):
            part = _spread(params, [multiplier.get(path, 1) for path, _ in params.shapes])
            gradient = jnp.where(part == 0, 0, gradient)
        norm = optax.tree.norm(gradient)
        kernels = [len(shape) > 1 for _, shape in params.shapes]
        if (ratios := state.ratios) is not None:
            now = map(rgn.of_tensor, replace(params, vector=gradient).unpack().values(),
                      params.unpack().values())  # fmt: skip
            ratios += (jnp.stack([*now]) - ratios) / jnp.minimum(state.step + 1, rgn.MEMORY)
            part *= _spread(params, rgn.auto_rates(ratios, np.array(kernels), hyper["auto_rgn"]))

        update, moments = tx.update(gradient, state.moments, params.vector)
        rate = hyper["lr"] * schedule(state.step)
        decays = np.repeat(kernels, params.sizes)
        update += hyper["weight_decay"] * jnp.where(decays, params.vector, 0)
        if "regularizer" in hyper:
            strength, start, importance = (
                hyper["regularizer"][k] for k in ("strength", "start", "importance")
            )
            stiff = regularizers.stiffness(strength, importance, rate)
            metrics = {**metrics, "regularizer": regularizers.penalty(stiff, params.vector, start)}
            update += stiff * (params.vector - start)
        new = Weights(
            replace(params, vector=params.vector - rate * part * update),
            pack({path: new_stats[path] for path, _ in stats.shapes}),
        )

        # A short memory first: an average over the first steps would be mostly of the random start.
        keep = jnp.minimum(hyper["ema"], (1.0 + state.step) / (10.0 + state.step))
        # By the difference: what stands still stays the same to the last bit.
        ema = jax.tree.map(lambda old, new: old + (1 - keep) * (new - old), state.ema, new)

        sound = (state.diverged_at < 0) & jnp.isfinite(loss) & jnp.isfinite(norm)
        new, moments, ema, ratios = jax.tree.map(
            lambda new, old: jnp.where(sound, new, old),
            (new, moments, ema, ratios), (state.weights, state.moments, state.ema, state.ratios),
        )  # fmt: skip
        stopped = jnp.where(sound | (state.diverged_at >= 0), state.diverged_at, state.step)
        state = state._replace(
            step=state.step + 1, weights=new, moments=moments, ema=ema, diverged_at=stopped,
            ratios=ratios,
        )  # fmt: skip
        return state, {"loss": loss, "lr": rate, "gradient_norm": norm, **metrics}

    return step


def _spread(like: Packed, values: Any) -> Array:
    """A vector laid out as `like`, of one value for each of its arrays."""
    return jnp.concatenate([jnp.full(n, v) for v, n in zip(values, like.sizes, strict=True)])
