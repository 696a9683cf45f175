"""Raw files of two-stage detectors: RPN and box heads, and their predictions together."""

import json

import jax
import numpy as np
import pytest

import tinyjax
from tests.configs import detectors
from tests.untrained import CLASSES, write_random_detector
from tinyjax import errors, export
from tinyjax.exporting import (
    acceptance,
    litert,
    network_files,
    onnx,
    predictions,
    runtimes,
    stablehlo,
    two_stage,
)
from tinyjax.exporting.functions import file_names, make_function
from tinyjax.exporting.runtimes import FileDescription

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 1), np.uint8)


def random_network(folder, name):
    return write_random_detector(folder / "run", detectors.two_stage_config(name))


def write_onnx(function, batch):
    return runtimes.load_onnx(onnx.convert(function, batch).SerializeToString())


def write_litert(function, batch):
    return runtimes.load_litert(litert.convert(function, batch))


def write_stablehlo(function, batch):
    return stablehlo.load(stablehlo.convert(function, batch))


def test_files_and_levels_of_a_network():
    cascade = detectors.two_stage_config("cascade_rcnn")
    assert two_stage.components(cascade) == ("rpn", "head1", "head2", "head3")
    assert two_stage.level_names(cascade) == (4, 8)
    mobilenet = detectors.two_stage_config("faster_rcnn_mobilenet")
    assert two_stage.components(mobilenet) == ("rpn", "head1")
    assert two_stage.level_names(mobilenet) == (0, 1, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "write", "batch"),
    [
        ("faster_rcnn", write_onnx, None),
        ("faster_rcnn", write_litert, 1),
        ("cascade_rcnn", write_onnx, 2),
        ("cascade_rcnn", write_stablehlo, None),
        ("faster_rcnn_mobilenet", write_onnx, None),
    ],
)
def test_predictions_are_those_of_the_run(name, write, batch, tmp_path):
    model = tinyjax.load(random_network(tmp_path, name))
    files = {}
    for component in file_names(model, "raw"):
        function = make_function(model, name=component)
        rows = batch and batch * function.rows_per_image
        files[component] = write(function, rows), FileDescription(function.metadata, rows)
    assert files["head1"][1].metadata["input"]["rows_per_image"] == 16
    predict, variables = predictions.make_functions(files, model.config)[""]
    actual = jax.device_get(predict(variables, {"image": IMAGES}))
    predict, variables = model.predict_functions[""]
    expected = jax.device_get(predict(variables, {"image": IMAGES}))
    assert (expected["scores"] > 0.05).sum() > 10
    np.testing.assert_allclose(actual["scores"], expected["scores"], atol=1e-5)
    np.testing.assert_allclose(actual["boxes"], expected["boxes"], atol=1e-3)
    np.testing.assert_array_equal(actual["labels"], expected["labels"])


@pytest.mark.slow
def test_the_command_writes_files_that_belong_together(tmp_path):
    run, file = random_network(tmp_path, "faster_rcnn"), tmp_path / "mine.onnx"
    command = ["--workdir", str(run), "--format", "onnx", "--output", str(file)]
    assert export.main([*command, "--images", "1"]) == 0
    rpn, head = (tmp_path / f"mine-{name}.onnx" for name in ("rpn", "head1"))
    record = json.loads((tmp_path / "mine-head1.onnx.json").read_text())
    assert record["parity"]["images"] == {"random": 16, "val": 16}
    assert record["metadata"]["component"] == "head1"
    assert record["score"]["file"] == pytest.approx(record["score"]["run"], abs=1e-3)
    expected = tinyjax.load(run)(IMAGES[0], 0.05)
    assert len(expected) > 3
    for path in (file, rpn, head):
        loaded = tinyjax.load(path)
        assert loaded.classes == CLASSES
        np.testing.assert_allclose(loaded(IMAGES[0], 0.05).scores, expected.scores, atol=1e-5)

    with pytest.raises(errors.UserError, match=r"roi\.size=5: part of what"):
        tinyjax.load(file, overrides=["roi.size=5"])
    rpn.rename(tmp_path / "other-rpn.onnx")
    with pytest.raises(errors.UserError, match=r"mine-rpn.onnx: no such file"):
        tinyjax.load(head)


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["int8", "int16"])
def test_integer_files_read_features(scheme, tmp_path):
    """Weights are int8 in both, so that outputs differ by some percent of the largest one."""
    run, file = random_network(tmp_path, "cascade_rcnn"), tmp_path / "mine.tflite"
    command = ["--workdir", str(run), "--format", "litert", "--output", str(file), "--force"]
    assert export.main([*command, "--images", "1", "--calibration", "8", "--quantize", scheme]) == 0
    model = tinyjax.load(run)
    image = acceptance.load_monitor(model).inputs["image"][:1]
    for name in ("head1", "head2", "head3"):
        path = tmp_path / f"mine-{name}.tflite"
        (details,) = runtimes.make_interpreter(path.read_bytes()).get_input_details()
        assert details["dtype"] == np.dtype(scheme)
        assert details["quantization"][0] > 0
        description = runtimes.describe_litert(path)
        assert description.metadata["input"]["dtype"] == scheme
        record = json.loads(network_files.record_path(path).read_text())
        assert record["quantization"]["calibration"] == 8 * description.batch
        function = make_function(model, name=name)
        rois = np.asarray(function.make_input(image))
        expected, actual = jax.jit(function.call)(rois), runtimes.load_litert(path)(rois)
        for output, values in expected.items():
            atol = 0.1 * np.abs(values).max()
            np.testing.assert_allclose(actual[output], values, atol=atol)
    assert len(tinyjax.load(file)(IMAGES[0], 0.05)) > 3
