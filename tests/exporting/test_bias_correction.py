"""Means of channels of integer files, before and after the correction of biases."""

import jax
import numpy as np
import pytest
from jax import lax

from tinyjax.exporting import activations, bias_correction, flatbuffer, litert, runtimes
from tinyjax.exporting.functions import ExportedFunction

RNG = np.random.default_rng(0)
KERNELS = [
    RNG.normal(size=(3, 3, c, d)).astype(np.float32) / 9 for c, d in [(1, 8), (8, 8), (8, 4)]
]
INPUTS = [RNG.integers(0, 256, (1, 16, 16, 1)).astype(np.float32) for _ in range(4)]


def network(x):
    x = x / 255
    for kernel in KERNELS:
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions) + 0.1
        x = jax.nn.hard_swish(x)
    scales = jax.nn.sigmoid(x.mean((1, 2)) @ np.eye(4, dtype=np.float32) + 0.5)
    return {"y": x * scales[:, None, None]}


@pytest.fixture(scope="module")
def file():
    return litert.convert(ExportedFunction(network, (16, 16, 1), "float32", {}))


@pytest.fixture(scope="module", params=["int8", "int16"])
def integers(file, request):
    """With ranges 16 times as wide as measured: the rounding of int8 shifts means."""
    ranges = {
        name: (16 * low, 16 * high)
        for name, (low, high) in activations.measure(file, INPUTS).items()
    }
    return litert.quantize(file, request.param, ranges)


def linear_means(file):
    """The means of the outputs of convolutions and linear layers, dequantized, by name."""
    model = flatbuffer.read(file)
    interpreter = runtimes.make_interpreter(file, keep_tensors=True)
    run, sums = interpreter.get_signature_runner(runtimes.SIGNATURE), {}
    details = {row["index"]: row for row in interpreter.get_tensor_details()}
    for batch in INPUTS:
        run(image=batch.astype(details[model.subgraphs[0].inputs[0]]["dtype"]))
        for op, name in zip(
            model.subgraphs[0].operators, flatbuffer.operator_names(model), strict=True
        ):
            if name in flatbuffer.CHANNEL_AXES:
                (index,) = op.outputs
                scale, zero = details[index]["quantization"]
                values = interpreter.get_tensor(index).astype(np.float64)
                values = (values - zero) * scale if scale else values
                mean = values.reshape(-1, values.shape[-1]).mean(0) / len(INPUTS)
                sums[details[index]["name"]] = sums.get(details[index]["name"], 0) + mean
    return sums


def test_means_of_a_float_file(file):
    expected = linear_means(file)
    means = bias_correction.channel_means(file, INPUTS, {})
    assert len(means) == 4
    for name, mean in means.items():
        np.testing.assert_allclose(mean, expected[name], rtol=1e-5, atol=1e-6)


def test_a_file_of_one_operator_computes_the_same(integers):
    """Run one after the other, they give the output of the whole file."""
    model = flatbuffer.read(integers)
    graph = model.subgraphs[0]
    values = {graph.inputs[0]: INPUTS[0].astype(np.uint8)}
    for number, op in enumerate(graph.operators):
        content, inputs = flatbuffer.single_operator(model, number)
        interpreter = runtimes.make_interpreter(content)
        interpreter.allocate_tensors()
        for details, index in zip(interpreter.get_input_details(), inputs, strict=True):
            interpreter.set_tensor(details["index"], values[index])
        interpreter.invoke()
        (details,) = interpreter.get_output_details()
        values[op.outputs[0]] = interpreter.get_tensor(details["index"])
    runner = runtimes.make_interpreter(integers).get_signature_runner(runtimes.SIGNATURE)
    expected = runner(image=INPUTS[0].astype(np.uint8))["y"]
    np.testing.assert_array_equal(values[graph.outputs[0]], expected)
    assert flatbuffer.pack(model) == flatbuffer.pack(flatbuffer.read(integers))  # unchanged


def test_means_are_those_of_the_float_file(file, integers):
    expected = bias_correction.channel_means(file, INPUTS, {})
    corrected = bias_correction.correct_biases(integers, file, INPUTS)

    before, after = linear_means(integers), linear_means(corrected)
    for name, mean in expected.items():
        # A linear layer has one value per image: shifts of less than a step are rounded away.
        if not name.startswith("FULLY_CONNECTED"):
            assert np.abs(after[name] - mean).max() < np.abs(before[name] - mean).max() / 2
    operators = [flatbuffer.operator_names(flatbuffer.read(each)) for each in (integers, corrected)]
    assert operators[0] == operators[1]


def test_values_that_a_clipped_range_loses_do_not_shift_the_others(file):
    """The largest value of the second layer is three times its limit."""
    ranges = activations.measure(file, INPUTS)
    name = [tensor for tensor in ranges if tensor.startswith("CONV_2D")][1]
    low, high = ranges[name]
    clipped = {**ranges, name: (low, high / 3)}
    integers = litert.quantize(file, "int8", clipped)
    spans = bias_correction.integer_ranges(flatbuffer.read(integers))
    np.testing.assert_allclose(spans[name], clipped[name], rtol=0.02, atol=0.02)
    expected = bias_correction.channel_means(file, INPUTS, spans)[name]
    unclipped = bias_correction.channel_means(file, INPUTS, {})[name]
    assert (unclipped - expected).max() > 0.02
    actual = linear_means(bias_correction.correct_biases(integers, file, INPUTS))[name]
    np.testing.assert_allclose(actual, expected, atol=0.01)
