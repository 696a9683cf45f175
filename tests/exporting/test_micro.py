"""LiteRT files in TensorFlow Lite Micro: their outputs, and the memory that it needs."""

from importlib.util import find_spec

import numpy as np
import pytest
from jax import lax, nn

from tests.exporting.comparison import random_images
from tests.exporting.networks import load_classifier, load_detector
from tinyjax.exporting import activations, litert, micro, resources, runtimes
from tinyjax.exporting.functions import ExportedFunction, make_function

needs_micro = pytest.mark.skipif(
    find_spec(micro.PACKAGE) is None, reason="no tflite-micro: pip install 'tinyjax[edge]'"
)


def make_int8(function, count=4):
    """An int8 file with ranges of random images, and the file that it was made from."""
    file = litert.convert(function)
    images = [random_images(function.input_shape, 1, "float32") for _ in range(count)]
    return file, litert.quantize(file, "int8", activations.measure(file, images))


def assert_similar_outputs(int8, shape):
    """Its kernels round differently than those of LiteRT."""
    images = random_images(shape, 1)
    expected, actual = runtimes.load_litert(int8)(images), micro.load(int8)(images)
    assert expected.keys() == actual.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(actual[name], values, atol=0.05 * np.abs(values).max() + 1e-6)


def test_nothing_is_estimated_without_the_package(monkeypatch):
    monkeypatch.setattr(micro, "find_spec", lambda name: None)
    assert micro.estimate(b"") == {}


@needs_micro
@pytest.mark.slow
def test_outputs_and_memory():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 1, 8)).astype(np.float32)

    def call(x):
        dimensions = ("NHWC", "HWIO", "NHWC")
        y = lax.conv_general_dilated(x / 255, kernel, (2, 2), "SAME", dimension_numbers=dimensions)
        return {"y": nn.hard_swish(y), "mean": y.mean((1, 2))}

    file, int8 = make_int8(ExportedFunction(call, (32, 24, 1), "float32", {}))
    assert_similar_outputs(int8, (32, 24, 1))
    images = random_images((32, 24, 1), 1, "float32")
    np.testing.assert_allclose(micro.load(file)(images)["y"], call(images)["y"], atol=1e-5)
    row = micro.estimate(int8)[micro.KEY]
    activations = resources.estimate(int8)["arena_bytes"]
    assert activations < row["arena_bytes"] < activations + 20_000


@needs_micro
@pytest.mark.slow
def test_a_file_that_it_cannot_run_has_no_estimates():
    """A file of int16 makes its integers of gray values by CAST, for which it has no kernel."""
    file, int8 = make_int8(ExportedFunction(lambda x: {"y": x * 2}, (4, 4, 1), "float32", {}))
    int16 = litert.quantize(file, "int16", {"image": (0, 255), "y": (0, 510)})
    assert micro.estimate(int16) == {} != micro.estimate(int8)
    assert micro.estimate(b"no file") == {}


@needs_micro
@pytest.mark.slow
@pytest.mark.parametrize("name", ["point", "retinanet"])
def test_detectors(name, tmp_path):
    network = load_detector(name, tmp_path / "run")
    _, int8 = make_int8(make_function(network, dtype="float32"))
    assert_similar_outputs(int8, network.input_shape)


@needs_micro
@pytest.mark.slow
@pytest.mark.parametrize("family", ["efficientnet", "mobilenetv3", "resnet", "shufflenetv2"])
def test_families(family, tmp_path):
    network = load_classifier(family, tmp_path / "run")
    _, int8 = make_int8(make_function(network, dtype="float32"))
    assert_similar_outputs(int8, network.input_shape)
