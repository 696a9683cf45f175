"""Networks and inputs that all candidates of a benchmark share."""

import numpy as np

NETS = (
    "mobilenetv3/s-0",
    "mobilenetv3/s-3",
    "efficientnet/b-1",
    "efficientnet/b-3",
    "efficientnet/b-5",
)
OTHER_NETS = ("resnet/50", "shufflenetv2/1.0", "ghostnet/1.0", "convnext/tiny", "swin/tiny")
BATCH, SIDE, CLASSES = 16, 160, 1000


def random_images(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 images [batch, SIDE, SIDE, 3] and int32 labels [batch], always the same."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, SIDE, SIDE, 3)).astype(np.float32)
    return images, rng.integers(0, CLASSES, batch).astype(np.int32)
