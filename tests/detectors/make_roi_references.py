"""torchvision's loss of the second stage, stored in references/roi_loss.npz.

Run as `python -m tests.detectors.make_roi_references` with torch 2.13.0 and torchvision 0.28.0.
"""

from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "references" / "roi_loss.npz"
CLASSES, IMAGES, ROIS = 3, 2, 6
WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def inputs() -> dict[str, np.ndarray]:
    """float64 arrays [IMAGES, ROIS, ...]; label 0 is the background."""
    random = np.random.RandomState(0)
    shape = IMAGES, ROIS
    corner = random.uniform(0, 40, (*shape, 2))
    rois = np.concatenate([corner, corner + random.uniform(4, 20, (*shape, 2))], -1)
    return {
        "logits": random.standard_normal((*shape, CLASSES + 1)),
        "deltas": random.standard_normal((*shape, CLASSES, 4)),
        "rois": rois,
        "labels": random.randint(0, CLASSES + 1, shape),
        "boxes": rois + random.uniform(-1, 1, rois.shape),
    }


def main() -> None:
    import torch
    from torchvision.models.detection._utils import BoxCoder
    from torchvision.models.detection.roi_heads import fastrcnn_loss

    arrays = {name: torch.from_numpy(array) for name, array in inputs().items()}
    logits = arrays["logits"].flatten(0, 1).requires_grad_()
    deltas = arrays["deltas"].flatten(2).requires_grad_()
    background = torch.zeros(IMAGES, ROIS, 4, dtype=deltas.dtype)  # torchvision has a box for it
    targets = BoxCoder(WEIGHTS).encode(list(arrays["boxes"]), list(arrays["rois"]))
    outputs = torch.cat([background, deltas], 2).flatten(0, 1)
    losses = fastrcnn_loss(logits, outputs, list(arrays["labels"]), list(targets))
    sum(losses).backward()
    np.savez_compressed(
        FILE,
        losses=[loss.item() for loss in losses],
        logits=logits.grad.reshape(arrays["logits"].shape).numpy(),
        deltas=deltas.grad.reshape(arrays["deltas"].shape).numpy(),
    )


if __name__ == "__main__":
    main()
