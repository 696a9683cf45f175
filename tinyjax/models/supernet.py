"""One program for networks of several sizes: their union, in which each of them lives zero-padded.

Widths are padded with zeros, which all layers here keep exactly. What no padding can express
becomes 0/1 numbers of each network, in the blocks where the networks differ:

    skip     the input is added: after rounding, a narrow network has skips where a wide one has not
    alive    there is a branch: not in a block beyond a shallow network's depth. Without this number
             the last BatchNorm's bias of a branch that is all zeros would receive a gradient
    expands  there is an expansion convolution: not where rounding leaves as many channels as before
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from tinyjax.models.scaling import Architecture, Block

GATES = ("skip", "alive", "expands")
ABSENT = {"skip": 1, "alive": 0}

Column = list[tuple[int, Block | None]]  # of each network: channels of the input, its block there


def supernet(archs: Iterable[Architecture]) -> Architecture:
    """The smallest architecture that holds all of these: the largest of every number of channels,
    and all blocks that any of them has.

    Raises ValueError naming what cannot be shared: another number of stages, and a block of another
    kernel, stride or activation, or with squeeze-excite in some only.
    """
    archs = list(dict.fromkeys(archs))
    if len(archs) == 1:
        return archs[0]
    for what in ("stages", "hidden layers"):
        numbers = {len(a.stages) if what == "stages" else int(a.hidden > 0) for a in archs}
        if len(numbers) > 1:
            raise ValueError(f"backbones of {sorted(numbers)} {what} cannot share a program")
    stem, head, hidden = (max(getattr(a, n) for a in archs) for n in ("stem", "head", "hidden"))
    stages: list[list[Block]] = [[] for _ in archs[0].stages]
    inputs = stem
    for place, column in _columns(archs):
        block = _widest(place, column, inputs)
        stages[place[0] - 1].append(block)
        inputs = block.out
    return Architecture(stem, tuple(map(tuple, stages)), head, hidden)


def gates(arch: Architecture, wide: Architecture) -> dict[str, int]:
    """The 0/1 numbers of `arch` in the union `wide`: path of a gate -> number."""
    found = {}
    for (stage, number), ((_, block), (inputs, own)) in _columns([wide, arch]):
        numbers = _numbers(inputs, own) if own else dict.fromkeys(GATES, 1) | ABSENT
        for name in block.gates if block else ():
            found[f"stage{stage}/block{number}/{name}"] = numbers[name]
    return found


def _columns(archs: Sequence[Architecture]) -> Iterator[tuple[tuple[int, int], Column]]:
    """Blocks that share a place: (stage from 1, block from 0), and a column of them."""
    inputs = [arch.stem for arch in archs]
    for stage, rows in enumerate(zip(*(arch.stages for arch in archs), strict=True), start=1):
        for number, blocks in enumerate(zip_longest(*rows)):
            yield (stage, number), list(zip(inputs, blocks, strict=True))
            inputs = [b.out if b else i for i, b in zip(inputs, blocks, strict=True)]


def _numbers(inputs: int, block: Block) -> dict[str, int]:
    """What a network's block is in terms of gates."""
    skip = block.stride == 1 and inputs == block.out
    return dict(zip(GATES, map(int, (skip, True, block.expand != inputs)), strict=True))


def _widest(place: tuple[int, int], column: Column, inputs: int) -> Block:
    """One block for all of a column, in a union that has so many channels there."""
    blocks = [block for _, block in column if block]
    kinds: dict[str, set] = {
        "kernel": {b.kernel for b in blocks},
        "stride": {b.stride for b in blocks},
        "activation": {b.act for b in blocks},
        "squeeze-excite": {b.squeeze > 0 for b in blocks},
    }
    differ = [name for name, values in kinds.items() if len(values) > 1]
    expand, squeeze = (max(getattr(b, name) for b in blocks) for name in ("expand", "squeeze"))
    out = max(b.out if b else inp for inp, b in column)  # an absent one hands its input on
    block = blocks[0]._replace(expand=expand, out=out, squeeze=squeeze)
    if len(blocks) < len(column) and block.stride > 1:
        differ.append("number of blocks")  # what skips an absent one keeps the resolution
    plain = _numbers(inputs, block)
    own = [_numbers(inp, b) if b else plain | ABSENT for inp, b in column]
    if not plain["expands"] and any(each["expands"] for each in own):
        differ.append("expansion")  # by chance as many channels as the input's
    if differ:
        stage, number = place
        raise ValueError(
            f"backbones that differ in {' and '.join(differ)} of stage {stage}, block {number} "
            "cannot share a program"
        )
    return block._replace(
        gates=tuple(name for name in GATES if {each[name] for each in own} != {plain[name]})
    )
