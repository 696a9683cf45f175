"""torchvision's RoIAlign, stored in references/roi_align.npz for test_roi_align.py.

Run as `python -m tests.ops.make_roi_align` with torch 2.13.0 and torchvision 0.28.0.
"""

from pathlib import Path

import numpy as np

FILE = Path(__file__).parent / "references" / "roi_align.npz"
STRIDE, SIZE = 4, 3
SETTINGS = [(samples, aligned) for samples in (1, 2) for aligned in (True, False)]


def inputs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features [2, 7, 9, 2], boxes [2, 8, 4], and the gradient of the output, float64.

    The first boxes lie at and beyond the borders of the image (28 x 36 pixels), and empty; the
    others are random. No point lies exactly one cell outside, where rounding would decide.
    """
    random = np.random.RandomState(0)
    features = random.standard_normal((2, 7, 9, 2))
    special = [
        [[0, 0, 36, 28], [-9.3, -6.7, 3.1, 2.2], [30, 25, 44, 34], [12, 8, 12, 8]],
        [[35.9, 27.9, 36, 28], [80, 80, 90, 90], [0, 0, 0, 0], [20, 16, 10, 12]],
    ]
    center, half = random.uniform(2, 26, (2, 4, 2)), random.uniform(1, 9, (2, 4, 2))
    boxes = np.concatenate([special, np.concatenate([center - half, center + half], -1)], 1)
    return features, boxes, random.standard_normal((2, 8, SIZE, SIZE, 2))


def main() -> None:
    import torch
    from torchvision.ops import roi_align

    arrays = {}
    features, boxes, dy = map(torch.from_numpy, inputs())
    for samples, aligned in SETTINGS:
        x = features.permute(0, 3, 1, 2).clone().requires_grad_()
        y = roi_align(x, list(boxes), SIZE, 1 / STRIDE, samples, aligned)
        y.backward(dy.flatten(0, 1).permute(0, 3, 1, 2))
        name = f"{samples}.{aligned}"
        arrays[f"{name}.value"] = y.detach().permute(0, 2, 3, 1).reshape(dy.shape).numpy()
        arrays[f"{name}.gradient"] = x.grad.permute(0, 2, 3, 1).numpy()
    FILE.parent.mkdir(exist_ok=True)
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
