"""Check a config before anything is loaded or compiled."""

import math
from typing import Any

from tinyjax.config.parsing import leaves_with_path
from tinyjax.errors import UserError, suggest

# Ranges of fields for which other values would silently do something unintended.
BOUNDS = {
    "seed": (0, 2**31 - 1),
    **dict.fromkeys(("batch", "schedule.steps"), (1, math.inf)),
    **dict.fromkeys(("log_every", "save_every", "eval_every"), (1, math.inf)),
    **dict.fromkeys(("model.batchnorm_eps", "augment.mixup", "augment.cutmix"), (0, math.inf)),
    "subset.fraction": (0, 1),
    "model.neck_repeats": (1, math.inf),
    **dict.fromkeys(("subset.shots", "optimizer.backbone_lr_scale"), (0, math.inf)),
    "optimizer.layer_decay": (0, 1),
    "optimizer.clip_norm": (0, math.inf),
    **dict.fromkeys(("optimizer.auto_rgn", "regularizer.strength"), (0, math.inf)),
    "regularizer.batches": (1, math.inf),
    "data.workers": (0, math.inf),
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
    """Raise UserError for invalid values in a config that show without its data and network."""
    from tinyjax.transfer import freezing
    from tinyjax.transfer.regularizers import REGULARIZERS

    _check_bounds(config)
    _check_suites(config)
    if config.data.stream and (config.subset.fraction != 1 or config.subset.shots):
        raise UserError("subset: a streamed training set (data.stream) is always used in full")
    if config.reinit and not config.init:
        raise UserError(
            f"reinit = {config.reinit!r}: without init all weights start at random values; give "
            "init, or leave reinit out"
        )
    if config.regularizer.name not in REGULARIZERS:
        name = config.regularizer.name
        raise UserError(f"regularizer.name = {name!r}: {suggest(name, REGULARIZERS)}")
    freezing.parse_rules(config.freeze)


def _check_bounds(config: Any) -> None:
    fields = dict(leaves_with_path(config.to_dict()))
    for name, (low, high) in BOUNDS.items():
        value = fields.get(name, low)  # a detector has no augment.mixup, for example
        if not low <= value <= high or value == math.inf:
            allowed = f"{low} or more" if high == math.inf else f"{low} to {high}"
            raise UserError(f"{name} = {value}: give {allowed}")


def _check_suites(config: Any) -> None:
    suites = config.data.suites
    if config.monitor not in suites:
        raise UserError(
            f"monitor = {config.monitor!r}: no such suite; {suggest(config.monitor, suites)}"
        )
    if "train" in suites:
        raise UserError(
            "data.suites: 'train' names the training metrics in metrics.csv; give another name"
        )
    if "corrupt" in suites[config.monitor]:
        raise UserError(
            f"monitor = {config.monitor!r}: corrupted suites are not scored in training"
        )
    for group in ("common", "train"):
        if "corrupt" in config.data[group]:
            raise UserError(f"data.{group}.corrupt: only suites are corrupted, by tinyjax.evaluate")
    data = config.data.to_dict()
    for arguments in (data["common"], data["train"], *data["suites"].values()):
        if "where" in arguments:
            from tinyjax.data.layouts.selection import check_where

            check_where(arguments["where"])
    for name, arguments in suites.items():
        if "corrupt" in arguments:
            # imports scipy, which nothing else here needs
            from tinyjax.data.corruptions.corrupt import suite_corruptions

            suite_corruptions(name, arguments)
        if "classes" in arguments:
            raise UserError(
                f"data.suites.{name}.classes: suites have the classes of the training set; leave "
                "it out. Objects of other classes are background"
            )
