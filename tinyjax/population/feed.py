"""What steps read of a training set, step by step."""

import itertools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from tinyjax.data import disk
from tinyjax.data.stream import Streamed
from tinyjax.population.shard import Layout


def feed(
    kind: ModuleType, training: Any, config: ConfigDict, seed: int, devices: Layout
) -> Callable[..., Iterator[Any]]:
    """`of(start)` gives what steps `start`, `start` + 1, .. read, see `batch_at`: all of a set that
    lives on the device, over and over; or of one that stays on disk their batches, in the order of
    `seed`, which all members share.
    """
    if not config.data.stream:
        data = devices.everywhere(kind.on_device(training))
        return lambda start=0: itertools.repeat(data)
    element = kind.element(training, config)

    def of(start=0):
        rows = disk.batches(
            element, len(training.images), config.batch, seed, start, config.data.workers
        )
        return (Streamed(devices.everywhere(own)) for own in rows)

    return of
