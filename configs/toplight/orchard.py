"""Places of an orchard, found across visible and near-infrared images: a real set of 192 places
(orchard_vnir, in RegDB's layout), with a network for each of its two trials.

python -m tinyjax.train --config configs/toplight/orchard.py --workdir runs/orchard
python -m tinyjax.evaluate --workdir runs/orchard

Color is a cue here, because green leaves are bright in near-infrared, so the augmentation leaves
it as it is. Arguments: source; steps.
"""

import os

from tinyjax.config import parse_arg, recognizer


def get_config(arg=None):
    root = os.environ.get("TINYJAX_DATA", "../shared/data")
    arg = parse_arg(arg, source=f"{root}/orchard_vnir/orchard_vnir.zip", steps=500)
    config = recognizer()
    config.model.backbone, config.model.path_blocks = "resnet/18@w0.25d0.5", 0
    config.data.format = "regdb"
    config.data.common = {"source": arg.source, "size": (48, 48), "trial": 1}
    config.data.train, config.data.suites = {"split": "train"}, {"test": {"split": "test"}}
    config.monitor, config.crop_size = "test", (48, 48)
    config.batch, config.sampler.identities = 48, 12
    config.augment.update({"channel_exchange": 0.0, "gray": 0.0, "jitter": 0.0, "erasing": 0.0})
    config.augment.pad, config.ema = 4.0, 0.98
    config.schedule.steps, config.schedule.warmup, config.schedule.decay_start = arg.steps, 50, 0.3
    config.log_every, config.save_every, config.eval_every = 50, arg.steps, arg.steps
    return config


def get_hyper(hyper):
    return hyper.sweep("data.common.trial", (1, 2))
