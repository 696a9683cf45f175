"""Backbones with one block per stage, which compile in half the time of the smallest published one.

Importing this module registers them. They have all features of their family: blocks with and
without squeeze-excite, and both activations.
"""

from tinyjax.models import ghostnet, mobilenetv3, shufflenetv2
from tinyjax.models.scaling import Architecture, GhostBottleneck, MBConv, ShuffleUnit

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

TINY_SHUFFLENETV2 = "shufflenetv2/tiny"
shufflenetv2.VARIANTS["tiny"] = Architecture(
    stem=4,
    stages=(
        (ShuffleUnit(2, 12), ShuffleUnit(1, 12)),
        (ShuffleUnit(2, 16),),
        (ShuffleUnit(2, 24),),
    ),
    head=32,
    stem_stride=4,
)

TINY_GHOSTNET, TINY_GHOSTNET_WIDE = "ghostnet/tiny", "ghostnet/tiny-wide"


def _ghostnet(width: int) -> Architecture:
    return Architecture(
        stem=width,
        stages=(
            (GhostBottleneck(3, 1, width, width, 0),),
            (GhostBottleneck(3, 2, 2 * width, width, width),),
            (GhostBottleneck(5, 2, 2 * width, width, 0),),
            (
                GhostBottleneck(3, 2, 2 * width, width, 0),
                GhostBottleneck(3, 1, 2 * width, 2 * width, width),
            ),
            (GhostBottleneck(5, 2, 2 * width, 2 * width, 0),),
        ),
        head=3 * width,
        hidden=16,
    )


ghostnet.VARIANTS |= {"tiny": _ghostnet(8), "tiny-wide": _ghostnet(12)}

# One small network of each family, by name.
MINIS = {
    "efficientnet": "efficientnet/b-7",
    "mobilenetv3": TINY,
    "resnet": "resnet/18@w0.125",
    "shufflenetv2": TINY_SHUFFLENETV2,
    "ghostnet": TINY_GHOSTNET,
}
