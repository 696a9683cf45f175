"""Networks of tinyjax with `flax.linen.Conv` instead of tinyjax's convolution."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch


def flax_conv(x, kernel, stride: int = 1, groups: int = 1):
    """Compute `ops.conv.conv2d` by `flax.linen.Conv`."""
    import flax.linen as nn

    k = kernel.shape[0]
    conv = nn.Conv(
        kernel.shape[3], (k, k), stride, padding=k // 2, feature_group_count=groups, use_bias=False
    )
    return conv.apply({"params": {"kernel": kernel}}, x)


@contextmanager
def use_flax_conv() -> Iterator[None]:
    """Make networks traced in this context use `flax.linen.Conv`."""
    with (
        patch("tinyjax.models.layers.conv2d", flax_conv),
        patch("tinyjax.detectors.point.conv2d", flax_conv),
    ):
        yield
