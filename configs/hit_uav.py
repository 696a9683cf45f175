"""HIT-UAV, thermal drone images: person, car, bicycle at 320 x 256, from scratch.

python -m tinyjax.train --config configs/hit_uav.py --workdir runs/hit_uav
"""

import os

from tinyjax.config import parse_arg
from tinyjax.defaults import detector


def get_config(arg=None):
    parse_arg(arg)
    config = detector()
    root = os.environ.get("TINYJAX_DATA", "../shared/data")
    config.data.format = "coco"
    config.data.common = {
        "source": f"{root}/hit_uav_ir/hit_uav_ir.zip",
        "classes": ("person", "car", "bicycle"),
        "dontcare": ("other_vehicle",),
    }
    config.data.train = {"split": "train"}
    config.data.suites = {"val": {"split": "val"}, "shift": {"split": "shift"}}
    # From above there is no up: persons lie in any direction, and by day the polarity turns over.
    config.crop = (144, 144)
    config.augment.update({"transpose": 0.3, "flip_vertical": 0.3, "aspect": 0.4, "invert": 0.3})
    config.schedule.steps, config.ema = 11000, 0.999
    config.every.save, config.every.evaluate = 1000, 2200
    return config
