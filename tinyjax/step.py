"""The training step of one member, shared by all tasks: gradient, freezing, clipping, optimizer,
EMA, divergence.

`step(state, batch, hyper) -> (state, metrics)` is pure. Every value that a sweep may vary without
changing shapes is an array in `hyper`. That includes the learning rate, which is applied here and
not inside the optimizer.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from tinyjax.core import (
    Arrays,
    Best,
    ModelFunctions,
    Packed,
    State,
    Trainable,
    Variables,
    Weights,
    pack,
)
from tinyjax.data.sampling import step_key
from tinyjax.errors import UserError, suggest
from tinyjax.transfer import regularizers, rgn

VALUE_AND_GRAD = partial(jax.value_and_grad, has_aux=True)


def select_trainable(multipliers: Mapping[str, float]) -> Trainable:
    """The paths, of parameters and of running statistics, whose multiplier is not 0."""
    frozen = {path for path, multiplier in multipliers.items() if multiplier == 0}
    layers = (path.removesuffix("/mean") for path in frozen if path.endswith("/mean"))
    return Trainable(frozenset(multipliers.keys() - frozen), frozenset(layers))


def frozen_batchnorm(hyper: Mapping[str, Any], always: Iterable[str] = ()) -> dict[str, Any]:
    """Layer -> whether its BatchNorm uses its running statistics and does not update them.

    always: layers that are frozen in every member. The others depend on the member's multipliers.
    """
    multiplier = hyper.get("multiplier", {})
    means = (path for path in multiplier if path.endswith("/mean"))
    frozen = {path.removesuffix("/mean"): multiplier[path] == 0 for path in means}
    return frozen | dict.fromkeys(always, True)


def init_state(
    variables: Variables,
    tx: optax.GradientTransformation,
    trainable: Trainable | None = None,
    auto_rgn: bool = False,
) -> State:
    """A member's state at step 0.

    variables: the initial weights. trainable: None trains everything. auto_rgn: whether any member
    uses `rgn.auto_lr_multipliers`.
    """
    params, stats = variables
    trained = {p: leaf for p, leaf in params.items() if not trainable or p in trainable.paths}
    frozen = {path: leaf for path, leaf in params.items() if path not in trained}
    weights = Weights(pack(trained), pack(stats))
    ema, copy = (jax.tree.map(jnp.copy, weights) for _ in range(2))
    best = Best(jnp.float32(-jnp.inf), jnp.int32(-1), copy)
    opt_state = tx.init(weights.params.vector)
    ratios = jnp.zeros(len(trained)) if auto_rgn else None
    return State(jnp.int32(0), weights, frozen, opt_state, ema, best, jnp.int32(-1), ratios)


def keep_best(state: State, score: Array) -> State:
    """Keep the averaged weights as the best ones if `score` exceeds the best score so far."""
    new = Best(score, state.step, state.ema)
    better = score > state.best.score
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), new, state.best)
    return state._replace(best=best)


def make_optimizer(
    name: str, momentum: float, b2: float, clip_norm: float
) -> optax.GradientTransformation:
    """The transformation of the gradient. The step then adds decoupled weight decay and applies the
    learning rate.

    name: "adamw" (b1 = `momentum`), "sgd" (as torch's) or "nesterov". clip_norm: maximum global
    norm of the gradient; 0: no clipping. Raises UserError for an unknown name.
    """
    rules = {
        "adamw": lambda: optax.scale_by_adam(momentum, b2),
        "sgd": lambda: optax.trace(momentum),
        "nesterov": lambda: optax.trace(momentum, nesterov=True),
    }
    if name not in rules:
        raise UserError(f"optimizer.name = {name!r}: {suggest(name, rules)}")
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    return optax.chain(clip, rules[name]())


def make_schedule(
    steps: int,
    warmup: int,
    decay_start: float,
    final_lr_scale: float,
    shape: str = "cosine",
    milestones: Sequence[float] = (),
) -> Callable[[Array], Array]:
    """step -> multiplier of the learning rate: linear warm-up, constant up to the fraction
    `decay_start` of all steps, then a decay to `final_lr_scale`.

    shape: "cosine" or "linear", of the decay; or "steps": the multiplier is divided by 10 after
    each of the `milestones`, fractions of all steps. Raises UserError for another shape.
    """
    start = max(warmup, round(decay_start * steps))
    shapes: dict[str, Callable[[Array], Array]] = {
        "cosine": lambda fraction: (1 + jnp.cos(math.pi * fraction)) / 2,
        "linear": lambda fraction: 1 - fraction,
    }
    if shape not in (*shapes, "steps"):
        raise UserError(f"schedule.shape = {shape!r}: {suggest(shape, (*shapes, 'steps'))}")
    edges = np.array([round(fraction * steps) for fraction in milestones], np.int32)

    def schedule(step):
        warm = (step + 1) / max(warmup, 1)
        if shape == "steps":
            return jnp.minimum(warm, 0.1 ** (step >= edges).sum())
        fraction = jnp.clip((step - start) / max(steps - start, 1), 0, 1)
        return jnp.minimum(warm, final_lr_scale + (1 - final_lr_scale) * shapes[shape](fraction))

    return schedule


def make_step(
    model: ModelFunctions,
    tx: optax.GradientTransformation,
    schedule: Callable[[Array], Array],
    trainable: Trainable | None = None,
    axes: Sequence[str] = (),
    value_and_grad: Callable[..., Any] = VALUE_AND_GRAD,
):
    """The training step of one member.

    Args:
        trainable: None trains everything.
        axes: mesh axes that the member's batch is sharded over; the model's loss and metrics are
            then the terms of one shard, which are summed here.
        value_and_grad: of a loss `(trained parameters, all other arrays) -> (f32[], aux)`;
            `population.wide` has one for all members together.

    Returns:
        `step(state, batch, hyper) -> (state, metrics)`. hyper: scalars `seed`, `lr`,
        `weight_decay`, `ema`, the values that the task's loss reads, and optionally

        - `multiplier`: path -> factor on the learning rate, for parameters and running statistics;
          1 for a path that is missing, and 0 freezes the path in this member;
        - `regularizer`: `strength`, and the vectors `start` and `importance` over the trainable
          parameters, see `transfer.regularizers`;
        - `auto_rgn`: the `power` of `rgn.auto_lr_multipliers`.

        A step with a non-finite loss or gradient changes only `diverged_at` and `step`; later steps
        change only `step`.
    """
    always = frozenset() if trainable is None else trainable.frozen_batchnorm

    def step(state: State, batch: Any, hyper: dict) -> tuple[State, dict[str, Array]]:
        params, stats = state.weights
        frozen = frozen_batchnorm(hyper, always)
        loss, new_stats, metrics, gradient = _loss_and_gradient(
            model, state, batch, frozen, hyper, axes, value_and_grad
        )
        scale: Any = 1.0
        if multiplier := hyper.get("multiplier"):
            scale = _repeat(params, [multiplier.get(path, 1) for path, _ in params.shapes])
            gradient = jnp.where(scale == 0, 0, gradient)
        norm = optax.tree.norm(gradient)
        is_kernel = np.array([path.endswith("kernel") for path, _ in params.shapes])
        ratios = _gradient_ratios(state, gradient)
        if ratios is not None:
            scale *= _repeat(params, rgn.auto_lr_multipliers(ratios, is_kernel, hyper["auto_rgn"]))

        update, opt_state = tx.update(gradient, state.opt_state, params.vector)
        lr = hyper["lr"] * schedule(state.step)
        decayed = np.repeat(is_kernel, params.sizes)
        update += hyper["weight_decay"] * jnp.where(decayed, params.vector, 0)
        if "regularizer" in hyper:
            regularization, penalty = _regularize(params.vector, hyper["regularizer"], lr)
            metrics = {**metrics, "regularizer": penalty}
            update += regularization
        new = Weights(
            replace(params, vector=params.vector - lr * scale * update),
            pack({path: new_stats[path] for path, _ in stats.shapes}),
        )
        # A lower decay at first: otherwise the average would be mostly the initial weights.
        decay = jnp.minimum(hyper["ema"], (1.0 + state.step) / (10.0 + state.step))
        # In this form the average of weights that do not change stays the same to the last bit.
        ema = jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), state.ema, new)

        finite = (state.diverged_at < 0) & jnp.isfinite(loss) & jnp.isfinite(norm)
        new, opt_state, ema, ratios = jax.tree.map(
            lambda new, old: jnp.where(finite, new, old),
            (new, opt_state, ema, ratios),
            (state.weights, state.opt_state, state.ema, state.gradient_ratios),
        )
        diverged_at = jnp.where(finite | (state.diverged_at >= 0), state.diverged_at, state.step)
        state = state._replace(
            step=state.step + 1, weights=new, opt_state=opt_state, ema=ema,
            diverged_at=diverged_at, gradient_ratios=ratios,
        )  # fmt: skip
        return state, {"loss": loss, "lr": lr, "gradient_norm": norm, **metrics}

    return step


def _loss_and_gradient(
    model: ModelFunctions,
    state: State,
    batch: Any,
    frozen: Mapping[str, Any],
    hyper: Mapping[str, Any],
    axes: Sequence[str],
    value_and_grad: Callable[..., Any],
) -> tuple[Array, Arrays, dict[str, Array], Array]:
    """Loss, new running statistics, metrics and the gradient as a vector, summed over `axes`."""
    params, stats = state.weights
    always = {layer: True for layer, value in frozen.items() if value is True}
    in_some_members = {layer: value for layer, value in frozen.items() if value is not True}

    def loss_of(trained, rest):
        untrained, stats, frozen, batch, hyper = rest
        key = step_key(hyper["seed"], hyper["step"])
        variables = Variables({**untrained, **trained}, stats)
        return model.loss(variables, frozen | always, batch, key, hyper)

    # Differentiate with respect to the arrays: through slices of the vector, the gradient would be
    # a sum of vectors.
    hyper = {**hyper, "step": state.step}
    rest = state.frozen, stats.unpack(), in_some_members, batch, hyper
    (loss, (new_stats, metrics)), gradients = value_and_grad(loss_of)(params.unpack(), rest)
    gradient = pack({path: gradients[path] for path, _ in params.shapes}).vector
    loss, metrics, gradient = jax.lax.psum((loss, metrics, gradient), axes)
    return loss, new_stats, metrics, gradient


def _gradient_ratios(state: State, gradient: Array) -> Array | None:
    """Running averages of the tensors' relative gradient norms, if any member uses them."""
    if (ratios := state.gradient_ratios) is None:
        return None
    params = state.weights.params
    gradients = replace(params, vector=gradient).unpack().values()
    current = jnp.stack([*map(rgn.tensor_rgn, gradients, params.unpack().values())])
    return ratios + (current - ratios) / jnp.minimum(state.step + 1, rgn.AVERAGING_STEPS)


def _regularize(weights: Array, regularizer: Mapping, lr: Array) -> tuple[Array, Array]:
    """The regularizer's term of the update, before the learning rate, and its penalty."""
    strength, start, importance = (regularizer[k] for k in ("strength", "start", "importance"))
    stiffness = regularizers.penalty_coefficients(strength, importance, lr)
    penalty = regularizers.penalty(stiffness, weights, start)
    return stiffness * (weights - start), penalty


def _repeat(packed: Packed, values: Any) -> Array:
    """A vector like `packed.vector` with one value for all elements of each array."""
    return jnp.concatenate([jnp.full(n, v) for v, n in zip(values, packed.sizes, strict=True)])
