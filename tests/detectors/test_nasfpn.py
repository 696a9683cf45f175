"""NAS-FPN against its graph, written out in NumPy."""

import numpy as np
import pytest

from tests.detectors.pyramids import (
    NumpyLayers,
    conv,
    enlarge,
    outputs,
    random_features,
    random_variables,
    variable_shapes,
    window_max,
)
from tinyjax.detectors.nasfpn import CELLS, NASFPN, required_nodes

SIZE, CHANNELS = (44, 24), (2, 3, 4, 5)  # levels 11x6, 6x3, 3x2, 2x1, and 1x1
STRIDES = (4, 8, 16, 32, 64)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


class Oracle(NumpyLayers):
    def cell(self, x, path):
        x = np.maximum(x, 0)
        if f"{path}/conv/kernel" not in self.params:
            return self.separable(x, f"{path}/conv")
        y = conv(x, self.params[f"{path}/conv/kernel"], self.params[f"{path}/conv/bias"])
        return self.batch_norm(y, f"{path}/bn")

    def repeat(self, inputs, n, dead_ends=True):
        """tensorflow/tpu's list of nodes, with P3 to P7 for the five levels."""
        p3, p4, p5, p6, p7 = inputs

        def gate(a, b):
            return a + b * sigmoid(a.max((1, 2), keepdims=True))

        def cell(i, x):
            return self.cell(x, f"repeat{n}_cell{i}")

        def down(x, factor):
            return window_max(x, factor, factor)

        c5 = cell(5, gate(enlarge(p6, 4, p4), p4))
        c6 = cell(6, p4 + c5)
        c7 = cell(7, p3 + enlarge(c6, 2, p3))
        c8 = cell(8, c6 + down(c7, 2))
        c9 = cell(9, gate(down(c8, 2), down(c7, 4)) + dead_ends * p5)
        c10 = cell(10, gate(down(c9, 4), down(c6, 8)) + dead_ends * p7)
        c11 = cell(11, gate(enlarge(c10, 2, p6), down(c9, 2)))
        return c7, c8, c9, c11, c10

    def outputs(self, features, repeats, **options):
        laterals = self.laterals(features)
        levels = (*laterals, window_max(laterals[-1], 2, 2))
        for n in range(1, repeats + 1):
            levels = self.repeat(levels, n, **options)
        return dict(zip(STRIDES, levels, strict=True))


@pytest.mark.parametrize(
    ("separable", "repeats"), [(True, 1), pytest.param(False, 2, marks=pytest.mark.slow)]
)
def test_outputs_are_those_of_the_graph(separable, repeats):
    features = random_features(SIZE, CHANNELS, batch=2)
    neck = NASFPN(3, STRIDES, repeats, separable)
    params, stats = random_variables(neck, features)
    oracle = Oracle(params, stats)
    expected = oracle.outputs(features, repeats)
    levels = outputs(neck, params, stats, features)
    assert {*levels} == {*expected}
    for stride, level in levels.items():
        np.testing.assert_allclose(level, expected[stride], rtol=0, atol=1e-10)

    # Without the rule of dead ends, the inputs P5 and P7 would have no influence.
    without = oracle.outputs(features, repeats, dead_ends=False)
    for stride in (16, 32, 64):
        assert np.abs(levels[stride] - without[stride]).max() > 1e-3


def test_dead_ends_are_the_inputs_that_no_cell_reads():
    consumers = {i: [j for j, cell in CELLS.items() if i in cell.inputs] for i in range(5)}
    assert [i for i in consumers if not consumers[i]] == [2, 4]
    assert {i: cell.dead_ends for i, cell in CELLS.items() if cell.dead_ends} == {9: (2,), 10: (4,)}
    for cell in CELLS.values():
        assert all(i == cell.level for i in cell.dead_ends)  # input i has level i


@pytest.mark.slow
@pytest.mark.parametrize("strides", [(4, 8), (8, 16, 32)])
def test_levels_do_not_depend_on_nodes_that_are_left_out(strides):
    features = random_features(SIZE, CHANNELS)
    features = {stride: x for stride, x in features.items() if stride >= strides[0]}
    fused = tuple(strides[0] * 2**i for i in range(5))
    complete, neck = NASFPN(3, fused, repeats=2), NASFPN(3, strides, repeats=2)
    params, stats = random_variables(complete, features)
    shapes = variable_shapes(neck, {stride: x.shape for stride, x in features.items()})
    assert shapes[0].keys() < params.keys()
    subset = [
        {path: tree[path] for path in paths}
        for tree, paths in zip((params, stats), shapes, strict=True)
    ]
    expected = outputs(complete, params, stats, features)
    levels = outputs(neck, *subset, features)
    assert tuple(levels) == strides
    for stride, level in levels.items():
        np.testing.assert_allclose(level, expected[stride], rtol=0, atol=1e-12)


def test_required_nodes():
    every_node = {*range(12)}
    assert required_nodes({0, 1, 2, 3, 4}, 1) == [every_node]
    assert required_nodes({0, 1}, 1) == [{0, 1, 3, 5, 6, 7, 8}]
    assert required_nodes({0}, 2) == [every_node, {0, 1, 3, 5, 6, 7}]


def test_a_level_that_no_required_node_reads_has_no_lateral():
    shapes = {stride: x.shape for stride, x in random_features(SIZE, CHANNELS).items()}
    params, _ = variable_shapes(NASFPN(3, (4, 8)), shapes)
    laterals = {path.split("/")[0] for path in params if path.startswith("lateral")}
    assert laterals == {"lateral4", "lateral8", "lateral32"}


def test_strides_outside_of_the_five_fused_levels_are_an_error():
    with pytest.raises(ValueError, match=r"strides \[128\] are not among the fused strides"):
        variable_shapes(NASFPN(3, (4, 128)), {4: (1, 4, 4, 2)})
