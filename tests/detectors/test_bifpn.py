"""BiFPN against its graph, written out in NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.detectors.pyramids import (
    NumpyLayers,
    enlarge,
    outputs,
    random_features,
    random_variables,
    window_max,
)
from tinyjax import models
from tinyjax.detectors.bifpn import BiFPN, Fusion

SIZE, CHANNELS = (44, 24), (2, 3, 4, 5)  # levels 11x6, 6x3, 3x2, 2x1, and 1x1
STRIDES = (4, 8, 16, 32, 64)


class Oracle(NumpyLayers):
    def fusion(self, path, *inputs):
        weights = np.maximum(self.params[f"{path}/weights"], 0)
        assert len(weights) == len(inputs)
        x = sum(w * x for w, x in zip(weights, inputs, strict=True)) / (weights.sum() + 1e-4)
        return self.separable(x / (1 + np.exp(-x)), f"{path}/conv")

    def repeat(self, inputs, n):
        """EfficientDet's nodes, with P3 to P7 for the five levels."""
        p3, p4, p5, p6, p7 = inputs

        def up(stride, *inputs):
            return self.fusion(f"repeat{n}_up{stride}", *inputs)

        def down(stride, *inputs):
            return self.fusion(f"repeat{n}_down{stride}", *inputs)

        def pool(x):
            return window_max(x, 3, 2, before=1)

        t6 = up(32, p6, enlarge(p7, 2, p6))
        t5 = up(16, p5, enlarge(t6, 2, p5))
        t4 = up(8, p4, enlarge(t5, 2, p4))
        o3 = up(4, p3, enlarge(t4, 2, p3))
        o4 = down(8, p4, t4, pool(o3))
        o5 = down(16, p5, t5, pool(o4))
        o6 = down(32, p6, t6, pool(o5))
        return o3, o4, o5, o6, down(64, p7, pool(o6))


@pytest.mark.parametrize("repeats", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_outputs_are_those_of_the_graph(repeats):
    features = random_features(SIZE, CHANNELS, batch=2)
    neck = BiFPN(3, STRIDES, repeats)
    params, stats = random_variables(neck, features)
    oracle = Oracle(params, stats)
    laterals = oracle.laterals(features)
    expected = (*laterals, window_max(laterals[-1], 3, 2, before=1))
    for n in range(1, repeats + 1):
        expected = oracle.repeat(expected, n)
    levels = outputs(neck, params, stats, features)
    assert tuple(levels) == STRIDES
    for level, y in zip(levels.values(), expected, strict=True):
        np.testing.assert_allclose(level, y, rtol=0, atol=1e-10)


def test_fusion_weights():
    """Weights 1, -1, 3 of constant maps 1, 2, 4: (1 + 3 * 4) / (4 + 1e-4) = 3.249919."""
    neck = Fusion(1)
    params = {
        "weights": jnp.array([1.0, -1.0, 3.0]),
        "conv/depthwise/kernel": jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0),
        "conv/pointwise/kernel": jnp.ones((1, 1, 1, 1)),
        "conv/pointwise/bn/scale": jnp.full(1, np.sqrt(1 + 1e-5)),
        "conv/pointwise/bn/bias": jnp.zeros(1),
    }
    stats = {f"conv/pointwise/bn/{name}": jnp.full(1, x) for name, x in (("mean", 0.0), ("var", 1))}
    inputs = [jnp.full((1, 2, 2, 1), value) for value in (1.0, 2.0, 4.0)]
    y, _ = models.apply(neck, params, stats, inputs, train=False)
    mean = 3.249919
    np.testing.assert_allclose(y, np.full((1, 2, 2, 1), mean / (1 + np.exp(-mean))), rtol=1e-6)
    params["weights"] = -params["weights"].at[1].set(0.0)  # all weights are 0 after the ReLU
    y, _ = models.apply(neck, params, stats, inputs, train=False)
    np.testing.assert_array_equal(y, jnp.zeros((1, 2, 2, 1)))
