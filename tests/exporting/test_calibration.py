"""Ranges of integer files: measured, raised and clipped; and the files that they make."""

from collections import Counter

import jax
import numpy as np
import pytest
from jax import lax

import tinyjax
from tests.configs import detector
from tests.untrained import CLASSES, write_initial_weights
from tinyjax import config as configs
from tinyjax.errors import UserError
from tinyjax.exporting import (
    activations,
    calibration,
    clipping,
    flatbuffer,
    litert,
    runtimes,
)
from tinyjax.exporting.functions import ExportedFunction, make_function
from tinyjax.exporting.output_error import output_error, run_file
from tinyjax.exporting.ranges import raise_floors

KERNEL = np.random.default_rng(0).normal(size=(1, 1, 1, 4)).astype(np.float32) / 100


def conv(x, kernel):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=dimensions)


def convert(call, shape=(4, 4, 1)):
    return litert.convert(ExportedFunction(lambda x: {"y": call(x)}, shape, "float32", {}))


def batches(count=4, shape=(1, 4, 4, 1)):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, shape).astype(np.float32) for _ in range(count)]


def test_ranges_are_those_of_all_images():
    file = convert(lambda x: conv(x, KERNEL))
    _, span = activations.measure(file, batches()).values()
    values = np.concatenate([np.asarray(conv(x, KERNEL)) for x in batches()])
    np.testing.assert_allclose(span, (values.min(), values.max()), rtol=1e-5)


@pytest.mark.parametrize(
    ("activation", "floor"),
    [(jax.nn.hard_swish, -3), (jax.nn.silu, -8), (jax.nn.relu, -50)],
)
def test_floor_of_what_enters_an_activation(activation, floor):
    file = convert(lambda x: activation(conv(x, KERNEL)) * 2)
    ranges = dict.fromkeys(activations.measure(file, batches(1)), (-50.0, 60.0))
    changed = raise_floors(file, ranges)
    # A RELU is part of the convolution.
    assert {k: v for k, v in changed.items() if v != ranges[k]} == (
        {} if floor == -50 else {"DEPTHWISE_CONV_2D_0": (floor, 60)}
    )


def test_no_floor_for_a_tensor_that_others_read():
    file = convert(lambda x: jax.nn.hard_swish(y := conv(x, KERNEL)) + y)
    ranges = dict.fromkeys(activations.measure(file, batches(1)), (-50.0, 60.0))
    assert raise_floors(file, ranges) == ranges


def test_floor_of_the_logits_of_a_detector():
    """Their decoder takes the sigmoid; other outputs keep their range."""

    def call(x):
        y = conv(x, KERNEL)
        return {"logits_8": y * 2, "deltas_8": y * 3}

    file = litert.convert(ExportedFunction(call, (4, 4, 1), "float32", {}))
    ranges = dict.fromkeys(activations.measure(file, batches(1)), (-50.0, 60.0))
    assert {"logits_8", "deltas_8"} <= ranges.keys()
    assert raise_floors(file, ranges) == ranges | {"logits_8": (-8.0, 60.0)}


def test_other_biases_must_reduce_the_error_of_each_output():
    image, kernel = batches(4), np.ones((1, 1, 1, 4), np.float32)

    def make(*shifts):
        def call(x):
            y = conv(x, kernel)
            return {f"y{i}": y + shift for i, shift in enumerate(shifts)}

        return litert.convert(ExportedFunction(call, (4, 4, 1), "float32", {}))

    file, shifted = make(0, 0), make(9, 9)
    assert calibration.reduces_errors(file, shifted, make(1, 1), image)
    assert not calibration.reduces_errors(file, shifted, make(1, 9), image)
    assert not calibration.reduces_errors(file, shifted, make(1, 8.5), image)


def test_the_range_of_an_outlier_is_clipped():
    """One of 256 values is 100 times as large as the others, and hardly matters for the mean."""
    image = batches(1, (1, 16, 16, 1))
    image[0][0, 0, 0] = 25500
    kernel = np.ones((1, 1, 1, 4), np.float32)

    def call(x):
        y = conv(x, kernel)
        return jax.numpy.minimum(y, 200) * 2

    file = convert(call, (16, 16, 1))
    ranges = activations.measure(file, image)
    errors = clipping.tensor_errors(file, ranges, image)
    assert (errors[0].tensor, errors[0].range) == ("DEPTHWISE_CONV_2D_0", (0, 25500))
    assert errors[0].error > 10 * errors[1].error
    expected = run_file(file, image)

    def quantize(candidate):  # of this tensor alone
        return clipping.with_integers(flatbuffer.read(file), 0, candidate["DEPTHWISE_CONV_2D_0"])

    clipped = clipping.clip(file, ranges, errors[:1], image, quantize)
    assert clipped["DEPTHWISE_CONV_2D_0"] == (0, 25500 * min(clipping.CLIPS))
    before, after = (
        output_error(expected, run_file(quantize(r), image)) for r in (ranges, clipped)
    )
    assert after < before / 2


def test_errors_are_those_of_float_tensors():
    """A comparison has no range: its result is true or false."""
    file = convert(lambda x: jax.numpy.where(x > 100, x * 2, x - 3))
    assert "GREATER" in flatbuffer.operator_names(flatbuffer.read(file))
    ranges = activations.measure(file, batches(1))
    errors = clipping.tensor_errors(file, ranges, batches(1))
    assert len(errors) == 3
    assert all(0 < row.error < 0.1 for row in errors)


@pytest.mark.parametrize("activation", [jax.nn.hard_swish, jax.nn.silu])
def test_an_activation_is_clipped_with_its_input(activation):
    """An output has the large values of the input: a clip of one of them alone cannot help."""
    file = convert(lambda x: activation(conv(x, np.ones((1, 1, 1, 4), np.float32))) * 2)
    pair, _ = clipping.activation_pairs(flatbuffer.read(file)).values()
    assert pair[0] == "DEPTHWISE_CONV_2D_0"
    assert pair[1] == ("HARD_SWISH_1" if activation == jax.nn.hard_swish else "MUL_2")
    image = batches(1)
    ranges = activations.measure(file, image)
    ranges |= {pair[0]: (-3.0, 25500.0), pair[1]: (-0.4, 25500.0)}
    errors = [clipping.TensorError(pair[1], ranges[pair[1]], 1.0)]

    def quantize(candidate):
        return litert.quantize(file, "int8", candidate)

    clipped = clipping.clip(file, ranges, errors, image, quantize)
    limit = 25500 * min(clipping.CLIPS)
    assert (clipped[pair[0]], clipped[pair[1]]) == ((-3, limit), (-0.4, limit))


def test_integer_file_reads_gray_values():
    for scheme, dtype in (("int8", np.int8), ("int16", np.int16)):
        file = convert(lambda x: conv(x, KERNEL))
        ranges = activations.measure(file, batches())
        integers = litert.quantize(file, scheme, ranges)
        runner = runtimes.make_interpreter(integers).get_signature_runner(runtimes.SIGNATURE)
        (image,), (y,) = (
            details().values() for details in (runner.get_input_details, runner.get_output_details)
        )
        assert (image["dtype"], image["quantization"]) == (np.uint8, (1.0, 0))
        assert y["dtype"] == dtype
        step = y["quantization"][0]
        for batch in batches():
            actual = runtimes.load_litert(integers)(batch)["y"]
            np.testing.assert_allclose(actual, conv(batch, KERNEL), atol=2.55 * step + 0.02)
        counts = Counter(flatbuffer.operator_names(flatbuffer.read(integers)))
        assert counts == {"QUANTIZE" if scheme == "int8" else "CAST": 1, "DEPTHWISE_CONV_2D": 1}


def test_normalization_is_the_scale_of_the_gray_values():
    """(x / 255 - 0.45) / 0.25 = 4 / 255 (x - 114.75), before a convolution with padding."""
    kernel = np.random.default_rng(0).normal(size=(3, 3, 1, 4)).astype(np.float32)

    def call(x):
        dimensions = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)

    file = convert(lambda x: call((x / 255 - 0.45) / 0.25))
    assert "SUB" in flatbuffer.operator_names(flatbuffer.read(file))
    ranges = activations.measure(file, batches())
    integers = litert.quantize(file, "int8", ranges)
    counts = Counter(flatbuffer.operator_names(flatbuffer.read(integers)))
    assert counts == {"QUANTIZE": 1, "DEPTHWISE_CONV_2D": 1}
    runner = runtimes.make_interpreter(integers).get_signature_runner(runtimes.SIGNATURE)
    (image,), (y,) = (
        details().values() for details in (runner.get_input_details, runner.get_output_details)
    )
    # The converter moves the factor 4 into the kernel.
    assert image["quantization"] == (pytest.approx(1 / 255), 115)
    for batch in batches():
        expected = np.asarray(call((batch - 115) * (4 / 255)))
        actual = runtimes.load_litert(integers)(batch)["y"]
        np.testing.assert_allclose(actual, expected, atol=2.5 * y["quantization"][0])


@pytest.mark.parametrize("scheme", ["int8", "int16"])
def test_bias_of_a_dead_channel(scheme):
    """Of weights 0 or 1e-7, in whose scale a bias of 3 or 5 needs more than 32 bits."""
    kernel = np.array([0, 1e-2, 1e-7, 1e-4], np.float32).reshape(1, 1, 1, 4)
    bias = np.array([5, 0, 3, 2], np.float32)
    file = convert(lambda x: conv(x - 100, kernel) + bias)
    ranges = activations.measure(file, batches())
    run = runtimes.load_litert(litert.quantize(file, scheme, ranges))
    step = 6 / 255
    for batch in batches():
        expected = np.asarray(conv(batch - 100, kernel) + bias)
        np.testing.assert_allclose(run(batch)["y"], expected, atol=2 * step)


# ---- networks


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "run"
    inputs = {"image": (64, 64, 1)}
    return tinyjax.load(write_initial_weights(folder, detector.get_config(), CLASSES, inputs))


@pytest.mark.slow
def test_training_images_are_spread_evenly(network):
    images = calibration.training_images(network, 4, batch=3)
    assert [batch.shape for batch in images] == [(3, 64, 64, 1)] * 2
    # Of 10 images those at 0, 3, 6 and 9; the last one fills the batch.
    task = tinyjax.tasks.get_task("detect")
    data = network.config.data
    train = np.asarray(task.load(data, data.train).inputs["image"])
    np.testing.assert_array_equal(np.concatenate(images), train[[0, 3, 6, 9, 9, 9]])


def test_missing_training_images_are_an_error(tmp_path):
    config = configs.load("tests/configs/detector.py")
    with config.data.common.unlocked():
        config.data.common = {"source": str(tmp_path / "absent")}
    config.data.format = "coco"
    config.data.train, config.data.suites.val = {"split": "train"}, {"split": "val"}
    network = write_initial_weights(tmp_path / "run", config, CLASSES, {"image": (64, 64, 1)})
    with pytest.raises(UserError, match="absent"):
        calibration.training_images(tinyjax.load(network), 4, 1)


@pytest.mark.slow
def test_int8_file_of_a_detector(network):
    """All of its operators are integer ones, and its outputs are near those of the network."""
    function = make_function(network, dtype="float32")
    file = litert.convert(function)
    images = calibration.training_images(network, 8, 1)
    integers, record = calibration.quantize(file, "int8", images)
    counts = Counter(flatbuffer.operator_names(flatbuffer.read(integers)))
    assert counts["QUANTIZE"] == 1
    assert not {"DEQUANTIZE", "CAST"} & {*counts}
    schema = flatbuffer.import_schema()
    types = {tensor.type for tensor in flatbuffer.read(integers).subgraphs[0].tensors}
    assert schema.TensorType.FLOAT32 not in types
    expected, actual = (run_file(each, images[:2]) for each in (file, integers))
    for name, values in expected[0].items():  # of initial weights, hardly any of them differ
        np.testing.assert_allclose(actual[0][name], values, atol=0.1 * np.abs(values).max())
    rows = record["quantization"]["tensors"]
    assert [row["error"] for row in rows] == sorted((row["error"] for row in rows), reverse=True)
    assert flatbuffer.read_metadata(integers) == function.metadata
