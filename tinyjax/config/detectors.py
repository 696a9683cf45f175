"""The config fields of each detector; `model.detector` selects the detector.

Each detector has a table here and a module in `tinyjax/detectors`.
"""

from typing import Any

Fields = dict[str, tuple[Any, str]]  # path "a.b.c" -> default, meaning

NECK: Fields = {  # fields of all detectors with a neck
    "model.neck": (
        "pan",
        "pan: top-down, then bottom-up; fpn: top-down; nasfpn: seven searched cells; bifpn: "
        "top-down and bottom-up with learned weights",
    ),
    "model.neck_width": (
        0,
        "channels of the neck and the head; 0: as many as the backbone has at stride 16",
    ),
    "model.neck_repeats": (
        1,
        "number of top-down and bottom-up passes of pan and bifpn, or of repeats of nasfpn's cells",
    ),
    "model.neck_separable": (
        True,
        "separable convolutions in fpn and nasfpn; False: dense ones, as in the papers",
    ),
    "model.neck_extra_levels": (
        "pool",
        "levels of fpn that are coarser than the backbone's features: pool: every second row and "
        "column; p5 or c5: convolutions of the coarsest output or feature",
    ),
}

LONG_TAIL: Fields = {  # fields of all class losses, for sets with many rare classes
    "loss.class_balance": (
        0.0,
        "b: positives of a class with n training objects have a weight proportional to "
        "(1 - b) / (1 - b^n) in the class loss, with mean 1 over classes; 0: equal weights; near "
        "1: about 1 / n",
    ),
    "loss.federated_classes": (
        0,
        "number of classes in the class loss of a batch: those of its objects, and random other "
        "ones; box heads then have sigmoid scores; 0: all classes; LVIS: 50",
    ),
}

POINT: Fields = {
    "model.strides": ((4, 8), "strides of the head's levels: consecutive ones of 4, 8, .. 128"),
    **NECK,
    "loss.class": (1.0, "weight of the quality focal loss"),
    "loss.box": (2.0, "weight of the DIoU loss"),
    "loss.offset": (0.25, "weight of the L1 loss of the box offsets"),
    **LONG_TAIL,
    "nms.iou_threshold": (0.5, "IoU from which the box with the lower score is dropped"),
    "nms.max_detections": (300, "maximum number of detections per frame"),
    "nms.pre_nms_top_k": (1000, "number of highest (cell, class) scores that enter NMS"),
}

# `python -m tinyjax.prepare .. --anchors 6` for HIT-UAV at 320 x 256: 94 % of the objects have an
# IoU of 0.5 or more with some anchor. With one center per cell for all shapes it is 81 %.
SMALL_ANCHORS = (
    ((4.0, 8.5, 2), (5.5, 10.0, 2), (8.5, 13.5, 1), (16.0, 9.5, 1), (19.0, 18.5, 1)),
    ((38.0, 33.5, 1),),
)

RETINANET: Fields = {
    "model.strides": POINT["model.strides"],
    "model.anchors": (
        SMALL_ANCHORS,
        "for each stride, the anchors of a cell: (width, height, n) in pixels, at n x n centers; "
        "or one name: small (the default, for objects of 5 to 40 pixels), torchvision and "
        "detectron2 (RetinaNet's), torchvision_rpn and torchvision_mobilenet (Faster R-CNN's); "
        "`tinyjax.prepare --anchors` fits anchors to a data set",
    ),
    **NECK,
    "model.neck_width": (48, NECK["model.neck_width"][1]),
    "model.head": (
        "separable",
        "separable: depthwise separable convolutions and 1x1 outputs; dense: 3x3 convolutions "
        "without BatchNorm and 3x3 outputs, as in the paper",
    ),
    "model.head_depth": (
        2,
        "convolutions of the class tower, and of the box tower; the paper's: 4",
    ),
    "matching.foreground_iou": (0.5, "IoU with an object from which an anchor is positive"),
    "matching.background_iou": (
        0.4,
        "IoU below which an anchor is negative; anchors between the two have no loss",
    ),
    "loss.class": (1.0, "weight of the focal loss"),
    "loss.box": (1.0, "weight of the L1 loss of the box deltas"),
    "loss.focal_alpha": (0.25, "weight of positives in the focal loss; of negatives: 1 - alpha"),
    "loss.focal_gamma": (2.0, "exponent of the focal loss"),
    **LONG_TAIL,
    "nms.score_threshold": (0.0, "score up to which a detection is dropped"),
    "nms.iou_threshold": POINT["nms.iou_threshold"],
    "nms.max_detections": POINT["nms.max_detections"],
    "nms.pre_nms_top_k": (1000, "number of highest (anchor, class) scores that enter NMS"),
}

FASTER_RCNN: Fields = {
    **{name: RETINANET[name] for name in ("model.strides", "model.anchors")},
    **NECK,
    "model.neck_width": RETINANET["model.neck_width"],
    "model.head": (
        "separable",
        "convolution of the region proposal network (RPN): separable: depthwise separable; dense: "
        "3x3, as in the paper",
    ),
    "rpn.foreground_iou": RETINANET["matching.foreground_iou"],
    "rpn.background_iou": (0.3, RETINANET["matching.background_iou"][1]),
    "rpn.sample_size": (256, "anchors per image that the RPN is trained on"),
    "rpn.positive_fraction": (0.5, "maximum fraction of positives among them"),
    "proposals.iou_threshold": (
        0.7,
        "IoU from which the proposal with the lower score is dropped, within each level",
    ),
    "proposals.max_proposals": (128, "maximum number of proposals per image"),
    "proposals.pre_nms_top_k": (
        256,
        "number of anchors of each level, those with the highest scores, that enter NMS",
    ),
    "proposals.score_threshold": (0.0, "score below which a proposal is dropped"),
    "roi.head": (
        "fc",
        "box head: fc: fully connected; conv: four convolutions before it; separable: two "
        "depthwise separable convolutions and a mean",
    ),
    "roi.width": (128, "units of each fully connected layer of the box head"),
    "roi.fc_layers": (1, "number of these layers; the paper's: 2"),
    "roi.size": (7, "bins per side that a RoI is pooled to"),
    "roi.canonical_size": (
        0.0,
        "side in pixels of RoIs that are pooled from stride 16, half of it from stride 8, and so "
        "on; 0: all RoIs from the finest level; the FPN paper's: 224",
    ),
    "roi.samples": (1, "points per side of a bin whose mean is the bin's value; torchvision's: 2"),
    "roi.aligned": (
        True,
        "cells have their center at half a stride; False, as in torchvision: at their corner, and "
        "RoIs have at least one cell per side",
    ),
    "roi.sample_size": (64, "RoIs per image that the box head is trained on"),
    "roi.positive_fraction": (0.25, "maximum fraction of positives among them"),
    "roi.foreground_iou": (0.5, "IoU with an object from which a RoI is positive"),
    "loss.class": (1.0, "weight of the cross-entropy of RoIs"),
    "loss.box": (1.0, "weight of the smooth L1 loss of the box deltas of RoIs"),
    "loss.rpn_class": (1.0, "weight of the RPN's cross-entropy"),
    "loss.rpn_box": (1.0, "weight of the RPN's smooth L1 loss"),
    **LONG_TAIL,
    "nms.score_threshold": RETINANET["nms.score_threshold"],
    "nms.iou_threshold": POINT["nms.iou_threshold"],
    "nms.max_detections": POINT["nms.max_detections"],
    "nms.pre_nms_top_k": (1000, "number of highest (proposal, class) scores that enter NMS"),
}

CASCADE_RCNN: Fields = {
    **{name: field for name, field in FASTER_RCNN.items() if name != "roi.foreground_iou"},
    "roi.size": (5, FASTER_RCNN["roi.size"][1]),
    "roi.foreground_ious": (
        (0.5, 0.6, 0.7),
        "for each stage, the IoU with an object from which a RoI is positive",
    ),
    "roi.loss_weights": ((1.0, 1.0, 1.0), "for each stage, the weight of its losses"),
}

# Defaults of the detector "faster_rcnn_mobilenet": torchvision's, in the 320 pixel variant.
_MOBILENET_DEFAULTS: dict[str, Any] = {
    "model.anchors": ("torchvision_mobilenet",),
    "model.neck_width": 256,
    "model.head": "dense",
    "rpn.foreground_iou": 0.7,
    "proposals.max_proposals": 150,
    "proposals.pre_nms_top_k": 150,
    "proposals.score_threshold": 0.05,
    "roi.width": 1024,
    "roi.fc_layers": 2,
    "roi.samples": 2,
    "roi.aligned": False,
    "roi.sample_size": 512,
    "nms.score_threshold": 0.05,
    "nms.max_detections": 100,
}
FASTER_RCNN_MOBILENET: Fields = {
    name: (_MOBILENET_DEFAULTS.get(name, default), meaning)
    for name, (default, meaning) in FASTER_RCNN.items()
    if name not in NECK or name in _MOBILENET_DEFAULTS
} | {"model.strides": ((32, 32, 64), "strides of the maps of the pyramid, always these")}

DETECTORS: dict[str, Fields] = {
    "point": POINT,
    "retinanet": RETINANET,
    "faster_rcnn": FASTER_RCNN,
    "cascade_rcnn": CASCADE_RCNN,
    "faster_rcnn_mobilenet": FASTER_RCNN_MOBILENET,
}
