"""The suites of a group of members: which ones are scored, their images, and slices by class."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from tinyjax import config as configs
from tinyjax.data.corruptions.corrupt import suite_corruptions
from tinyjax.errors import UserError, shorten, suggest
from tinyjax.evaluation.groups import Group
from tinyjax.metrics.slices import class_slice, class_slice_name
from tinyjax.run.logs import log
from tinyjax.tasks import get_task
from tinyjax.tasks.suites import check_leaks, load_suite

Corruption = tuple[str, int] | None  # name and severity; None: the unchanged images
Shapes = tuple[tuple[str, tuple[int, ...]], ...]


def select_suites(
    suites: Any, selected: Sequence[str] | None
) -> tuple[tuple[str, ...], dict[str, list[Corruption]]]:
    """The selected suites without corruptions, and suite -> corruptions of the others. Each list
    begins with None, the unchanged images.

    Raises UserError for an unknown suite.
    """
    names = selected or list(suites)
    for name in names:
        if name not in suites:
            raise UserError(f"--suite {name}: {suggest(name, suites)}")
    clean = tuple(name for name in names if "corrupt" not in suites[name])
    corrupted = {n: [None, *suite_corruptions(n, suites[n])] for n in names if n not in clean}
    return clean, corrupted


def load_clean(group: Group, names: tuple[str, ...]) -> dict[str, Any]:
    """The uncorrupted suites of a group, by name.

    Raises UserError as `load_suite` and `check_leaks` do, and for images of another size than an
    exported file reads.
    """
    splits = _load_clean(*_suite_key(group), names)
    _check(group, splits)
    return splits


def load_corrupted(group: Group, name: str, corruption: Corruption) -> Any:
    """A suite of a group under a corruption. Raises UserError as `load_clean` does."""
    split = _load_corrupted(*_suite_key(group), name, corruption)
    _check(group, {name: split})
    return split


def class_slices(present: Mapping[str, tuple[str, ...]], name: str, split: Any) -> dict[str, Any]:
    """For comparison with suites that have fewer classes: suite `name` with only their classes.

    present: suite -> classes of its objects.
    """
    subsets = {classes for classes in present.values() if classes and {*classes} < {*present[name]}}
    return {
        class_slice_name(classes): class_slice(len(split.names), classes)
        for classes in sorted(subsets)
    }


def _check(group: Group, splits: Mapping[str, Any]) -> None:
    check_leaks(get_task(group.config.task), group.trained_on, splits)
    if group.any_size:
        return
    height, width, _ = group.metadata["inputs"]["image"]
    for name, split in splits.items():
        h, w = split.inputs["image"].shape[1:3]
        if (h, w) != (height, width):
            raise UserError(
                f"data.suites.{name}: images of {w} x {h}, but the file reads {width} x {height}; "
                f"give size = ({height}, {width}) in the config of --suites"
            )


def _suite_key(group: Group) -> tuple[str, str, tuple[str, ...], Shapes]:
    """The cache key of a group's suites: task, data config as JSON, classes, input shapes."""
    inputs = {name: tuple(shape) for name, shape in group.metadata["inputs"].items()}
    classes = tuple(group.metadata["classes"])
    return group.config.task, configs.to_json(group.config.data), classes, (*inputs.items(),)


@lru_cache(maxsize=1)  # the groups of a sweep mostly share their suites
def _load_clean(
    task: str, data_json: str, classes: tuple[str, ...], inputs: Shapes, names: tuple[str, ...]
) -> dict[str, Any]:
    task_functions, data = get_task(task), configs.from_json(data_json)
    splits = {name: load_suite(task, data, name, classes, inputs) for name in names}
    if task_functions.class_mismatch and (lines := task_functions.class_mismatch(splits)):
        log.info("\n".join(lines))
    fields, known = data.get("slices", {}), set()
    if task_functions.slices:
        sliced = (task_functions.slices(split, fields) for split in splits.values())
        known = {name.partition("=")[0] for slices in sliced for name in slices}
    for field in {*fields} - known if splits else ():
        log.warning(f"data.slices.{field}: no image of {shorten(splits)} has this field")
    return splits


@lru_cache(maxsize=1)
def _load_corrupted(
    task: str,
    data_json: str,
    classes: tuple[str, ...],
    inputs: Shapes,
    name: str,
    corruption: Corruption,
) -> Any:
    return load_suite(task, configs.from_json(data_json), name, classes, inputs, corruption)
