"""Memory and arithmetic of LiteRT files, counted by hand."""

import numpy as np
from jax import lax

from tinyjax.exporting import litert, resources
from tinyjax.exporting.functions import ExportedFunction


def test_estimate_of_two_convolutions():
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(3, 3, 2, 8)).astype(np.float32)
    depthwise = rng.normal(size=(3, 3, 1, 8)).astype(np.float32)

    def call(image):
        dimensions = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "padding": "VALID"}
        x = lax.conv_general_dilated(image, dense, (1, 1), **dimensions)
        x = lax.conv_general_dilated(x, depthwise, (1, 1), feature_group_count=8, **dimensions)
        return {"y": x.reshape(len(x), -1) @ np.ones((4 * 8, 5), np.float32)}

    file = litert.convert(ExportedFunction(call, (6, 6, 2), "float32", {}))
    estimate = resources.estimate(file)
    assert estimate["multiply_adds"] == 4 * 4 * 8 * 18 + 2 * 2 * 8 * 9 + 32 * 5
    weights = 4 * (dense.size + depthwise.size + 32 * 5)
    assert weights <= estimate["weight_bytes"] <= weights + 4 * (8 + 8 + 5) + 64  # biases, shapes
    assert estimate["arena_bytes"] == 4 * (6 * 6 * 2 + 4 * 4 * 8)  # the first convolution
