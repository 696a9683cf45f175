"""Backbones with one block per stage, which compile in half the time of the smallest published one.

Importing this module registers them. They have all features of their family: blocks with and
without squeeze-excite, and both activations.
"""

from tinyjax.models import convnext, mobilenetv3, swin
from tinyjax.models.scaling import Architecture, MBConv

TINY, TINY_WIDE = "mobilenetv3/tiny", "mobilenetv3/tiny-wide"
# Two stages, up to stride 8: only for detectors with a `neck_width`, or for features.
TINY_SHALLOW = "mobilenetv3/tiny-shallow"


def _architecture(width: int) -> Architecture:
    return Architecture(
        stem=width,
        stages=(
            (MBConv(3, 2, width, width, width, "relu"),),
            (MBConv(3, 2, 2 * width, width, 0, "relu"),),
            (MBConv(3, 2, 2 * width, width, width, "hard_swish"),),
            (MBConv(3, 1, 2 * width, width, 0, "hard_swish"),),
            (MBConv(3, 2, 2 * width, 2 * width, width, "hard_swish"),),
        ),
        head=3 * width,
        hidden=2 * width,
    )


_tiny = _architecture(8)
mobilenetv3.VARIANTS |= {
    "tiny": _tiny,
    "tiny-wide": _architecture(16),
    "tiny-shallow": _tiny._replace(stages=_tiny.stages[1:3]),
}

# As `make_references` builds them with torchvision.
MICRO_CONVNEXT, MICRO_SWIN = "convnext/micro", "swin/micro"
convnext.VARIANTS["micro"] = convnext.make_architecture(8, (1, 1, 1, 1))
swin.VARIANTS["micro"] = swin.make_architecture(8, (2, 1, 1, 1), heads=1)
