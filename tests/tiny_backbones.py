"""Backbones with one block per stage, which compile in half the time of the smallest published one.

Importing this module registers them. They have all features of their family: blocks with and
without squeeze-excite, and both activations.
"""

from tinyjax.models import convnext, ghostnet, lightcnn, mobilenetv3, shufflenetv2, swin, vit
from tinyjax.models.lightcnn import MaxFeatureMapBlock
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

# As `make_references` builds them with torchvision.
MICRO_CONVNEXT, MICRO_SWIN = "convnext/micro", "swin/micro"
convnext.VARIANTS["micro"] = convnext.make_architecture(8, (1, 1, 1, 1))
swin.VARIANTS["micro"] = swin.make_architecture(8, (2, 1, 1, 1), heads=1)


def lightcnn_architecture(pooling: str = "max") -> Architecture:
    """One stage with a residual block and a group, and the last pooling."""
    residual = MaxFeatureMapBlock((3, 3), 4, residual=True, stride=2, pooling=pooling)
    group = MaxFeatureMapBlock((1, 3), 6, pooling=pooling)
    last = MaxFeatureMapBlock((), 6, stride=2, pooling=pooling)
    return Architecture(4, ((residual, group), (last,)), hidden=3, stem_kernel=5, stem_stride=1)


MICRO_VIT, MICRO_LIGHTCNN = "vit/micro", "lightcnn/micro"
vit.VARIANTS["micro"] = vit.make_architecture(16, heads=2, depth=2)
lightcnn.VARIANTS["micro"] = lightcnn_architecture()

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

REGISTERED = (
    *(TINY, TINY_WIDE, TINY_SHALLOW, MICRO_CONVNEXT, MICRO_SWIN, MICRO_VIT, MICRO_LIGHTCNN),
    *(TINY_SHUFFLENETV2, TINY_GHOSTNET, TINY_GHOSTNET_WIDE),
)

# One small network of each family, by name.
MINIS = {
    "efficientnet": "efficientnet/b-7",
    "mobilenetv3": TINY,
    "resnet": "resnet/18@w0.125",
    "convnext": MICRO_CONVNEXT,
    "swin": MICRO_SWIN,
    "vit": MICRO_VIT,
    "lightcnn": MICRO_LIGHTCNN,
    "shufflenetv2": TINY_SHUFFLENETV2,
    "ghostnet": TINY_GHOSTNET,
}
