"""Architectures as static data: two series of scaled-down backbones, each with one scaling rule.

EfficientNet B-1..B-7 scale B0 down by inverse compound scaling: width 1.46^-k and depth 1.45^-k,
rounded as in timm (the scaling-rule search published with arXiv 2508.02927). That paper's rule for
MobileNetV3 is not public; we scale the width of torchvision's MobileNetV3-Small by 1.46^-k and keep
its depth, which gave the most regular of the series that we compared.
"""

import math
from typing import NamedTuple

from tinyjax.errors import UserError

WIDTH_RATIO, DEPTH_RATIO = 1.46, 1.45


class Block(NamedTuple):
    """An inverted residual; all numbers except `kernel` and `stride` are channel counts."""

    kernel: int
    stride: int
    expand: int  # of the depthwise convolution; if equal to the input's: no expansion layer
    out: int
    squeeze: int  # of the squeeze-excite bottleneck; 0: no squeeze-excite
    act: str
    gates: tuple[str, ...] = ()  # the `supernet.GATES` that differ between a supernet's networks


class Architecture(NamedTuple):
    """A backbone: `stages`, and channels of the `stem` (stride 2), `head` and `hidden` layers."""

    stem: int
    stages: tuple[tuple[Block, ...], ...]
    head: int
    hidden: int = 0  # MobileNetV3's linear layer between pooling and classifier; 0: none


# kernel, stride of the first block, expansion, channels, repeats (EfficientNet, table 1)
_B0 = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
# kernel, stride, expanded channels, channels, squeeze-excite, activation (MobileNetV3, tables 1, 2)
_LARGE = (
    ((3, 1, 16, 16, False, "relu"),),
    ((3, 2, 64, 24, False, "relu"), (3, 1, 72, 24, False, "relu")),
    ((5, 2, 72, 40, True, "relu"), *((5, 1, 120, 40, True, "relu"),) * 2),
    (
        (3, 2, 240, 80, False, "hard_swish"),
        (3, 1, 200, 80, False, "hard_swish"),
        *((3, 1, 184, 80, False, "hard_swish"),) * 2,
    ),
    ((3, 1, 480, 112, True, "hard_swish"), (3, 1, 672, 112, True, "hard_swish")),
    ((5, 2, 672, 160, True, "hard_swish"), *((5, 1, 960, 160, True, "hard_swish"),) * 2),
)
_SMALL = (
    ((3, 2, 16, 16, True, "relu"),),
    ((3, 2, 72, 24, False, "relu"), (3, 1, 88, 24, False, "relu")),
    ((5, 2, 96, 40, True, "hard_swish"), *((5, 1, 240, 40, True, "hard_swish"),) * 2),
    ((5, 1, 120, 48, True, "hard_swish"), (5, 1, 144, 48, True, "hard_swish")),
    ((5, 2, 288, 96, True, "hard_swish"), *((5, 1, 576, 96, True, "hard_swish"),) * 2),
)


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Round to the nearest multiple of `divisor` that is at least `divisor` and 0.9 `channels`."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def efficientnet(width: float = 1.0, depth: float = 1.0) -> Architecture:
    """Scale EfficientNet-B0 by `width` (every channel count) and `depth` (repeats, rounded up).

    Raises:
        UserError: a multiplier is not positive.
    """
    _check_positive(width=width, depth=depth)
    stem = inputs = make_divisible(32 * width)
    stages = []
    for kernel, first_stride, expansion, channels, repeats in _B0:
        out, blocks = make_divisible(channels * width), []
        for i in range(math.ceil(repeats * depth)):
            stride = first_stride if i == 0 else 1
            # The squeeze width is a quarter of the input channels, not of the expanded channels.
            blocks.append(Block(kernel, stride, inputs * expansion, out, inputs // 4, "silu"))
            inputs = out
        stages.append(tuple(blocks))
    return Architecture(stem, tuple(stages), head=make_divisible(1280 * width))


def mobilenetv3_small(width: float = 1.0) -> Architecture:
    """Scale MobileNetV3-Small by `width`. Raises UserError if it is not positive."""
    return _mobilenetv3(_SMALL, 1024, width)


def mobilenetv3_large(width: float = 1.0) -> Architecture:
    """Scale MobileNetV3-Large by `width`. Raises UserError if it is not positive."""
    return _mobilenetv3(_LARGE, 1280, width)


def _mobilenetv3(table: tuple, hidden: int, width: float) -> Architecture:
    _check_positive(width=width)

    def block(kernel: int, stride: int, expand: int, out: int, excite: bool, act: str) -> Block:
        expand = make_divisible(expand * width)
        squeeze = make_divisible(expand // 4) if excite else 0
        return Block(kernel, stride, expand, make_divisible(out * width), squeeze, act)

    stages = tuple(tuple(block(*row) for row in stage) for stage in table)
    return Architecture(
        stem=make_divisible(16 * width),
        stages=stages,
        head=6 * stages[-1][-1].out,
        hidden=make_divisible(hidden * width),
    )


def _check_positive(**multipliers: float) -> None:
    for name, value in multipliers.items():
        if not value > 0:
            raise UserError(f"{name}={value!r}: a width or depth multiplier must be positive")
