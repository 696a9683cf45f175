"""Supernets: one architecture that contains networks of several sizes, each zero-padded to it.

Widths are padded with zeros, which all layers preserve exactly. What padding cannot express is
stored as gates, 0/1 numbers per network, in the blocks where the networks differ:

    skip     the input is added to the output: after rounding, a narrow network has skip connections
             that a wide one lacks
    alive    the block has a branch: 0 beyond the depth of a shallow network. Without this gate, the
             bias of the last BatchNorm in an all-zero branch would receive a gradient
    expands  the block has an expansion convolution: 0 where rounding leaves the number of channels
             unchanged
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from tinyjax.models.scaling import Architecture, Block

GATES = ("skip", "alive", "expands")
ABSENT_BLOCK = {"skip": 1, "alive": 0}

Position = tuple[int, int]  # stage, counted from 1, and block, counted from 0
Column = list[tuple[int, Block | None]]  # per network: input channels, its block at a position


def merge_architectures(archs: Iterable[Architecture]) -> Architecture:
    """Return the smallest architecture that contains all of `archs`.

    Every number of channels is the largest one, and every block exists that any of them has.

    Raises ValueError naming what cannot be shared: different numbers of stages, or a block that
    differs in kernel, stride, activation or presence of squeeze-excite.
    """
    archs = list(dict.fromkeys(archs))
    if len(archs) == 1:
        return archs[0]
    counts = {
        "stages": {len(arch.stages) for arch in archs},
        "hidden layers": {int(arch.hidden > 0) for arch in archs},
    }
    for name, numbers in counts.items():
        if len(numbers) > 1:
            raise ValueError(f"backbones of {sorted(numbers)} {name} cannot share a program")
    stem, head, hidden = (max(getattr(a, n) for a in archs) for n in ("stem", "head", "hidden"))
    stages: list[list[Block]] = [[] for _ in archs[0].stages]
    inputs = stem
    for position, column in _columns(archs):
        block = _merge_blocks(position, column, inputs)
        stages[position[0] - 1].append(block)
        inputs = block.out
    return Architecture(stem, tuple(map(tuple, stages)), head, hidden)


def gate_values(arch: Architecture, supernet: Architecture) -> dict[str, int]:
    """Return the gates of `arch` inside `supernet`: path of a gate -> 0 or 1."""
    values = {}
    for (stage, number), ((_, block), (inputs, member_block)) in _columns([supernet, arch]):
        gates = dict.fromkeys(GATES, 1) | ABSENT_BLOCK
        if member_block:
            gates = _block_gates(inputs, member_block)
        for name in block.gates if block else ():
            values[f"stage{stage}/block{number}/{name}"] = gates[name]
    return values


def _columns(archs: Sequence[Architecture]) -> Iterator[tuple[Position, Column]]:
    """Yield every position, with the blocks that the networks have there."""
    inputs = [arch.stem for arch in archs]
    for stage, rows in enumerate(zip(*(arch.stages for arch in archs), strict=True), start=1):
        for number, blocks in enumerate(zip_longest(*rows)):
            yield (stage, number), list(zip(inputs, blocks, strict=True))
            inputs = [b.out if b else i for i, b in zip(inputs, blocks, strict=True)]


def _block_gates(inputs: int, block: Block) -> dict[str, int]:
    """Return the gates of an existing block with `inputs` input channels."""
    skip = block.stride == 1 and inputs == block.out
    return dict(zip(GATES, map(int, (skip, True, block.expand != inputs)), strict=True))


def _merge_blocks(position: Position, column: Column, inputs: int) -> Block:
    """Return the block of a supernet that has `inputs` channels at this position."""
    blocks = [block for _, block in column if block]
    settings: dict[str, set] = {
        "kernel": {b.kernel for b in blocks},
        "stride": {b.stride for b in blocks},
        "activation": {b.act for b in blocks},
        "squeeze-excite": {b.squeeze > 0 for b in blocks},
    }
    conflicts = [name for name, values in settings.items() if len(values) > 1]
    expand, squeeze = (max(getattr(b, name) for b in blocks) for name in ("expand", "squeeze"))
    out = max(b.out if b else i for i, b in column)  # an absent block passes its input through
    merged = blocks[0]._replace(expand=expand, out=out, squeeze=squeeze)
    if len(blocks) < len(column) and merged.stride > 1:
        conflicts.append("number of blocks")  # skipping an absent block keeps the resolution
    ungated = _block_gates(inputs, merged)
    gates = [_block_gates(i, b) if b else ungated | ABSENT_BLOCK for i, b in column]
    if not ungated["expands"] and any(g["expands"] for g in gates):
        conflicts.append("expansion")  # the merged block happens to have as many channels as inputs
    if conflicts:
        stage, number = position
        raise ValueError(
            f"backbones that differ in {' and '.join(conflicts)} of stage {stage}, block {number} "
            "cannot share a program"
        )
    return merged._replace(
        gates=tuple(name for name in GATES if {g[name] for g in gates} != {ungated[name]})
    )
