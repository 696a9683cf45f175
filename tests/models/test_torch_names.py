"""Layouts of weights in other libraries."""

import numpy as np
import pytest

from tinyjax.models.torch_names import from_flattened_layout


def test_flattened_layout_by_hand():
    # Two channels of 1 x 2 pixels: torch's columns are (channel 0: left, right), (channel 1: ..).
    weight = np.array([[1, 2, 3, 4], [5, 6, 7, 8]])
    kernel = from_flattened_layout(weight, 1, 2)
    assert kernel.shape == (1, 2, 2, 2)  # height, width, channels, out
    assert kernel[0, 0, :, 0].tolist() == [1, 3]
    assert kernel[0, 1, :, 0].tolist() == [2, 4]
    assert kernel[0, 1, :, 1].tolist() == [6, 8]


@pytest.mark.parametrize(
    ("out", "channels", "height", "width"),
    [
        (6, 5, 8, 8),  # as the layer fc of LightCNN, 512 x (128 8 8)
        (4, 3, 7, 7),  # as the layer fc6 of Faster R-CNN, 1024 x (256 7 7)
        (3, 4, 2, 5),
    ],
)
def test_linear_layer_of_a_flattened_map(out, channels, height, width):
    """torch: x.flatten(1) @ weight.T for x [B, C, H, W]; here: a sum over a map [B, H, W, C]."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((out, channels * height * width))
    x = random.standard_normal((2, channels, height, width))
    expected = x.reshape(2, -1) @ weight.T
    kernel = from_flattened_layout(weight, height, width)
    assert kernel.shape == (height, width, channels, out)
    actual = np.tensordot(x.transpose(0, 2, 3, 1), kernel, 3)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)
