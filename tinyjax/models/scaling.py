"""Architectures as static data, and the rules that scale convolutional networks down.

EfficientNet B-1..B-7 scale B0 down by inverse compound scaling: width 1.46^-k and depth 1.45^-k,
rounded as in timm (the scaling-rule search published with arXiv 2508.02927). That paper's rule for
MobileNetV3 is not public; we scale the width of torchvision's MobileNetV3-Small by 1.46^-k and keep
its depth, which gave the most regular of the series that we compared. The ladders of ShuffleNetV2
(N-1..N-5) and GhostNet (G-1..G-7) are our own, from no paper: width 1.46^-k of the 1.0 network,
down to about 20,000 parameters of stem and stages.

A stage is a tuple of blocks of one type. A block type is a frozen dataclass with `stride`, `out`
(channels), and what `models.supernet` needs in order to merge networks of several sizes:

    CHANNELS     fields that are channel counts, 0 for a layer that is absent; networks that share
                 a supernet must agree in all other fields
    GATES        the gates that the block's module implements, in its field `gates`
    gate_values  (input channels) -> name -> 0 or 1, for GATES and for layers that may be absent

A block with `transition` has the layers of a block with a stride, but its stride is 1, see
`registry.architecture`.
"""

import math
import operator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, NamedTuple

from tinyjax.errors import UserError

WIDTH_RATIO, DEPTH_RATIO = 1.46, 1.45
MAX_MULTIPLIER = 10  # of width and depth; 25 for 0.25 would exhaust the memory


class Transition:
    """What block types with a field `transition` share."""

    stride: int
    transition: bool

    @property
    def is_transition(self) -> bool:
        return self.stride > 1 or self.transition


@dataclass(frozen=True)
class MBConv(Transition):
    """An inverted residual; all numbers except `kernel` and `stride` are channel counts."""

    kernel: int
    stride: int
    expand: int  # of the depthwise convolution; if equal to the input's: no expansion layer
    out: int
    squeeze: int  # of the squeeze-excite bottleneck; 0: no squeeze-excite
    act: str
    gates: tuple[str, ...] = ()  # those in which a supernet's networks differ
    transition: bool = False

    CHANNELS: ClassVar = ("expand", "out", "squeeze")
    GATES: ClassVar = ("skip", "alive", "expands")

    def gate_values(self, inputs: int) -> dict[str, int]:
        skip = not self.is_transition and inputs == self.out
        return {"skip": int(skip), "alive": 1, "expands": int(self.expand != inputs)}

    def multiply_adds(self, inputs: int) -> int:
        """Per output position, without squeeze-excite, whose cost does not grow with the input."""
        expansion = inputs * self.expand * self.stride**2 if self.expand != inputs else 0
        return expansion + (self.kernel**2 + self.out) * self.expand


@dataclass(frozen=True)
class Residual(Transition):
    """A block of ResNet: two 3x3 convolutions, or with a bottleneck 1x1, 3x3, 1x1."""

    stride: int  # of the first or only 3x3 convolution
    width: int  # channels between the convolutions
    out: int
    bottleneck: bool
    gates: tuple[str, ...] = ()
    transition: bool = False

    CHANNELS: ClassVar = ("width", "out")
    GATES: ClassVar = ("alive",)

    def gate_values(self, inputs: int) -> dict[str, int]:
        return {"alive": 1, "shortcut": int(self.is_transition or inputs != self.out)}

    def multiply_adds(self, inputs: int) -> int:
        """Per output position."""
        projection = inputs * self.out * self.gate_values(inputs)["shortcut"]
        if self.bottleneck:
            reduction = inputs * self.width * self.stride**2
            return projection + reduction + (9 * self.width + self.out) * self.width
        return projection + 9 * (inputs + self.out) * self.width


@dataclass(frozen=True)
class FixedBlock:
    """Base of blocks that allow no zero padding: only equal networks share a program."""

    CHANNELS: ClassVar = ()
    GATES: ClassVar = ()
    gates: ClassVar = ()

    def gate_values(self, inputs: int) -> dict[str, int]:
        return {}


@dataclass(frozen=True)
class ShuffleUnit(Transition, FixedBlock):
    """A unit of ShuffleNetV2; half of its output channels come from each of its two branches.

    It splits its input at half its channels; the halves of a padded network would be others. Only
    the stem and the head of networks that share a program may have different widths.
    """

    stride: int
    out: int
    transition: bool = False

    def multiply_adds(self, inputs: int) -> int:
        """Per output position."""
        half = self.out // 2
        if not self.is_transition:
            return (2 * half + 9) * half
        shortcut = (9 + half) * inputs
        return shortcut + (inputs * self.stride**2 + 9 + half) * half


@dataclass(frozen=True)
class GhostBottleneck(Transition):
    """A bottleneck of two ghost modules; all numbers except `kernel` and `stride` are channels."""

    kernel: int  # of the depthwise convolutions that have the stride
    stride: int
    expand: int  # between the ghost modules
    out: int
    squeeze: int  # of the squeeze-excite bottleneck; 0: no squeeze-excite
    gates: tuple[str, ...] = ()
    transition: bool = False

    CHANNELS: ClassVar = ("expand", "out", "squeeze")
    GATES: ClassVar = ()

    def gate_values(self, inputs: int) -> dict[str, int]:
        return {"shortcut": int(self.is_transition or inputs != self.out)}

    def multiply_adds(self, inputs: int) -> int:
        """Per output position, without squeeze-excite, whose cost does not grow with the input."""
        depthwise, total = self.kernel**2, (self.expand + 9) * self.out // 2
        total += (inputs + 9) * self.expand // 2 * self.stride**2
        if self.is_transition:
            total += depthwise * self.expand
        if self.gate_values(inputs)["shortcut"]:
            total += (depthwise + self.out) * inputs
        return total


Position = tuple[int, int]  # stage, counted from 1, and block, counted from 0


class Architecture(NamedTuple):
    """A backbone: `stages`, and channels of the `stem`, `head` and `hidden` layers."""

    stem: int
    stages: tuple[tuple[Any, ...], ...]
    head: int = 0  # the layers between the last stage and pooling; 0: none
    hidden: int = 0  # the linear layer between pooling and classifier; 0: none
    stem_kernel: int = 3
    stem_stride: int = 2  # including pooling
    # Where TOPLight's blocks 2 to 6 start, see `models.path_blocks`; default: for four stages.
    block_starts: tuple[Position, ...] = ((1, 0), (1, 1), (2, 0), (3, 0), (4, 0))
    path_blocks: int = 0  # TOPLight's blocks 1 to this one exist once per modality; 0: one path

    @property
    def strides(self) -> tuple[int, ...]:
        """The stride at the end of each stage."""
        factors = (math.prod(block.stride for block in stage) for stage in self.stages)
        return tuple(accumulate(factors, operator.mul, initial=self.stem_stride))[1:]

    @property
    def feature_strides(self) -> tuple[int, ...]:
        """The strides of all features from the stem's last output, pooled or not, to the end."""
        return tuple(sorted({self.stem_stride, *self.strides}))


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
# channels of the stem, the stages and the head (ShuffleNetV2, table 5, as torchvision builds it)
SHUFFLENETV2_CHANNELS = {
    "0.5": (24, 48, 96, 192, 1024),
    "1.0": (24, 116, 232, 464, 1024),
    "1.5": (24, 176, 352, 704, 1024),
    "2.0": (24, 244, 488, 976, 2048),
}
# kernel, stride, expanded channels, channels, squeeze-excite (GhostNet, table 1); stages as in timm
_GHOSTNET = (
    ((3, 1, 16, 16, False),),
    ((3, 2, 48, 24, False),),
    ((3, 1, 72, 24, False),),
    ((5, 2, 72, 40, True),),
    ((5, 1, 120, 40, True),),
    ((3, 2, 240, 80, False),),
    (
        (3, 1, 200, 80, False),
        *((3, 1, 184, 80, False),) * 2,
        (3, 1, 480, 112, True),
        (3, 1, 672, 112, True),
    ),
    ((5, 2, 672, 160, True),),
    ((5, 1, 960, 160, False), (5, 1, 960, 160, True)) * 2,
)


def make_divisible(channels: float, divisor: int = 8) -> int:
    """Round to the nearest multiple of `divisor` that is at least `divisor` and 0.9 `channels`."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def efficientnet(width: float = 1.0, depth: float = 1.0) -> Architecture:
    """Scale EfficientNet-B0 by `width` (every channel count) and `depth` (repeats, rounded up).

    Raises:
        UserError: a multiplier is out of range.
    """
    _check_multipliers(width=width, depth=depth)
    stem = inputs = make_divisible(32 * width)
    stages = []
    for kernel, first_stride, expansion, channels, repeats in _B0:
        out, blocks = make_divisible(channels * width), []
        for i in range(math.ceil(repeats * depth)):
            stride = first_stride if i == 0 else 1
            # The squeeze width is a quarter of the input channels, not of the expanded channels.
            blocks.append(MBConv(kernel, stride, inputs * expansion, out, inputs // 4, "silu"))
            inputs = out
        stages.append(tuple(blocks))
    return Architecture(
        stem,
        tuple(stages),
        head=make_divisible(1280 * width),
        block_starts=((2, 0), (2, 1), (3, 0), (4, 0), (6, 0)),
    )


def mobilenetv3_small(width: float = 1.0) -> Architecture:
    """Scale MobileNetV3-Small by `width`. Raises UserError if it is out of range."""
    return _mobilenetv3(_SMALL, 1024, width, ((2, 0), (2, 1), (3, 0), (4, 0), (5, 0)))


def mobilenetv3_large(width: float = 1.0) -> Architecture:
    """Scale MobileNetV3-Large by `width`. Raises UserError if it is out of range."""
    return _mobilenetv3(_LARGE, 1280, width, ((2, 0), (2, 1), (3, 0), (4, 0), (6, 0)))


def _mobilenetv3(
    table: tuple, hidden: int, width: float, block_starts: tuple[Position, ...]
) -> Architecture:
    _check_multipliers(width=width)

    def block(kernel: int, stride: int, expand: int, out: int, excite: bool, act: str) -> MBConv:
        expand = make_divisible(expand * width)
        squeeze = make_divisible(expand // 4) if excite else 0
        return MBConv(kernel, stride, expand, make_divisible(out * width), squeeze, act)

    stages = tuple(tuple(block(*row) for row in stage) for stage in table)
    return Architecture(
        stem=make_divisible(16 * width),
        stages=stages,
        head=6 * stages[-1][-1].out,
        hidden=make_divisible(hidden * width),
        block_starts=block_starts,
    )


def resnet18(width: float = 1.0, depth: float = 1.0) -> Architecture:
    """Scale ResNet-18, as `_resnet` does."""
    return _resnet((2, 2, 2, 2), False, width, depth)


def resnet34(width: float = 1.0, depth: float = 1.0) -> Architecture:
    """Scale ResNet-34, as `_resnet` does."""
    return _resnet((3, 4, 6, 3), False, width, depth)


def resnet50(width: float = 1.0, depth: float = 1.0) -> Architecture:
    """Scale ResNet-50, as `_resnet` does."""
    return _resnet((3, 4, 6, 3), True, width, depth)


def resnet101(width: float = 1.0, depth: float = 1.0) -> Architecture:
    """Scale ResNet-101, as `_resnet` does."""
    return _resnet((3, 4, 23, 3), True, width, depth)


def _resnet(repeats: tuple[int, ...], bottleneck: bool, width: float, depth: float) -> Architecture:
    """Scale every channel count by `width`, and `repeats` by `depth`, rounded up; our own rule.

    Raises UserError if a multiplier is out of range.
    """
    _check_multipliers(width=width, depth=depth)
    stages = []
    for stage, count in enumerate(repeats):
        channels = make_divisible(64 * 2**stage * width)
        out = 4 * channels if bottleneck else channels
        first_stride = 2 if stage else 1
        strides = (first_stride, *(1,) * (math.ceil(count * depth) - 1))
        stages.append(tuple(Residual(stride, channels, out, bottleneck) for stride in strides))
    return Architecture(make_divisible(64 * width), tuple(stages), stem_kernel=7, stem_stride=4)


def shufflenetv2(width: float = 1.0) -> Architecture:
    """Scale every channel count of ShuffleNetV2 1.0 by `width`; our own rule.

    Channels are rounded to multiples of 4, so that both halves of a unit have the same, even number
    of channels; a larger divisor would not give the published 1.0 network, with 116 channels. The
    published 0.5, 1.5 and 2.0 networks follow no rule, see `SHUFFLENETV2_CHANNELS`.

    Raises UserError if `width` is out of range.
    """
    _check_multipliers(width=width)
    channels = (make_divisible(c * width, 4) for c in SHUFFLENETV2_CHANNELS["1.0"])
    return shufflenetv2_of_channels(*channels)


def shufflenetv2_of_channels(stem: int, *outs_and_head: int) -> Architecture:
    """Return the ShuffleNetV2 with these channels of the stem, the three stages and the head."""
    *outs, head = outs_and_head
    stages = tuple(
        (ShuffleUnit(2, out), *(ShuffleUnit(1, out),) * (repeats - 1))
        for out, repeats in zip(outs, (4, 8, 4), strict=True)
    )
    starts = ((1, 0), (1, 1), (1, 2), (2, 0), (3, 0))
    return Architecture(stem, stages, head=head, stem_stride=4, block_starts=starts)


def ghostnet(width: float = 1.0) -> Architecture:
    """Scale every channel count of GhostNet by `width`, rounded to multiples of 4, as timm does.

    timm keeps the 1280 units of the hidden layer; we scale them, too. Raises UserError if `width`
    is out of range.
    """
    _check_multipliers(width=width)

    def scale(channels: float) -> int:
        return make_divisible(channels * width, 4)

    def block(kernel: int, stride: int, expand: int, out: int, excite: bool) -> GhostBottleneck:
        squeeze = make_divisible(scale(expand) / 4, 4) if excite else 0
        return GhostBottleneck(kernel, stride, scale(expand), scale(out), squeeze)

    stages = tuple(tuple(block(*row) for row in stage) for stage in _GHOSTNET)
    return Architecture(
        scale(16),
        stages,
        head=stages[-1][-1].expand,
        hidden=scale(1280),
        block_starts=((2, 0), (3, 0), (4, 0), (6, 0), (8, 0)),
    )


def _check_multipliers(**multipliers: float) -> None:
    for name, value in multipliers.items():
        if not 0 < value <= MAX_MULTIPLIER:
            raise UserError(
                f"{name} = {value:g}: give a multiplier above 0 and of at most {MAX_MULTIPLIER}"
            )
