"""NAS-FPN (arXiv 1904.07392): the searched feature pyramid with seven cells, repeated.

The graph is that of the reference implementation (tensorflow/tpu, `nasfpn.py`), for any five
consecutive levels instead of P3-P7.
"""

from typing import NamedTuple

import flax.linen as nn
from jax import Array

from tinyjax.detectors.necks import (
    NUM_LEVELS,
    Conv,
    SeparableConvBN,
    fused_strides,
    project_features,
    upsample,
)
from tinyjax.models.layers import BatchNorm
from tinyjax.ops.pooling import max_pool_2x2, spatial_max


class CellSpec(NamedTuple):
    """A node that fuses two earlier nodes. Nodes 0-4 are the inputs, from the finest level on."""

    level: int  # of the cell; 0 is the finest
    inputs: tuple[int, int]  # of a gated cell, the first one is the gate's
    gated: bool
    is_output: bool
    # Further summands: earlier nodes of the level that no cell reads. Output cells add them, so
    # that no input is lost.
    dead_ends: tuple[int, ...] = ()


CELLS = {  # node -> cell
    5: CellSpec(1, (3, 1), gated=True, is_output=False),
    6: CellSpec(1, (1, 5), gated=False, is_output=False),
    7: CellSpec(0, (0, 6), gated=False, is_output=True),
    8: CellSpec(1, (6, 7), gated=False, is_output=True),
    9: CellSpec(2, (8, 7), gated=True, is_output=True, dead_ends=(2,)),
    10: CellSpec(4, (9, 6), gated=True, is_output=True, dead_ends=(4,)),
    11: CellSpec(3, (10, 9), gated=True, is_output=True),
}
NODE_LEVELS = {**{i: i for i in range(NUM_LEVELS)}, **{i: cell.level for i, cell in CELLS.items()}}


def required_nodes(levels: set[int], repeats: int) -> list[set[int]]:
    """For each repeat, the nodes that the outputs `levels` of the last repeat depend on."""
    plan: list[set[int]] = []
    for _ in range(repeats):
        nodes = {i for i, cell in CELLS.items() if cell.is_output and cell.level in levels}
        for i in sorted(CELLS, reverse=True):
            if i in nodes:
                nodes |= {*CELLS[i].inputs, *CELLS[i].dead_ends}
        plan.insert(0, nodes)
        levels = nodes - CELLS.keys()
    return plan


class NASFPN(nn.Module):
    """Backbone features {stride: [B, h, w, c]} -> {stride: [B, h, w, width]} for `strides`.

    It fuses five levels, from the finest of `strides` on. Nodes that the levels in `strides` do not
    depend on are left out: with one repeat, the two finest levels do not depend on the third and
    the fifth input. Laterals are 1 x 1 convolutions with BatchNorm; levels coarser than all
    features are max-pooled.

    repeats: number of times that the seven cells are stacked, 7 in the paper.
    separable: see `Cell`.
    """

    preserves_zeros = True

    width: int
    strides: tuple[int, ...]
    repeats: int = 1
    separable: bool = True

    @nn.compact
    def __call__(self, features: dict[int, Array], train: bool) -> dict[int, Array]:
        strides = fused_strides(self.strides)
        plan = required_nodes({strides.index(s) for s in self.strides}, self.repeats)
        inputs = sorted(plan[0] - CELLS.keys())
        pyramid = project_features(
            features, [strides[i] for i in inputs], self.width, max_pool_2x2, train
        )
        levels = {i: pyramid[strides[i]] for i in inputs}
        for n, required in enumerate(plan, 1):
            nodes = dict(levels)
            for i, spec in CELLS.items():
                if i in required:
                    cell = Cell(self.width, self.separable, name=f"repeat{n}_cell{i}")
                    nodes[i] = cell(fuse(spec, nodes), train)
            levels = {CELLS[i].level: nodes[i] for i in nodes if i in CELLS and CELLS[i].is_output}
        return {s: levels[strides.index(s)] for s in self.strides}


class Cell(nn.Module):
    """ReLU, 3 x 3 convolution, BatchNorm: [B, H, W, C] -> [B, H, W, width].

    separable: a separable convolution; if false, a dense one with bias, as in the paper.
    """

    preserves_zeros = True

    width: int
    separable: bool

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = nn.relu(x)
        if self.separable:
            return SeparableConvBN(self.width, name="conv")(x, train)
        x = Conv(self.width, 3, name="conv")(x, train)
        return BatchNorm(name="bn")(x, train)


def fuse(spec: CellSpec, nodes: dict[int, Array]) -> Array:
    """Resample a cell's inputs to its level, and fuse them to a map [B, H, W, C].

    A gated cell computes a + b * sigmoid(maximum of a over the map), per channel, with a from the
    coarser node.
    """
    shape = tuple(-(-side // 2**spec.level) for side in nodes[0].shape[1:3])

    def resample(node: int) -> Array:
        x = nodes[node]
        if NODE_LEVELS[node] > spec.level:
            return upsample(x, shape, 2 ** (NODE_LEVELS[node] - spec.level))
        for _ in range(spec.level - NODE_LEVELS[node]):
            x = max_pool_2x2(x)
        return x

    a, b = map(resample, spec.inputs)
    if spec.gated:
        b = b * nn.sigmoid(spatial_max(a))
    return sum((nodes[i] for i in spec.dead_ends), a + b)
