"""HIT-UAV, thermal drone images: person, car, bicycle at 320 x 256, from scratch.

python -m tinyjax.train --config configs/hit_uav.py --workdir runs/hit_uav
"""

import os

from tinyjax.defaults import detector


def get_config(arg=None):
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
    return config
