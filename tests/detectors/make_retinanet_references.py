"""Outputs of torchvision's RetinaNet, stored under references/ for test_torchvision_retinanet.py.

Run as `python -m tests.detectors.make_retinanet_references` with torch 2.13.0 and torchvision
0.28.0. The weights are not stored: both sides draw them by name, see `draw_weight`. Everything is
float64. Of large arrays, every n-th number is stored, see `thin`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.models.make_references import draw

FOLDER = Path(__file__).parent / "references"
BODIES = ("18", "50")
CLASSES = 3
SIZE = 72, 104  # no multiple of the strides
SCORE_THRESHOLD, MAX_DETECTIONS = 0.8, 40  # fewer than torchvision's 1000 candidates per level
BOXES = ((8.0, 10.0, 40.0, 44.0), (50.0, 20.0, 90.0, 70.0), (60.0, 5.0, 80.0, 21.0))
LABELS = (2, 0, 1)


# Factors on the drawn weights, so that logits are near 1 and boxes about as large as their anchors
SCALES = {
    **{"bn3.": 0.3, "inner_blocks": 0.02, "cls_logits": 0.7},
    **{"bbox_reg": 0.2, "rpn.head.bbox": 0.3, "predictor.bbox": 0.5},
}


def draw_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """As `draw`, times a factor of `SCALES`: float32."""
    scale = next((scale for text, scale in SCALES.items() if text in name), 1.0)
    return np.float32(scale) * draw(name, shape)


def image(size: tuple[int, int] = SIZE) -> np.ndarray:
    """The normalized image, float64[1, H, W, 3]."""
    return np.random.RandomState(0).standard_normal((1, *size, 3))


def thin(array: np.ndarray, most: int = 500) -> np.ndarray:
    """At most `most` numbers of the array, evenly spaced; an odd step reaches all channels."""
    flat = np.asarray(array).reshape(-1)
    return flat[:: -(-flat.size // most) | 1]


def load_drawn_weights(model: Any) -> dict[str, tuple[int, ...]]:
    """Load the drawn weights into the network, and return the shapes of its state dict."""
    import torch

    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    model.load_state_dict({k: torch.from_numpy(draw_weight(k, v)) for k, v in shapes.items()})
    return shapes


def thin_maps(name: str, maps: Mapping[str, Any], finest: int) -> dict[str, np.ndarray]:
    """Numbers of each map, stored as [1, H, W, C] under its name and stride."""
    return {
        f"{name}{finest * 2**i}": thin(y.permute(0, 2, 3, 1).numpy())
        for i, y in enumerate(maps.values())
    }


def build(body: str) -> Any:
    """RetinaNet as published: frozen BatchNorm with epsilon 0."""
    from torchvision.models import resnet
    from torchvision.models.detection import RetinaNet, _utils, backbone_utils
    from torchvision.ops import misc
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    network = getattr(resnet, f"resnet{body}")(norm_layer=misc.FrozenBatchNorm2d)
    model = RetinaNet(
        backbone_utils._resnet_fpn_extractor(
            network, 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256)
        ),
        CLASSES, score_thresh=SCORE_THRESHOLD, detections_per_img=MAX_DETECTIONS,
    )  # fmt: skip
    _utils.overwrite_eps(model, 0.0)
    return model


def compute(body: str) -> dict[str, np.ndarray]:
    """Features, levels, outputs, losses for `BOXES`, and detections."""
    import torch
    from torchvision.models.detection.image_list import ImageList

    model = build(body)
    shapes = load_drawn_weights(model)
    model = model.double().eval()
    x = torch.from_numpy(image()).permute(0, 3, 1, 2)
    features = model.backbone.body(x)
    levels = model.backbone(x)
    outputs = model.head([*levels.values()])
    anchors = model.anchor_generator(ImageList(x, [SIZE]), [*levels.values()])
    target = {"boxes": torch.tensor(BOXES, dtype=x.dtype), "labels": torch.tensor(LABELS)}
    losses = model.compute_loss([target], outputs, anchors)
    counts = [level.shape[2] * level.shape[3] * 9 for level in levels.values()]
    (detections,) = model.postprocess_detections(
        {name: output.split(counts, 1) for name, output in outputs.items()},
        [anchors[0].split(counts)],
        [SIZE],
    )
    candidates = (outputs["cls_logits"].sigmoid() > SCORE_THRESHOLD).sum().item()
    deviations = {name: round(output.std().item(), 2) for name, output in outputs.items()}
    print(body, candidates, "candidates; standard deviations, best near 1:", deviations)

    return {
        **thin_maps("feature", features, 8),
        **thin_maps("level", levels, 8),
        "logits": thin(outputs["cls_logits"].numpy()),
        "deltas": thin(outputs["bbox_regression"].numpy()),
        "class_loss": losses["classification"].numpy(),
        "box_loss": losses["bbox_regression"].numpy(),
        **{name: value.numpy() for name, value in detections.items()},
        "shapes": np.array(json.dumps(shapes)),
    }


def main() -> None:
    import torch

    with torch.no_grad():
        for body in BODIES:
            np.savez_compressed(FOLDER / f"torchvision.retinanet.{body}.npz", **compute(body))


if __name__ == "__main__":
    main()
