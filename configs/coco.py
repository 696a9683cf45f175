"""COCO detection from ImageNet weights: the third starting point (IN -> COCO) of arXiv 2508.02927.

python -m tinyjax.train --config configs/coco.py:init=runs/s-3 --workdir runs/s-3-coco

Arguments: init, starting weights; backbone, the same as in `init`; detector and neck; source, by
default $TINYJAX_DATA/coco with annotations/instances_{train,val}2017.json and the images in
train2017 and val2017; epochs; batch; workers, processes that decode images. Image sizes, anchors
and schedule are our choice: the paper's are not public.
"""

import os

from tinyjax.config import detector, parse_arg

IMAGES = 118_287  # in train2017


def get_config(arg=None):
    root = os.environ.get("TINYJAX_DATA", "../shared/data")
    arg = parse_arg(
        arg, backbone="mobilenetv3/s-3", detector="point", neck="", init="",
        source=f"{root}/coco", epochs=24, batch=64, workers=0,
    )  # fmt: skip
    config = detector(arg.detector, arg.neck)
    config.model.backbone, config.init = arg.backbone, arg.init
    config.model.strides = (8, 16, 32)
    if "anchors" in config.model:  # the default has two strides
        config.model.anchors = ("torchvision",)
    config.data.format, config.data.stream, config.data.workers = "coco", True, arg.workers
    config.data.common = {"source": arg.source, "size": (320, 320), "channels": 3}
    config.data.train = {"split": "train2017"}
    config.data.suites = {"val": {"split": "val2017"}}
    config.crop_size, config.batch = (256, 256), arg.batch
    epoch = IMAGES // arg.batch
    config.schedule.steps, config.schedule.warmup = arg.epochs * epoch, 1000
    config.update({"log_every": 100, "save_every": epoch, "eval_every": 4 * epoch})
    return config
