"""What steps read of a training set, step by step."""

import itertools
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from tinyjax.data import streaming
from tinyjax.data.sampling import Streamed, Whole
from tinyjax.population.devices import DeviceLayout


def make_input_pipeline(
    kind: ModuleType, training: Any, config: ConfigDict, seed: int, devices: DeviceLayout
) -> Callable[..., Iterator[Any]]:
    """`of(start)` gives what steps `start`, `start` + 1, .. read, see `batch_at`: all of a set that
    lives on the device, over and over; or of one that stays on disk their batches, in the order of
    `seed`, which all members share. `of(start, True)`: batches whole on every device.
    """
    if not config.data.stream:
        data = devices.everywhere(kind.on_device(training))
        return lambda start=0, whole=False: itertools.repeat(data)
    element = kind.element(training, config)

    def of(start=0, whole=False):
        rows, place = (None, devices.everywhere) if whole else devices.batches(config.batch)
        kind_of = Whole if whole else Streamed
        found = streaming.batches(
            element, len(training.images), config.batch, seed, start, config.data.workers, rows
        )
        return (kind_of(place(own)) for own in found)

    return of
