"""Outputs of files against those of the functions that they contain."""

import jax
import numpy as np

TOLERANCE = 1e-4  # of an output's largest value


def random_images(shape, count, dtype="uint8"):
    return np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(dtype)


def assert_same_outputs(run, function, count):
    """Compare the outputs of a file, as a `Runner`, with those of its function."""
    images = random_images(function.input_shape, count, function.dtype)
    expected, actual = jax.jit(function.call)(images), run(images)
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].shape == value.shape, name
        np.testing.assert_allclose(
            actual[name], value, rtol=0, atol=TOLERANCE * np.abs(value).max(), err_msg=name
        )
