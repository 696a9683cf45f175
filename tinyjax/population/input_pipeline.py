"""The training data that steps read: a resident set, or batches streamed from disk."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jax import Array
from ml_collections import ConfigDict

from tinyjax.core import Split, Task
from tinyjax.data import streaming
from tinyjax.data.sampling import ReplicatedBatch, StreamedBatch, gather, shard_rows
from tinyjax.population.devices import DeviceLayout


def make_input_pipeline(
    task: Task, training: Split, config: ConfigDict, seed: int, layout: DeviceLayout
) -> Callable[..., Iterator[Any]]:
    """`pipeline(start=0, replicated=False)`: the data of steps `start`, `start` + 1, ..., each for
    `batch_at`.

    A resident set is the same arrays at every step. A streamed set gives batches in the order of
    `seed`, which all members share. replicated: every device gets whole batches.
    """
    if not config.data.stream:
        data = layout.replicate(task.device_arrays(training))
        return lambda start=0, replicated=False: itertools.repeat(data)
    source = task.stream_source(training, config)

    def pipeline(start=0, replicated=False):
        rows, place = (
            (None, layout.replicate) if replicated else layout.batch_placement(config.batch)
        )
        streamed = ReplicatedBatch if replicated else StreamedBatch
        batches = streaming.batches(
            source, len(training.names), config.batch, seed, start, config.data.workers, rows
        )
        return (streamed(place(batch)) for batch in batches)

    return pipeline


def batch_at(
    sample: Callable[..., Array],
    data: Mapping[str, Array] | StreamedBatch | ReplicatedBatch,
    subset: Mapping[str, Any],
    seed: Array,
    step: Array,
    batch: int,
    axes: Sequence[str] = (),
) -> dict[str, Array]:
    """A member's batch at a step; of a batch that is spread over mesh `axes`, its own rows.

    sample: `Task.sample`. data: the training set, arrays [N, ...], or a streamed batch. subset: of
    the member: `indices` that it draws from, and `arrays` that replace those of `data`.
    """
    if isinstance(data, StreamedBatch | ReplicatedBatch):
        return data.rows
    size = len(next(iter(data.values())))
    index = sample(seed, step, batch, size, subset.get("indices"))
    return gather({**data, **subset.get("arrays", {})}, shard_rows(index, axes))
