"""LVIS v1 detection: 1203 classes, most of them rare, in photos of COCO.

python -m tinyjax.train --config configs/lvis.py:init=runs/s-3 --workdir runs/s-3-lvis

Arguments: init, starting weights; backbone, the same as in `init`; detector and neck; source, by
default $TINYJAX_DATA/lvis with annotations/lvis_v1_{train,val}.json and COCO's images in train2017
and val2017; images, the number of training images, which sets the length of an epoch; epochs;
batch; repeat, the threshold of repeat factor sampling, 0 for none; federated, the number of classes
of the federated loss, 0 for a loss of all classes; workers, processes that decode images; retrain,
steps of a second phase that trains only the last layer of the classes, with class-balanced weights
of `balance` (Proper Reuse, arXiv 2204.00484, Table 5).

Scores are those of LVIS on its federated labels. Its validation set has images of COCO's training
set, so weights trained on COCO's train2017 must not be scored on it. Invalid boxes are left out and
logged. Image sizes, anchors, schedules and `balance` are our choice.
"""

import os

from tinyjax.config import detector, parse_arg


def get_config(arg=None):
    root = os.environ.get("TINYJAX_DATA", "../shared/data")
    arg = parse_arg(
        arg, backbone="mobilenetv3/s-3", detector="point", neck="", init="",
        source=f"{root}/lvis", images=100_170, epochs=24, batch=64, repeat=0.001, federated=50,
        workers=0, retrain=0, balance=0.999,
    )  # fmt: skip
    config = detector(arg.detector, arg.neck)
    config.model.backbone, config.init = arg.backbone, arg.init
    config.model.strides = (8, 16, 32)
    if "anchors" in config.model:  # the default has two strides
        config.model.anchors = ("torchvision",)
    config.data.format, config.data.stream, config.data.workers = "coco", True, arg.workers
    config.data.on_error = "skip"
    config.data.common = {"source": arg.source, "size": (320, 320), "channels": 3}
    config.data.train = {"split": "train"}
    config.data.suites = {"val": {"split": "val"}}
    config.loss.federated_classes = arg.federated
    config.data.repeat_threshold, config.score.protocol = arg.repeat, "lvis"
    config.crop_size, config.batch = (256, 256), arg.batch
    epoch = arg.images // arg.batch
    config.schedule.steps, config.schedule.warmup = arg.epochs * epoch, 1000
    if arg.retrain:
        last_layer = {
            "freeze": ("all but last layer",), "loss.class_balance": arg.balance,
            "schedule.steps": arg.retrain, "schedule.warmup": min(1000, arg.retrain // 12),
        }  # fmt: skip
        config.phases = ({}, last_layer)
    config.update({"log_every": 100, "save_every": epoch, "eval_every": 4 * epoch})
    return config
