"""Check a config before anything is loaded or compiled."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from tinyjax.config.parsing import leaves_with_path, with_fields
from tinyjax.errors import UserError, run_all, suggest
from tinyjax.population.search_space import Member

# Ranges of fields for which other values would silently do something unintended.
BOUNDS = {
    "seed": (0, 2**31 - 1),
    **dict.fromkeys(("batch", "schedule.steps"), (1, math.inf)),
    **dict.fromkeys(("log_every", "save_every", "eval_every"), (1, math.inf)),
    **dict.fromkeys(("model.batchnorm_eps", "augment.mixup", "augment.cutmix"), (0, math.inf)),
    **dict.fromkeys(("subset.fraction", "data.repeat_threshold"), (0, 1)),
    **dict.fromkeys(("model.neck_width", "model.head_depth", "roi.canonical_size"), (0, math.inf)),
    "model.neck_repeats": (1, math.inf),
    **dict.fromkeys(("nms.iou_threshold", "nms.score_threshold"), (0, 1)),
    **dict.fromkeys(("proposals.iou_threshold", "loss.focal_alpha"), (0, 1)),
    **dict.fromkeys(("nms.max_detections", "nms.pre_nms_top_k"), (1, math.inf)),
    **dict.fromkeys(("subset.shots", "optimizer.backbone_lr_scale"), (0, math.inf)),
    "optimizer.layer_decay": (0, 1),
    "optimizer.clip_norm": (0, math.inf),
    **dict.fromkeys(("optimizer.auto_rgn", "regularizer.strength"), (0, math.inf)),
    "regularizer.batches": (1, math.inf),
    "data.workers": (0, math.inf),
    "loss.federated_classes": (0, math.inf),
}


def check_sweep_options(
    config: Any, is_sweep: bool, shard: tuple[int, int], member_batching: str | None
) -> None:
    """Raise UserError for phases in a sweep, and for options of a sweep in a single run."""
    if is_sweep and config.phases:
        raise UserError(
            "phases: a sweep cannot have phases; run a separate sweep for each phase, with init"
        )
    if member_batching and not is_sweep:
        raise UserError(f"--member-batching {member_batching}: only a sweep has members to batch")
    if shard[1] > 1 and not is_sweep:
        raise UserError(f"--shard {shard[0]}/{shard[1]}: only a sweep has shards")


def check_config(config: Any) -> None:
    """Raise UserError for all invalid values that show without the data and the weights."""
    from tinyjax.transfer import freezing

    checks = (
        *(_check_bounds, _check_monitor, _check_corruptions, _check_suites, _check_fields),
        _check_model,
    )
    run_all(
        *(partial(check, config) for check in checks), lambda: freezing.parse_rules(config.freeze)
    )


def check_members(config: Any, members: Sequence[Member]) -> None:
    """Raise UserError as `check_config` does, for each member."""
    for member in members:
        check_config(with_fields(config, member.point))


def _check_model(config: Any) -> None:
    """Raise UserError for an unknown backbone, and for fields of `model` that it does not allow."""
    from tinyjax.tasks import get_task

    get_task(config.task).build(config, 1)


def _check_bounds(config: Any) -> None:
    fields, mistakes = dict(leaves_with_path(config.to_dict())), []
    for name, (low, high) in BOUNDS.items():
        value = fields.get(name, low)  # a detector has no augment.mixup, for example
        if not low <= value <= high or value == math.inf:
            allowed = f"{low} or more" if high == math.inf else f"{low} to {high}"
            mistakes.append(f"{name} = {value}: give {allowed}")
    _raise_all(mistakes)


def _check_monitor(config: Any) -> None:
    suites, monitor = config.data.suites, config.monitor
    if monitor not in suites:
        raise UserError(f"monitor = {monitor!r}: no such suite; {suggest(monitor, suites)}")
    if "corrupt" in suites[monitor]:
        raise UserError(f"monitor = {monitor!r}: corrupted suites are not scored in training")


def _check_corruptions(config: Any) -> None:
    mistakes = [
        f"data.{group}.corrupt: only suites are corrupted, by tinyjax.evaluate"
        for group in ("common", "train")
        if "corrupt" in config.data[group]
    ]
    _raise_all(mistakes)
    for name, arguments in config.data.suites.items():
        if "corrupt" in arguments:
            # imports scipy, which nothing else here needs
            from tinyjax.data.corruptions.corrupt import suite_corruptions

            suite_corruptions(name, arguments)


def _check_suites(config: Any) -> None:
    from tinyjax.data.layouts.selection import check_where

    data = config.data.to_dict()
    checks = [
        partial(check_where, arguments["where"])
        for arguments in (data["common"], data["train"], *data["suites"].values())
        if "where" in arguments
    ]
    mistakes = [
        f"data.suites.{name}.classes: suites have the classes of the training set; leave it out. "
        "Objects of other classes are background"
        for name, arguments in data["suites"].items()
        if "classes" in arguments
    ]
    if "train" in data["suites"]:
        mistakes.append(
            "data.suites: 'train' names the training metrics in metrics.csv; give another name"
        )
    run_all(*checks, partial(_raise_all, mistakes))


def _check_fields(config: Any) -> None:
    from tinyjax.metrics.protocols import PROTOCOLS
    from tinyjax.transfer.regularizers import REGULARIZERS

    mistakes = []
    if config.task == "detect" and (protocol := config.score.protocol) not in PROTOCOLS:
        mistakes.append(f"score.protocol = {protocol!r}: {suggest(protocol, PROTOCOLS)}")
    if config.task == "detect" and not 0 <= (balance := config.loss.get("class_balance", 0)) < 1:
        mistakes.append(f"loss.class_balance = {balance}: give 0 or more, less than 1")
    if config.data.stream and (config.subset.fraction != 1 or config.subset.shots):
        mistakes.append("subset: a streamed training set (data.stream) is always used in full")
    if config.task == "reid":  # it draws images by identity, from memory
        unused = {"subset.fraction": 1, "subset.shots": 0, "data.repeat_threshold": 0}
        fields = dict(leaves_with_path(config.to_dict()))
        mistakes += [
            f"{name} = {fields[name]}: recognition draws images by identity; leave it out"
            for name, default in {**unused, "data.stream": False}.items()
            if fields[name] != default
        ]
    if config.reinit and not config.init:
        mistakes.append(
            f"reinit = {config.reinit!r}: without init all weights start at random values; give "
            "init, or leave reinit out"
        )
    if (name := config.regularizer.name) not in REGULARIZERS:
        mistakes.append(f"regularizer.name = {name!r}: {suggest(name, REGULARIZERS)}")
    _raise_all(mistakes)


def _raise_all(mistakes: Sequence[str]) -> None:
    if mistakes:
        raise UserError(*mistakes)
