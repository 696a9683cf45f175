"""FPN against torchvision's `FeaturePyramidNetwork`."""

import numpy as np
import pytest

from tests.detectors.make_fpn_references import FILE, SHAPES, WIDTH, features
from tests.detectors.pyramids import outputs, variable_shapes
from tests.models.make_references import draw
from tinyjax.detectors.fpn import FPN


def torch_name(path):
    """lateral8/kernel -> inner_blocks.1.0.weight"""
    layer, _, parameter = path.partition("/")
    name, stride = layer.rstrip("0123456789"), int(layer.lstrip("abcdefghijklmnopqrstuvwxyz"))
    if name == "extra":
        block = {32: "extra_blocks.p6", 64: "extra_blocks.p7"}[stride]
    else:
        block = {"lateral": "inner_blocks", "output": "layer_blocks"}[name]
        block = f"{block}.{[*SHAPES].index(stride)}.0"
    return f"{block}.{'weight' if parameter == 'kernel' else 'bias'}"


def torch_weights(neck):
    params, _ = variable_shapes(neck, SHAPES)
    kernels = {p: shape for p, shape in params.items() if p.endswith("kernel")}
    biases = {p: draw(torch_name(p), shape) for p, shape in params.items() if p not in kernels}
    transposed = {
        path: draw(torch_name(path), (shape[3], shape[2], *shape[:2])).transpose(2, 3, 1, 0)
        for path, shape in kernels.items()
    }
    return {**biases, **transposed}


@pytest.mark.parametrize(
    ("extra_levels", "strides"),
    [("pool", (4, 8, 16, 32)), ("p5", (4, 8, 16, 32, 64)), ("c5", (4, 8, 16, 32, 64))],
)
def test_outputs_are_those_of_torchvision(extra_levels, strides):
    neck = FPN(WIDTH, strides, separable=False, extra_levels=extra_levels)
    levels = outputs(neck, torch_weights(neck), {}, features())
    with np.load(FILE) as reference:
        assert {f"{extra_levels}/{s}" for s in levels} == {
            name for name in reference if name.startswith(extra_levels)
        }
        for stride, level in levels.items():
            expected = reference[f"{extra_levels}/{stride}"]
            np.testing.assert_allclose(level, expected, rtol=0, atol=1e-12)


def test_levels_that_the_head_does_not_read_have_no_output_convolution():
    params, _ = variable_shapes(FPN(WIDTH, (8,)), SHAPES)
    assert {path.split("/")[0] for path in params} == {"lateral8", "lateral16", "output8"}
