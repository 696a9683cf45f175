"""Outputs of torchvision's Faster R-CNN, stored under references/ for
test_torchvision_faster_rcnn.py.

Run as `python -m tests.detectors.make_faster_rcnn_references` with torch 2.13.0 and torchvision
0.28.0. As in make_retinanet_references, weights are drawn by name, everything is float64, and of
large arrays only some numbers are stored.
"""

import json
from typing import Any

import numpy as np

from tests.detectors.make_retinanet_references import (
    BODIES,
    FOLDER,
    SIZE,
    image,
    load_drawn_weights,
    thin,
    thin_maps,
)  # fmt: skip

CLASSES = 3  # without the background
MAX_PROPOSALS, MAX_DETECTIONS, SCORE_THRESHOLD = 60, 30, 0.2


def build(body: str) -> Any:
    """Faster R-CNN as published: frozen BatchNorm with epsilon 0. All anchors enter NMS."""
    from torchvision.models import resnet
    from torchvision.models.detection import FasterRCNN, _utils, backbone_utils
    from torchvision.ops import misc

    network = getattr(resnet, f"resnet{body}")(norm_layer=misc.FrozenBatchNorm2d)
    model = FasterRCNN(
        backbone_utils._resnet_fpn_extractor(network, 5),
        CLASSES + 1,
        rpn_pre_nms_top_n_test=100_000,
        rpn_post_nms_top_n_test=MAX_PROPOSALS,
        box_detections_per_img=MAX_DETECTIONS,
        box_score_thresh=SCORE_THRESHOLD,
    )
    _utils.overwrite_eps(model, 0.0)
    return model


def compute(body: str) -> dict[str, np.ndarray]:
    """Features, levels, outputs of the RPN, proposals, outputs of the box head, detections."""
    import torch
    from torchvision.models.detection.image_list import ImageList
    from torchvision.models.detection.rpn import concat_box_prediction_layers

    model = build(body)
    shapes = load_drawn_weights(model)
    model = model.double().eval()
    x = torch.from_numpy(image()).permute(0, 3, 1, 2)
    levels = model.backbone(x)
    logits, deltas = concat_box_prediction_layers(*model.rpn.head([*levels.values()]))
    proposals, _ = model.rpn(ImageList(x, [SIZE]), levels)
    pooled = model.roi_heads.box_roi_pool(levels, proposals, [SIZE])
    outputs = model.roi_heads.box_predictor(model.roi_heads.box_head(pooled))
    (detections,), _ = model.roi_heads(levels, proposals, [SIZE])
    deviations = {
        name: round(value.std().item(), 2)
        for name, value in zip(
            ("rpn_logits", "rpn_deltas", "pooled", "logits", "deltas"),
            (logits, deltas, pooled, *outputs),
            strict=True,
        )
    }
    print(body, len(detections["scores"]), "detections; standard deviations, best near 1:")
    print(deviations, proposals[0][:5], detections["scores"])
    return {
        **thin_maps("feature", model.backbone.body(x), 4),
        **thin_maps("level", levels, 4),
        "rpn_logits": thin(logits.numpy()),
        "rpn_deltas": thin(deltas.numpy()),
        "proposals": proposals[0].numpy(),
        "pooled": thin(pooled.permute(0, 2, 3, 1).numpy()),
        "logits": outputs[0].numpy(),
        "deltas": outputs[1].reshape(-1, CLASSES + 1, 4)[:, 1:].numpy(),
        **{name: value.numpy() for name, value in detections.items()},
        "shapes": np.array(json.dumps(shapes)),
    }


def main() -> None:
    import torch

    with torch.no_grad():
        for body in BODIES:
            np.savez_compressed(FOLDER / f"torchvision.faster_rcnn.{body}.npz", **compute(body))


if __name__ == "__main__":
    main()
