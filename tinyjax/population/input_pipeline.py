"""The data of training steps: a training set on the devices, or batches streamed from disk."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jax import Array
from ml_collections import ConfigDict

from tinyjax.core import Split, Task
from tinyjax.data import streaming
from tinyjax.data.planar import to_planar
from tinyjax.data.repeats import RepeatedSource, draw_repeats
from tinyjax.data.sampling import ReplicatedBatch, StreamedBatch, gather, shard_rows
from tinyjax.population.devices import DeviceLayout


def make_input_pipeline(
    task: Task, training: Split, config: ConfigDict, seed: int, layout: DeviceLayout
) -> Callable[..., Iterator[Any]]:
    """Return `pipeline(start=0, replicated=False)`, which yields the data of steps `start`,
    `start` + 1, ... for `batch_at`.

    A training set on the devices is yielded at every step. A streamed one yields batches in the
    order of `seed`, which all members share. replicated: every device gets all rows of a batch.
    """
    if not config.data.stream:
        data = layout.replicate(resident_data(task, training, layout.platform))
        return lambda start=0, replicated=False: itertools.repeat(data)
    source, num_samples = task.stream_source(training, config), len(training.names)
    if threshold := config.data.repeat_threshold:
        indices = draw_repeats(task.sample_labels(training), seed, threshold)
        source, num_samples = RepeatedSource(source, indices), len(indices)

    def pipeline(start=0, replicated=False):
        rows, place = (
            (None, layout.replicate) if replicated else layout.batch_placement(config.batch)
        )
        batch_type = ReplicatedBatch if replicated else StreamedBatch
        batches = streaming.batches(
            source, num_samples, config.batch, seed, start, config.data.workers, rows
        )
        return (batch_type(place(batch)) for batch in batches)

    return pipeline


def resident_data(task: Task, training: Split, platform: str) -> dict[str, Any]:
    """The training set as `Task.device_arrays` returns it, with `PlanarImages` for a TPU."""
    data = task.device_arrays(training)
    return {**data, "image": to_planar(data["image"])} if platform == "tpu" else data


def batch_at(
    sample: Callable[..., Array],
    data: Mapping[str, Any] | StreamedBatch | ReplicatedBatch,
    subset: Mapping[str, Any],
    seed: Array,
    step: Array,
    config: ConfigDict,
    axes: Sequence[str] = (),
) -> dict[str, Array]:
    """A member's batch at a step, or this shard's rows of it if it is spread over mesh `axes`.

    Args:
        sample: `Task.sample`.
        data: the training set, see `resident_data`, or a streamed batch.
        subset: the member's `indices` to draw from, and `arrays` that replace those of `data`.
    """
    if isinstance(data, StreamedBatch | ReplicatedBatch):
        return data.rows
    index = sample(seed, step, config, data, subset.get("indices"))
    return gather({**data, **subset.get("arrays", {})}, shard_rows(index, axes))
