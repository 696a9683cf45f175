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
}

POINT: Fields = {
    "model.strides": ((4, 8), "strides of the head's levels: consecutive ones of 4, 8, 16, 32"),
    **NECK,
    "loss.class": (1.0, "weight of the quality focal loss"),
    "loss.box": (2.0, "weight of the DIoU loss"),
    "loss.offset": (0.25, "weight of the L1 loss of the box offsets"),
    "nms.iou_threshold": (0.5, "IoU from which the box with the lower score is dropped"),
    "nms.max_detections": (300, "maximum number of detections per frame"),
    "nms.pre_nms_top_k": (1000, "number of highest (cell, class) scores that enter NMS"),
}

DETECTORS: dict[str, Fields] = {"point": POINT}
