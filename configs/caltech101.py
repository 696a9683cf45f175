"""Caltech-101 classification, 101 categories in color or gray: starting weights for detectors.

python -m tinyjax.train --config configs/caltech101.py --workdir runs/caltech101

Arguments: channels, 3 (default) or 1; backbone; steps; batch; lr.
"""

import os

from tinyjax.config import classifier, parse_arg


def get_config(arg=None):
    config = classifier()
    arg = parse_arg(
        arg, channels=3, backbone="mobilenetv3/s-2", steps=12000, batch=config.batch,
        lr=config.optimizer.lr,
    )  # fmt: skip
    root = os.environ.get("TINYJAX_DATA", "../shared/data")
    config.model.backbone = arg.backbone
    config.data.common = {
        "source": f"{root}/caltech101_s96/caltech101_s96.zip",
        "size": (96, 96),
        "channels": arg.channels,
    }
    config.data.train = {"split": "train"}
    config.data.suites = {"test": {"split": "test"}}
    config.monitor = "test"
    config.augment.mixup = 0.2
    config.batch, config.optimizer.lr = arg.batch, arg.lr
    config.schedule.steps, config.schedule.warmup = arg.steps, min(300, arg.steps // 12)
    config.eval_every = 3000
    return config
