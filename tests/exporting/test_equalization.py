"""Channels of equal size between layers: the same function, and smaller errors in int8."""

import jax
import numpy as np
import pytest
from jax import lax

from tinyjax.exporting import (
    activations,
    equalization,
    flatbuffer,
    litert,
)
from tinyjax.exporting.functions import ExportedFunction
from tinyjax.exporting.output_error import output_error, run_file

RNG = np.random.default_rng(0)
SIZES = np.array([100, 1, 10, 0.1, 50, 1, 5, 0.01], np.float32)  # of the channels
FIRST = RNG.normal(size=(1, 1, 1, 8)).astype(np.float32) * SIZES
DEPTHWISE = RNG.normal(size=(3, 3, 1, 8)).astype(np.float32)
LAST = RNG.normal(size=(1, 1, 8, 4)).astype(np.float32) / SIZES[:, None]
INPUTS = [RNG.integers(0, 256, (1, 8, 8, 1)).astype(np.float32) for _ in range(4)]


def conv(x, kernel, groups=1):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=dimensions, feature_group_count=groups
    )


def make_file(activation):
    def call(x):
        x = conv(x / 255, FIRST) + SIZES / 10
        x = activation(conv(x, DEPTHWISE, 8) + SIZES)
        return {"y": conv(x, LAST) + 1}

    return litert.convert(ExportedFunction(call, (8, 8, 1), "float32", {}))


@pytest.mark.parametrize(
    ("activation", "count"), [(lambda x: x, 2), (jax.nn.relu, 2), (jax.nn.hard_swish, 1)]
)
def test_the_outputs_are_the_same(activation, count):
    file = make_file(activation)
    links = equalization.find_links(flatbuffer.read(file))
    assert len(links) == count
    equalized = equalization.equalize(file, INPUTS)
    expected, actual = (run_file(each, INPUTS) for each in (file, equalized))
    for x, y in zip(expected, actual, strict=True):
        np.testing.assert_allclose(x["y"], y["y"], rtol=1e-4, atol=1e-4)

    def spread(file):
        """Largest / smallest channel of the first convolution."""
        index = flatbuffer.read(file).subgraphs[0].operators[links[0].first].outputs[0]
        (sizes,) = activations.channel_values(file, [index], INPUTS, equalization.largest_size)
        return sizes.max() / sizes.min()

    # A channel is multiplied by at most MAX_SCALE.
    assert spread(file) > 1000
    assert spread(equalized) < spread(file) / 50


def test_int8_of_channels_of_different_size():
    file = make_file(jax.nn.relu)
    expected = run_file(file, INPUTS)

    def error(file):
        integers = litert.quantize(file, "int8", activations.measure(file, INPUTS))
        return output_error(expected, run_file(integers, INPUTS))

    assert error(equalization.equalize(file, INPUTS)) < error(file) / 5


def test_a_layer_that_two_others_read_is_left_alone():
    def call(x):
        x = conv(x, FIRST)
        return {"y": conv(conv(x, DEPTHWISE, 8), LAST), "z": conv(x, LAST)}

    file = litert.convert(ExportedFunction(call, (8, 8, 1), "float32", {}))
    model = flatbuffer.read(file)
    names = flatbuffer.operator_names(model)
    linked = [(names[link.first], names[link.second]) for link in equalization.find_links(model)]
    assert (linked, len(names)) == ([("DEPTHWISE_CONV_2D", "CONV_2D")], 4)


def test_layers_that_share_a_kernel_keep_it():
    """Two levels with one head: each has scales of its own."""

    def call(x):
        kernel = np.ones((1, 1, 8, 8), np.float32)
        levels = {"a": conv(x, FIRST), "b": conv(x + 3, FIRST)}
        return {k: conv(conv(v, kernel), LAST) for k, v in levels.items()}

    file = litert.convert(ExportedFunction(call, (8, 8, 1), "float32", {}))
    equalized = equalization.equalize(file, INPUTS)
    expected, actual = (run_file(each, INPUTS) for each in (file, equalized))
    for x, y in zip(expected, actual, strict=True):
        for name in x:
            np.testing.assert_allclose(x[name], y[name], rtol=1e-4, atol=1e-3)
