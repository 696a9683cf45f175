"""Types that all packages share: weights, a member's state, a data split, a task.

All modules that compute import this one, which therefore prepares jax.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import register_dataclass

from tinyjax.backends import skip_missing_tpu

skip_missing_tpu()

Arrays = dict[str, Array]  # path -> array


class Variables(NamedTuple):
    """The arrays that a network computes with."""

    params: Arrays
    stats: Arrays  # BatchNorm's running statistics


@partial(register_dataclass, data_fields=["vector"], meta_fields=["shapes"])
@dataclass(frozen=True)
class Packed:
    """Arrays by path, concatenated into one vector [..., size].

    Weights have this form between steps: the update of hundreds of small arrays is thousands of
    loops, which take longer to compile than the network (docs/performance.md).
    """

    vector: Array
    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def sizes(self) -> list[int]:
        return [math.prod(shape) for _, shape in self.shapes]

    def unpack(self) -> Arrays:
        """The arrays by path, each [..., *shape]."""
        arrays, start = {}, 0
        for (path, shape), size in zip(self.shapes, self.sizes, strict=True):
            flat = self.vector[..., start : start + size]
            arrays[path] = flat.reshape((*flat.shape[:-1], *shape))
            start += size
        return arrays


def pack(arrays: Arrays) -> Packed:
    """Pack one member's arrays, which share a dtype, in their order.

    Without arrays the vector has one element, because orbax cannot save empty arrays.
    """
    vector = jnp.concatenate([*map(jnp.ravel, arrays.values())]) if arrays else jnp.zeros(1)
    return Packed(vector, tuple((path, leaf.shape) for path, leaf in arrays.items()))


class Weights(NamedTuple):
    """The part of a network that training changes."""

    params: Packed  # trainable parameters
    stats: Packed  # BatchNorm's running statistics


class Best(NamedTuple):
    """The averaged weights with the best score so far.

    Before the first evaluation the score is -inf and the step -1.
    """

    score: Array
    step: Array
    weights: Weights


class State(NamedTuple):
    """The complete state of one member: the contents of a checkpoint."""

    step: Array  # int32, number of updates, which is also the position in the data
    weights: Weights
    frozen: Arrays  # parameters that no member trains
    opt_state: Any  # of weights.params.vector
    ema: Weights
    best: Best
    diverged_at: Array  # int32, step of the first non-finite loss or gradient; -1 while training
    gradient_ratios: Array | None = None  # f32[tensors], for optimizer.auto_rgn

    def variables(self, weights: Weights) -> Variables:
        """The network's variables with `state.weights`, `state.ema` or `state.best.weights`, on the
        host, where slicing compiles nothing.
        """
        frozen, (params, stats) = jax.device_get((self.frozen, weights))
        return Variables({**frozen, **params.unpack()}, stats.unpack())


class Trainable(NamedTuple):
    """The parameters that at least one member trains.

    All others are not differentiated and have no optimizer state.
    """

    paths: frozenset[str]
    frozen_batchnorm: frozenset[str] = frozenset()  # layers that do not update their statistics


class Split(Protocol):
    """One split of a data set, on the host: N samples. Tasks add their own fields."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Arrays [N, ...] that the network reads, by name; indexable like numpy arrays."""

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each sample."""

    @property
    def classes(self) -> tuple[str, ...]: ...


class ModelFunctions(NamedTuple):
    """Pure functions of one network, closed over the static part of the config."""

    init: Callable[..., Variables]  # (seed) -> Variables
    # (variables, frozen_batchnorm, batch, key, hyper) -> (f32[], (stats, metrics)). `hyper` has the
    # number of the step, and may have `momentum`, with which all BatchNorm layers then update their
    # running statistics.
    loss: Callable[..., Any]
    predict: Callable[..., dict[str, Array]]  # (variables, inputs) -> predictions in fixed shapes


class ReportWords(NamedTuple):
    """What reports call things of a task."""

    resampled: str = "images"  # what intervals are over, besides seeds
    slices: str = "slices"
    whole_suite: str = "all"  # the slice that has no name
    slices_note: str = "A slice is the subset of a suite with that condition."
    other_suites: str = "Under shift"  # begins a sentence on suites that are not in domain


DEFAULT_WORDS = ReportWords()


@dataclass(frozen=True, kw_only=True)
class Task:
    """The functions and constants of a task.

    `split` is the split that `load` returns, `config` a locked ConfigDict.
    """

    name: str
    inputs: tuple[str, ...]  # names of `Split.inputs`, in the order of the network's arguments
    monitor: str  # the metric that selects the best weights
    # (config) -> {metric: axis label} of the main scores, the monitor first
    metrics: Callable[[Mapping[str, Any]], Mapping[str, str]]
    compile_seconds: float  # approximate, until a program's first step, on two cores
    pixel_seconds: float  # of a step, per pixel of a window, besides multiply-adds

    # ---- data
    load: Callable[..., Any]  # (config.data, split config, classes=(), corruption=None) -> split
    describe_data: Callable[..., list[str]]  # (training split, suites, config, folder) -> log lines
    # (seed, step, config, device arrays, subset=None) -> int32[config.batch]
    sample: Callable[..., Array]
    # (split) -> arrays [N, ...] that batches are drawn from; "tables": arrays for `sample` alone
    device_arrays: Callable[..., dict[str, Any]]
    stream_source: Callable[..., Any]  # (split, config) -> (sample number, generator) -> sample
    sample_labels: Callable[..., list[Any]]  # (split) -> int[objects] of each sample
    # (split, mask) -> {class: (samples, objects)}
    class_counts: Callable[..., dict[str, tuple[int, int]]]
    classes_present: Callable[..., tuple[str, ...]]  # (split) -> classes with a sample

    # ---- network
    build: Callable[..., nn.Module]  # (config, number of classes, supernet=None)
    # (config, classes, input shapes, supernet=None, axes=()) -> ModelFunctions
    model_functions: Callable[..., ModelFunctions]

    # ---- results; predictions are dicts of arrays [N, ...], one for each member
    score: Callable[..., list[dict[str, float]]]  # ([predictions], split, config)
    # ([predictions], split, config, slices, counts) -> [metrics.slices.SuiteResult]
    evaluate_slices: Callable[..., list[Any]]
    score_table: Callable[..., str]  # ({suite: scores}) -> text
    plot_samples: Callable[..., None]  # (split, predictions, path)
    # (folder, suites, predictions, scores, class counts, config)
    write_report: Callable[..., None]

    # ---- optional
    # (split, mask, config) -> arrays that the loss reads besides the numbers of config.loss
    loss_arrays: Callable[..., dict[str, Any]] | None = None
    # (split, mask) -> device arrays that replace those of the split
    subset_arrays: Callable[..., dict[str, Any]] | None = None
    to_file_pixels: Callable[..., dict[str, Any]] | None = None  # (predictions, split)
    # (split, config.data.slices) -> {name: Slice}
    slices: Callable[..., dict[str, Any]] | None = None
    class_mismatch: Callable[..., list[str]] | None = None  # ({suite: split}) -> log lines
    scores_by_frequency: Callable[..., dict[str, float]] | None = None  # (class counts, scores)
    # (training split) -> the identities that it shows, as JSON types, which the weights keep
    identity_record: Callable[..., dict[str, Any]] | None = None
    # (an identity record, split) -> why weights trained on these identities must not be scored on
    # the split, or ""
    find_leak: Callable[..., str] | None = None
    # Whether class layers are new, instead of an error, if starting weights have other classes.
    renews_class_layers: bool = False
    # (suite, split, members, `SuiteResult.examples` of each, config)
    # -> reporting.galleries.Gallery | None
    draw_gallery: Callable[..., Any] | None = None
    words: ReportWords = DEFAULT_WORDS
