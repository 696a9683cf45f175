"""Outputs of torchvision's anchors, matcher, box coder and losses, in references/anchors.npz.

Run as `python -m tests.detectors.make_anchor_references` with torch 2.13.0 and torchvision 0.28.0.
"""

from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "references" / "anchors.npz"

# RetinaNet's anchors. Image sizes are no multiples of the levels' sizes: 100 // 13 = 7.
IMAGE_SIZE = (100, 76)
LEVEL_SHAPES = ((13, 10), (7, 5), (4, 3), (2, 2), (1, 1))
SIZES = tuple(
    (size, int(size * 2 ** (1 / 3)), int(size * 2 ** (2 / 3))) for size in (32, 64, 128, 256, 512)
)
ASPECT_RATIOS = (0.5, 1.0, 2.0)
THRESHOLDS = (0.5, 0.4)
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def random_boxes(seed: int, count: int, max_size: float) -> np.ndarray:
    """Boxes [count, 4] in an image of `IMAGE_SIZE`, rounded, so that IoUs have ties."""
    random = np.random.RandomState(seed)
    center = random.uniform(0, IMAGE_SIZE[::-1], (count, 2))
    half = random.uniform(2, max_size, (count, 2)) / 2
    return np.round(np.concatenate([center - half, center + half], 1))


def random_outputs(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return 3 * np.random.RandomState(seed).standard_normal(shape)


def main() -> None:
    import torch
    from torch.nn.functional import smooth_l1_loss
    from torchvision.models.detection._utils import BoxCoder, Matcher
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList
    from torchvision.ops import box_iou, sigmoid_focal_loss

    generator = AnchorGenerator(SIZES, (ASPECT_RATIOS,) * len(SIZES))
    images = ImageList(torch.zeros(1, 3, *IMAGE_SIZE), [IMAGE_SIZE])
    (anchors,) = generator(images, [torch.zeros(1, 1, *shape) for shape in LEVEL_SHAPES])
    corners = anchors.numpy()
    assert (corners == corners.astype(np.int16)).all()

    boxes = torch.tensor(random_boxes(0, 12, 60))
    iou = box_iou(boxes, anchors.double())
    matches = {
        f"matches_low_quality_{low_quality}": Matcher(*THRESHOLDS, low_quality)(iou).numpy()
        for low_quality in (False, True)
    }
    proposals = torch.tensor(random_boxes(1, len(boxes), 60))
    coder = BoxCoder(WEIGHTS)
    deltas = coder.encode_single(boxes, proposals)
    outputs = torch.tensor(random_outputs(2, (len(boxes), 4)))
    decoded = coder.decode_single(outputs, proposals)
    targets = torch.tensor(random_outputs(3, outputs.shape) > 1)
    focal = sigmoid_focal_loss(outputs, targets.double(), 0.3, 1.5)
    zeros = torch.zeros_like(outputs)
    smooth_l1 = {
        f"smooth_l1_{beta}": smooth_l1_loss(outputs, zeros, reduction="none", beta=beta).numpy()
        for beta in (0.0, 1.0)
    }
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        FILE,
        anchors=corners.astype(np.int16),
        deltas=deltas.numpy(),
        decoded=decoded.numpy(),
        focal=focal.numpy(),
        **{name: match.astype(np.int16) for name, match in matches.items()},
        **smooth_l1,
    )


if __name__ == "__main__":
    main()
