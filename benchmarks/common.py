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
IDENTITIES, IDENTITIES_PER_BATCH, MARGIN = 395, 8, 0.3  # of recognition; SYSU-MM01 has 395


def random_images(batch: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Return float32 images [batch, side, side, 3] and int32 labels [batch], always the same."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, side, side, 3)).astype(np.float32)
    return images, rng.integers(0, CLASSES, batch).astype(np.int32)


def random_pairs(batch: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch of recognition, always the same: uint8 images [batch, H, W, 3], of which the
    first half is visible, and int32 labels [batch].

    batch: a multiple of 16, as each of 8 identities has as many visible as infrared images.
    """
    images = np.random.default_rng(0).integers(0, 256, (batch, *size, 3), np.uint8)
    identities = np.arange(IDENTITIES_PER_BATCH, dtype=np.int32)
    return images, np.tile(identities.repeat(batch // (2 * IDENTITIES_PER_BATCH)), 2)
