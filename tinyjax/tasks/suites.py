"""The splits of a config's `data`: the training set and the suites."""

from collections.abc import Iterable, Sequence
from typing import Any

from tinyjax.core import Split
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
