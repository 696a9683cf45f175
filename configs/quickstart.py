"""Synthetic thermal scenes: people, vehicles and animals at night, tested at night and by day.

python -m tinyjax.train --config configs/quickstart.py --workdir runs/quickstart
"""

from tinyjax.config import detector, parse_arg
from tinyjax.data.synthetic.dataset import SHIFTS


def get_config(arg=None):
    parse_arg(arg)
    config = detector()
    config.model.backbone = "mobilenetv3/s-3"
    config.data.format = "synthetic"
    config.data.common = {"size": (128, 160)}
    config.data.train = {"n": 800, "seed": 0}
    config.data.suites = {
        "night": {"n": 200, "seed": 1},
        "day": {"n": 200, "seed": 1, **SHIFTS["day"]},
    }
    config.monitor = "night"
    config.augment.scale_low, config.augment.scale_high, config.augment.object_crop = 0.8, 1.25, 0.0
    config.schedule.steps, config.schedule.warmup, config.schedule.decay_start = 900, 50, 0.3
    config.log_every, config.save_every, config.eval_every = 20, 450, 900
    return config
