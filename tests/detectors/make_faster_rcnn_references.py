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
    BOXES,
    FOLDER,
    LABELS,
    SIZE,
    image,
    load_drawn_weights,
    thin,
)  # fmt: skip

MOBILENET = "mobilenetv3"
BODIES = ("18", "50", MOBILENET)
CLASSES = 3  # without the background
LOSSES = {  # torchvision's names -> ours
    "loss_objectness": "rpn_class_loss",
    "loss_rpn_box_reg": "rpn_box_loss",
    "loss_classifier": "class_loss",
    "loss_box_reg": "box_loss",
}
PRE_NMS_TOP_K, MAX_PROPOSALS, MAX_DETECTIONS = 100, 60, 30
SCORE_THRESHOLD, PROPOSAL_THRESHOLD = 0.2, 0.5
ANCHOR_SAMPLES, ROI_SAMPLES = 4000, 256  # all candidates: no loss depends on random numbers


def build(body: str) -> Any:
    """Faster R-CNN as published, with frozen BatchNorm, whose epsilon in a ResNet is 0."""
    from torchvision.models import mobilenetv3, resnet
    from torchvision.models.detection import FasterRCNN, _utils, anchor_utils, backbone_utils
    from torchvision.ops import misc

    if body == MOBILENET:
        network = mobilenetv3.mobilenet_v3_large(norm_layer=misc.FrozenBatchNorm2d)
        backbone = backbone_utils._mobilenet_extractor(network, True, 6)
        anchors = ((32, 64, 128, 256, 512),) * 3, ((0.5, 1.0, 2.0),) * 3
        options = {
            "rpn_anchor_generator": anchor_utils.AnchorGenerator(*anchors),
            "rpn_score_thresh": PROPOSAL_THRESHOLD,
        }
    else:
        network = getattr(resnet, f"resnet{body}")(norm_layer=misc.FrozenBatchNorm2d)
        backbone, options = backbone_utils._resnet_fpn_extractor(network, 5), {}
    model = FasterRCNN(
        backbone,
        CLASSES + 1,
        **options,
        rpn_pre_nms_top_n_train=PRE_NMS_TOP_K,
        rpn_pre_nms_top_n_test=PRE_NMS_TOP_K,
        rpn_post_nms_top_n_train=MAX_PROPOSALS,
        rpn_post_nms_top_n_test=MAX_PROPOSALS,
        rpn_batch_size_per_image=ANCHOR_SAMPLES,
        box_batch_size_per_image=ROI_SAMPLES,
        box_detections_per_img=MAX_DETECTIONS,
        box_score_thresh=SCORE_THRESHOLD,
    )
    if body != MOBILENET:
        _utils.overwrite_eps(model, 0.0)
    return model


def in_float64(labels: Any, boxes: Any) -> Any:
    """Targets of the RPN with float64 labels; torchvision's are float32, and so is their loss."""
    return [x.double() for x in labels], boxes


def compute(body: str) -> dict[str, np.ndarray]:
    """Levels, outputs of the RPN, proposals, logits and boxes of the box head, detections, and
    losses for `BOXES`.
    """
    import torch
    from torchvision.models.detection.image_list import ImageList
    from torchvision.models.detection.rpn import concat_box_prediction_layers
    from torchvision.ops.boxes import clip_boxes_to_image

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
    target = {"boxes": torch.tensor(BOXES, dtype=x.dtype), "labels": torch.tensor(LABELS) + 1}
    model.train()
    assign = model.rpn.assign_targets_to_anchors
    model.rpn.assign_targets_to_anchors = lambda *inputs: in_float64(*assign(*inputs))
    sampled, rpn_losses = model.rpn(ImageList(x, [SIZE]), levels, [target])
    _, roi_losses = model.roi_heads(levels, sampled, [SIZE], [target])
    losses = {LOSSES[name]: value.numpy() for name, value in (rpn_losses | roi_losses).items()}
    assert (detections["scores"].diff() < -1e-6).all()  # so the order is well-defined
    boxes = model.roi_heads.box_coder.decode(outputs[1], proposals)
    print(body, len(proposals[0]), "proposals,", detections["scores"], losses)
    print("standard deviations, best near 1:")
    for name, value in (
        *levels.items(), ("RPN", logits), ("its deltas", deltas),
        ("pooled", pooled), ("logits", outputs[0]), ("deltas", outputs[1]),
    ):  # fmt: skip
        print(name, round(value.std().item(), 2))
    return {
        **{
            f"level{i}": thin(levels[f"{i}"].permute(0, 2, 3, 1).numpy())
            for i in range(1 if body == MOBILENET else 4)  # those that RoIs are pooled from
        },
        "rpn_logits": thin(logits.numpy()),
        "rpn_deltas": thin(deltas.numpy()),
        "proposals": proposals[0].numpy(),
        "logits": outputs[0].numpy(),
        "class_boxes": clip_boxes_to_image(boxes, SIZE)[:, 1:].numpy(),
        **{name: value.numpy() for name, value in detections.items()},
        **losses,
        "shapes": np.array(json.dumps(shapes)),
    }


def main() -> None:
    import torch

    with torch.no_grad():
        for body in BODIES:
            np.savez_compressed(FOLDER / f"torchvision.faster_rcnn.{body}.npz", **compute(body))


if __name__ == "__main__":
    main()
