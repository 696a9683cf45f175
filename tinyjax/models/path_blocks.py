"""The seven blocks that TOPLight (CVPR 2023, table 1) divides a network into.

Block 1 starts with the stem, block 7 is all that follows the stages; `Architecture.block_starts`
has the rest. The division of MobileNetV3-Large is the paper's. All others are our own analogues:
block 4 ends at stride 8, blocks 5 and 6 end at strides 16 and 32, in families with these strides.
In a network of little depth, a block may be empty.
"""

import math
import re
from bisect import bisect_right

from tinyjax.core import Variables
from tinyjax.models.scaling import Architecture, Position

NUM_BLOCKS = 7
INFRARED_PREFIX = "infrared/"  # prefix of the paths of the second copies


def end_of(number: int, arch: Architecture) -> Position:
    """Where block `number`, 1 to 6, ends: the position of the next block of a stage."""
    return (*arch.block_starts, (len(arch.stages) + 1, 0))[number - 1]


def is_doubled(position: Position, arch: Architecture) -> bool:
    """Whether a block of a stage exists once per modality."""
    return arch.path_blocks > 0 and position < end_of(arch.path_blocks, arch)


def stage_slices(number: int, arch: Architecture) -> list[tuple[int, int, int | None]]:
    """Return the slices (stage, first, last) of the blocks of stages in block `number`, 1 to 6.

    last: None for a slice that ends with its stage.
    """
    start = end_of(number - 1, arch) if number > 1 else (1, 0)
    stop = end_of(number, arch)
    slices = [
        (n, start[1] if n == start[0] else 0, stop[1] if n == stop[0] else None)
        for n in range(start[0], min(stop[0], len(arch.stages)) + 1)
    ]
    return [piece for piece in slices if piece[2] != 0]


def block_of(path: str, arch: Architecture) -> int:
    """Return the number, 1 to 7, of the block that contains a path of the backbone.

    path: relative to the backbone ("stem/kernel"), of either modality.
    """
    first, second, *_ = path.removeprefix(INFRARED_PREFIX).split("/")
    if first == "stem":
        return 1
    if not (stage := re.fullmatch(r"stage(\d+)", first)):
        return NUM_BLOCKS
    block = re.fullmatch(r"block(\d+)", second)
    # The layers after the blocks of a stage end it.
    position = (int(stage[1]), int(block[1]) if block else math.inf)
    return 1 + bisect_right(arch.block_starts, position)


def select_path(variables: Variables, infrared: bool) -> Variables:
    """The weights of the network with one path that computes what the path of a modality computes.

    variables: of a network whose backbone's arrays lie under "backbone/", with one or two paths.
    """
    prefix = f"backbone/{INFRARED_PREFIX}"

    def select(tree):
        shared = {path: leaf for path, leaf in tree.items() if not path.startswith(prefix)}
        copies = {
            f"backbone/{path.removeprefix(prefix)}": leaf
            for path, leaf in tree.items()
            if path.startswith(prefix)
        }
        return {**shared, **copies} if infrared else shared

    return Variables(*map(select, variables))
