"""Mistakes in a config, found before anything is computed."""

import math

from tinyjax.config import leaves
from tinyjax.errors import UserError, suggest

BOUNDS = {  # of numbers that would do something else than asked, and not say so
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


def check(config) -> None:
    """Raise UserError for mistakes in a config, before data and network are there to show more."""
    from tinyjax.transfer import freezing
    from tinyjax.transfer.regularizers import NAMES

    fields = dict(leaves(config.to_dict()))
    for name, (least, most) in BOUNDS.items():
        value = fields.get(name, least)  # a detector has no augment.mixup, say
        if not least <= value <= most or value == math.inf:
            wanted = f"{least} or more" if most == math.inf else f"{least} to {most}"
            raise UserError(f"{name} = {value}: give {wanted}")
    if config.monitor not in config.data.suites:
        known = suggest(config.monitor, config.data.suites)
        raise UserError(f"monitor = {config.monitor!r}: no such suite; {known}")
    if "train" in config.data.suites:
        raise UserError(
            "data.suites: 'train' is what metrics.csv calls the training itself; give another name"
        )
    if "corrupt" in config.data.suites[config.monitor]:
        raise UserError(
            f"monitor = {config.monitor!r}: corrupted suites are not scored in training"
        )
    for place in ("common", "train"):
        if "corrupt" in config.data[place]:
            raise UserError(f"data.{place}.corrupt: only a suite is corrupted, by tinyjax.evaluate")
    data = config.data.to_dict()
    for own in (data["common"], data["train"], *data["suites"].values()):
        if "where" in own:
            from tinyjax.data.layouts.listing import refuse_where

            refuse_where(own["where"])
    for name, own in config.data.suites.items():
        if "corrupt" in own:
            from tinyjax.data.corruptions.corrupt import (
                of_suite,  # with scipy, which nothing else here needs
            )

            of_suite(name, own)
        if "classes" in own:
            raise UserError(
                f"data.suites.{name}.classes: a suite's classes are those of training; leave it "
                "out. Objects of others are background"
            )
    if config.data.stream and (config.subset.fraction != 1 or config.subset.shots):
        raise UserError("subset: of a set that stays on disk (data.stream) all images are used")
    if config.reinit and not config.init:
        raise UserError(
            f"reinit = {config.reinit!r}: there is no init, so all of it is new; give one"
        )
    if config.regularizer.name not in NAMES:
        name = config.regularizer.name
        raise UserError(f"regularizer.name = {name!r}: {suggest(name, NAMES)}")
    freezing.parse_rules(config.freeze)
