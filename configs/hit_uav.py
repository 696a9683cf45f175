"""HIT-UAV, thermal drone images: person, car, bicycle at 320 x 256.

python -m tinyjax.train --config configs/hit_uav.py --workdir runs/hit_uav

Arguments, joined by commas: backbone; detector and neck; steps; batch; lr; init, starting weights
(default: none); freeze, a preset; probe, number of steps with a frozen backbone before the whole
network is trained; corrupt, benchmark or thermal: adds a suite of 100 images that tinyjax.evaluate
corrupts.
"""

import os

from tinyjax.config import detector, parse_arg


def get_config(arg=None):
    default = detector()
    arg = parse_arg(
        arg, backbone=default.model.backbone, detector="point", neck="", steps=11000,
        batch=default.batch, lr=default.optimizer.lr, init="", freeze="", probe=0, corrupt="",
    )  # fmt: skip
    config = detector(arg.detector, arg.neck)
    config.model.backbone, config.init = arg.backbone, arg.init
    config.freeze = (arg.freeze,) if arg.freeze else ()
    if arg.probe:
        config.phases = ({"freeze": ("backbone",), "schedule.steps": arg.probe}, {})
    root = os.environ.get("TINYJAX_DATA", "../shared/data")
    config.data.format = "coco"
    config.data.common = {
        "source": f"{root}/hit_uav_ir/hit_uav_ir.zip",
        "classes": ("person", "car", "bicycle"),
        "ignore_classes": ("other_vehicle",),
    }
    config.data.train = {"split": "train"}
    config.data.suites = {"val": {"split": "val"}, "shift": {"split": "shift"}}
    config.data.slices = {
        "time_of_day": (), "altitude_m": (60, 90, 131), "camera_angle_deg": (30, 60, 91)
    }  # fmt: skip
    if arg.corrupt:
        corrupted = {"split": "val", "corrupt": (arg.corrupt,), "limit": 100}
        config.data.suites["val-corrupted"] = corrupted
    # Seen from above, objects have any orientation; by day the polarity is inverted.
    config.crop_size = (144, 144)
    config.augment.update({"transpose": 0.3, "flip_vertical": 0.3, "aspect": 0.4, "invert": 0.3})
    config.schedule.steps, config.schedule.warmup = arg.steps, min(300, arg.steps // 12)
    config.batch, config.optimizer.lr, config.ema = arg.batch, arg.lr, 0.999
    config.save_every, config.eval_every = 1000, 2200
    return config
