"""Supernets: one architecture that contains networks of several sizes, each zero-padded to it.

Channels are padded with zeros, which all layers preserve exactly. Other differences between the
networks are expressed by gates: 0/1 numbers, one per network, in the blocks that differ.

    skip     1 if the input is added to the output. Because channels are rounded, a narrow network
             can have skip connections that a wide one does not have
    alive    1 if the network has this block; 0 beyond its depth. Without this gate, the bias of the
             last BatchNorm in an all-zero branch would receive a gradient
    expands  1 if the block has an expansion convolution; 0 where rounding makes the number of
             expanded channels equal to that of the input
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest

from tinyjax.models.scaling import Architecture, Block

GATES = ("skip", "alive", "expands")
ABSENT_BLOCK_GATES = {"skip": 1, "alive": 0}

Position = tuple[int, int]  # stage, counted from 1, and block, counted from 0
# At one position, for each network: input channels and block; None beyond the network's depth.
AlignedBlocks = list[tuple[int, Block | None]]


def merge_architectures(archs: Iterable[Architecture]) -> Architecture:
    """Return the smallest architecture that contains all of `archs`.

    It contains every block of every network; each layer has the largest number of channels.

    Raises ValueError, with the reason, if they cannot share an architecture: they differ in the
    number of stages, or in a block's kernel, stride, activation or presence of squeeze-excite.
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
    for position, aligned in _align_blocks(archs):
        block = _merge_blocks(position, aligned, inputs)
        stages[position[0] - 1].append(block)
        inputs = block.out
    return Architecture(stem, tuple(map(tuple, stages)), head, hidden)


def gate_values(arch: Architecture, supernet: Architecture) -> dict[str, int]:
    """Return the gates of `arch` as a part of `supernet`: path of a gate -> 0 or 1."""
    values = {}
    for (stage, number), ((_, block), (inputs, member_block)) in _align_blocks([supernet, arch]):
        gates = dict.fromkeys(GATES, 1) | ABSENT_BLOCK_GATES
        if member_block:
            gates = _block_gates(inputs, member_block)
        for name in block.gates if block else ():
            values[f"stage{stage}/block{number}/{name}"] = gates[name]
    return values


def _align_blocks(archs: Sequence[Architecture]) -> Iterator[tuple[Position, AlignedBlocks]]:
    """Yield every position with the networks' blocks at that position."""
    inputs = [arch.stem for arch in archs]
    for stage, rows in enumerate(zip(*(arch.stages for arch in archs), strict=True), start=1):
        for number, blocks in enumerate(zip_longest(*rows)):
            yield (stage, number), list(zip(inputs, blocks, strict=True))
            inputs = [b.out if b else i for i, b in zip(inputs, blocks, strict=True)]


def _block_gates(inputs: int, block: Block) -> dict[str, int]:
    """Return the gates of a block with `inputs` input channels."""
    skip = block.stride == 1 and inputs == block.out
    return dict(zip(GATES, map(int, (skip, True, block.expand != inputs)), strict=True))


def _merge_blocks(position: Position, aligned: AlignedBlocks, inputs: int) -> Block:
    """Return the supernet's block at this position; it has `inputs` input channels."""
    blocks = [block for _, block in aligned if block]
    settings: dict[str, set] = {
        "kernel": {b.kernel for b in blocks},
        "stride": {b.stride for b in blocks},
        "activation": {b.act for b in blocks},
        "squeeze-excite": {b.squeeze > 0 for b in blocks},
    }
    conflicts = [name for name, values in settings.items() if len(values) > 1]
    expand, squeeze = (max(getattr(b, name) for b in blocks) for name in ("expand", "squeeze"))
    out = max(b.out if b else i for i, b in aligned)  # an absent block is the identity
    merged = blocks[0]._replace(expand=expand, out=out, squeeze=squeeze)
    if len(blocks) < len(aligned) and merged.stride > 1:
        conflicts.append("number of blocks")  # an absent block cannot change the resolution
    ungated = _block_gates(inputs, merged)
    gates = [_block_gates(i, b) if b else ungated | ABSENT_BLOCK_GATES for i, b in aligned]
    if not ungated["expands"] and any(g["expands"] for g in gates):
        conflicts.append("expansion")  # in `merged`, expanded and input channels are equal
    if conflicts:
        stage, number = position
        raise ValueError(
            f"backbones that differ in {' and '.join(conflicts)} of stage {stage}, block {number} "
            "cannot share a program"
        )
    return merged._replace(
        gates=tuple(name for name in GATES if {g[name] for g in gates} != {ungated[name]})
    )
