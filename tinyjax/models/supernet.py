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
from dataclasses import astuple, fields, replace
from itertools import zip_longest
from typing import Any

from tinyjax.models.path_blocks import is_doubled
from tinyjax.models.scaling import Architecture, Position

GATES = ("skip", "alive", "expands")
ABSENT_BLOCK_GATES = {"skip": 1, "alive": 0}

# At one position, for each network: input channels and block, of one of the types in
# `models.scaling`; None beyond the network's depth.
AlignedBlocks = list[tuple[int, Any]]


def merge_architectures(archs: Iterable[Architecture]) -> Architecture:
    """Return the smallest architecture that contains all of `archs`.

    It contains every block of every network; each layer has the largest number of channels.

    Raises ValueError, with the reason, if they cannot share an architecture: they differ in the
    number of stages, or in the type of a block or a field that is not in its `CHANNELS`.
    """
    archs = list(dict.fromkeys(archs))
    if len(archs) == 1:
        return archs[0]
    properties: dict[str, set] = {
        "number of stages": {len(arch.stages) for arch in archs},
        "presence of a hidden layer": {arch.hidden > 0 for arch in archs},
        "stem": {(arch.stem_kernel, arch.stem_stride) for arch in archs},
        "doubled blocks": {(arch.block_starts, arch.path_blocks) for arch in archs},
    }
    for name, values in properties.items():
        if len(values) > 1:
            raise ValueError(f"backbones that differ in {name} cannot share a program")
    stem, head, hidden = (max(getattr(a, n) for a in archs) for n in ("stem", "head", "hidden"))
    stages: list[list[Any]] = [[] for _ in archs[0].stages]
    inputs = stem
    for position, aligned in _align_blocks(archs):
        block = _merge_blocks(position, aligned, inputs)
        stages[position[0] - 1].append(block)
        inputs = block.out
    return archs[0]._replace(stem=stem, stages=tuple(map(tuple, stages)), head=head, hidden=hidden)


def gate_values(arch: Architecture, supernet: Architecture) -> dict[str, int]:
    """Return the gates of `arch` as a part of `supernet`: path of a gate -> 0 or 1."""
    if arch == supernet:
        return {}
    values: dict[str, int] = {}
    for (stage, number), ((_, block), (inputs, member_block)) in _align_blocks([supernet, arch]):
        gates = dict.fromkeys(block.gates, 1) | ABSENT_BLOCK_GATES
        if member_block:
            gates = member_block.gate_values(inputs)
        path = f"stage{stage}/block{number}"
        paths = [path, f"infrared/{path}"] if is_doubled((stage, number), supernet) else [path]
        values |= {f"{path}/{name}": gates[name] for path in paths for name in block.gates}
    return values


def _align_blocks(archs: Sequence[Architecture]) -> Iterator[tuple[Position, AlignedBlocks]]:
    """Yield every position with the networks' blocks at that position."""
    inputs = [arch.stem for arch in archs]
    for stage, rows in enumerate(zip(*(arch.stages for arch in archs), strict=True), start=1):
        for number, blocks in enumerate(zip_longest(*rows)):
            yield (stage, number), list(zip(inputs, blocks, strict=True))
            inputs = [b.out if b else i for i, b in zip(inputs, blocks, strict=True)]


def _merge_blocks(position: Position, aligned: AlignedBlocks, inputs: int) -> Any:
    """Return the supernet's block at this position; it has `inputs` input channels."""
    blocks = [block for _, block in aligned if block]
    block_type, conflicts = type(blocks[0]), []
    if any(type(block) is not block_type for block in blocks):
        conflicts.append("type")
    else:
        names = [field.name for field in fields(block_type)]
        # A layer must be present in all networks or in none.
        settings = {
            name: {v > 0 if name in block_type.CHANNELS else v for v in values}
            for name, *values in zip(names, *map(astuple, blocks), strict=True)
        }
        conflicts += [name for name, values in settings.items() if len(values) > 1]
    if conflicts:
        raise _conflict_error(position, conflicts)
    largest = {name: max(getattr(b, name) for b in blocks) for name in block_type.CHANNELS}
    out = max(b.out if b else i for i, b in aligned)  # an absent block is the identity
    merged = replace(blocks[0], **{**largest, "out": out})
    ungated = merged.gate_values(inputs)
    absent = {name: ABSENT_BLOCK_GATES.get(name, value) for name, value in ungated.items()}
    gates = [b.gate_values(i) if b else absent for i, b in aligned]
    varied = [name for name in ungated if {g[name] for g in gates} != {ungated[name]}]
    conflicts = [name for name in varied if name not in block_type.GATES]
    # An absent block cannot change the resolution.
    if len(blocks) < len(aligned) and (merged.stride > 1 or "alive" not in block_type.GATES):
        conflicts.append("number of blocks")
    if not ungated.get("expands", 1) and "expands" in varied:
        conflicts.append("expansion")  # in `merged`, expanded and input channels are equal
    if conflicts:
        raise _conflict_error(position, conflicts)
    return replace(merged, gates=tuple(varied)) if varied else merged


def _conflict_error(position: Position, conflicts: list[str]) -> ValueError:
    stage, number = position
    return ValueError(
        f"backbones that differ in {' and '.join(conflicts)} of stage {stage}, block {number} "
        "cannot share a program"
    )
