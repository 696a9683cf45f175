"""Detectors as torchvision publishes them, on COCO.

python -m tinyjax.train --config configs/torchvision.py:init=runs/r50 --workdir runs/r50-coco

Arguments: name, of the network in torchvision, a key of `NETWORKS`; init, starting weights; source,
by default $TINYJAX_DATA/coco with annotations/instances_{train,val}2017.json and the images in
train2017 and val2017; steps; batch; workers, processes that decode images.

Input sizes are those of torchvision with padding, for landscape images; portraits are smaller. In
training, as many proposals are selected as in tests. torchvision's weights can be loaded by `init`.
Their classes are the 91 ids of COCO's categories, so for other classes add
--config.reinit="('head/class_out/.*',)", or for Faster R-CNN "('box_head1/(class|box)_out/.*',)".
The schedule is our choice.
"""

import os

from tinyjax.config import detector, parse_arg
from tinyjax.errors import UserError, suggest

RESNET = {
    "model.backbone": "resnet/50",
    "model.neck": "fpn",
    "model.neck_width": 256,
    "model.neck_separable": False,
    "model.head": "dense",
    "nms.score_threshold": 0.05,
}
# name -> detector, size of the input, fields that are not defaults
NETWORKS = {
    "retinanet_resnet50_fpn": (
        "retinanet",
        (800, 1344),
        {
            **RESNET,
            "model.strides": (8, 16, 32, 64, 128),
            "model.anchors": ("torchvision",),
            "model.neck_extra_levels": "p5",
            "model.head_depth": 4,
        },
    ),
    "fasterrcnn_resnet50_fpn": (
        "faster_rcnn",
        (800, 1344),
        {
            **RESNET,
            "model.strides": (4, 8, 16, 32, 64),
            "model.anchors": ("torchvision_rpn",),
            "rpn.foreground_iou": 0.7,
            "proposals.pre_nms_top_k": 1000,
            "proposals.max_proposals": 1000,
            "roi.width": 1024,
            "roi.fc_layers": 2,
            "roi.canonical_size": 224.0,
            "roi.samples": 2,
            "roi.aligned": False,
            "roi.sample_size": 512,
            "nms.max_detections": 100,
        },
    ),
    "fasterrcnn_mobilenet_v3_large_fpn": (
        "faster_rcnn_mobilenet",
        (800, 1344),
        {
            "model.backbone": "mobilenetv3/large",
            "proposals.pre_nms_top_k": 1000,
            "proposals.max_proposals": 1000,
        },
    ),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (
        "faster_rcnn_mobilenet",
        (320, 640),
        {"model.backbone": "mobilenetv3/large"},
    ),
}


def get_config(arg=None):
    root = os.environ.get("TINYJAX_DATA", "../shared/data")
    arg = parse_arg(
        arg, name="retinanet_resnet50_fpn", init="", source=f"{root}/coco", steps=90_000, batch=16,
        workers=0,
    )  # fmt: skip
    if arg.name not in NETWORKS:
        raise UserError(
            f"configs/torchvision.py: name = {arg.name!r}: {suggest(arg.name, NETWORKS)}"
        )
    name, size, fields = NETWORKS[arg.name]
    config = detector(name)
    config.update_from_flattened_dict(fields)
    config.init, config.freeze = arg.init, ("batchnorm",)
    config.data.format, config.data.stream, config.data.workers = "coco", True, arg.workers
    config.data.common = {"source": arg.source, "size": size, "channels": 3}
    config.data.train = {"split": "train2017"}
    config.data.suites = {"val": {"split": "val2017"}}
    config.optimizer.update(name="sgd", lr=0.01, weight_decay=1e-4)
    config.crop_size, config.batch, config.schedule.steps = size, arg.batch, arg.steps
    return config
