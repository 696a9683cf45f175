"""The splits of a config's `data`: the training set and the suites."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tinyjax.core import Split, Task
from tinyjax.errors import UserError
from tinyjax.tasks import get_task


def uncorrupted_suites(data: Any) -> list[str]:
    """The suites that are scored in training; corrupted ones would take dozens of passes."""
    return [name for name, suite in data.suites.items() if "corrupt" not in suite]


def load_suites(
    task: str, data: Any, classes: Sequence[str], names: Iterable[str]
) -> dict[str, Split]:
    """Suites by name. classes: those of the training split."""
    load = get_task(task).load
    return {name: load(data, data.suites[name], classes=classes) for name in names}


def load_splits(task: str, data: Any) -> tuple[Split, dict[str, Split]]:
    """The training split and the uncorrupted suites of a config's `data`."""
    training = get_task(task).load(data, data.train)
    return training, load_suites(task, data, training.classes, uncorrupted_suites(data))


def load_suite(
    task: str,
    data: Any,
    name: str,
    classes: Sequence[str],
    inputs: Iterable[tuple[str, tuple[int, ...]]],
    corruption: tuple[str, int] | None = None,
) -> Split:
    """A suite for a trained network. inputs: name and shape of each of its inputs.

    corruption: name and severity.

    Raises UserError as `Task.load` does, and for images with another number of channels.
    """
    split = get_task(task).load(data, data.suites[name], classes, corruption)
    for key, shape in inputs:
        channels, expected = split.inputs[key].shape[1:][-1:], shape[-1:]
        if channels != expected:
            raise UserError(
                f"data.suites.{name}: images with {channels[0]} channels, but the network reads "
                f"{expected[0]}; give channels = {expected[0]}"
            )
    return split


def check_leaks(
    task: Task, trained_on: Iterable[Mapping[str, Any]], suites: Mapping[str, Split]
) -> None:
    """Raise UserError for suites with identities that a network or its starting weights were
    trained on.

    trained_on: the identity records of its weights.
    """
    if task.find_leak:
        leaks = {
            f"data.suites.{name}: {leak}": None
            for record in trained_on
            for name, split in suites.items()
            if (leak := task.find_leak(record, split))
        }
        if leaks:
            raise UserError(*leaks)
