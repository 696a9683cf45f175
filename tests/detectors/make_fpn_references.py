"""Outputs of torchvision's `FeaturePyramidNetwork`, stored under references/ for test_fpn.py.

Run as `python -m tests.detectors.make_fpn_references` with torch 2.13.0 and torchvision 0.28.0.
Weights are not stored: both sides draw them by name, see `make_references.draw`.
"""

from pathlib import Path

import numpy as np

from tests.models.make_references import draw

FILE = Path(__file__).parent / "references" / "torchvision.fpn.npz"
WIDTH = 4
# stride -> shape [B, h, w, c] of the feature; odd sizes, to test cropping
SHAPES = {4: (1, 9, 13, 3), 8: (1, 5, 7, 2), 16: (1, 3, 4, 5)}


def features() -> dict[int, np.ndarray]:
    random = np.random.RandomState(0)
    return {stride: random.standard_normal(shape) for stride, shape in SHAPES.items()}


def main() -> None:
    import torch
    from torchvision.ops import FeaturePyramidNetwork
    from torchvision.ops.feature_pyramid_network import LastLevelMaxPool, LastLevelP6P7

    channels = [shape[-1] for shape in SHAPES.values()]
    extra_blocks = {
        "pool": LastLevelMaxPool(),
        "p5": LastLevelP6P7(WIDTH, WIDTH),
        "c5": LastLevelP6P7(channels[-1], WIDTH),
    }
    arrays = {}
    for name, block in extra_blocks.items():
        fpn = FeaturePyramidNetwork(channels, WIDTH, block)
        weights = {k: torch.from_numpy(draw(k, v.shape)) for k, v in fpn.state_dict().items()}
        fpn.load_state_dict(weights)
        inputs = {str(s): torch.from_numpy(x).permute(0, 3, 1, 2) for s, x in features().items()}
        with torch.no_grad():
            outputs = fpn.double()(inputs)
        for i, output in enumerate(outputs.values()):
            arrays[f"{name}/{4 * 2**i}"] = output.permute(0, 2, 3, 1).numpy()
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
