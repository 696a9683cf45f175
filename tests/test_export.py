"""The command tinyjax.export from end to end, and its messages for invalid input."""

import hashlib
import json
from importlib.util import find_spec
from math import nan

import pytest

from tests.untrained import write_untrained_run
from tinyjax import errors
from tinyjax.export import main
from tinyjax.exporting import acceptance, flatbuffer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_untrained_run(tmp_path_factory.mktemp("run") / "run")


@pytest.mark.parametrize("flags", [[], pytest.param(["--nms"], marks=pytest.mark.slow)])
def test_file_and_record(run, tmp_path, flags):
    file = tmp_path / "mine.onnx"
    command = ["--workdir", str(run), "--format", "onnx", "--output", str(file), "--images", "3"]
    assert main([*command, *flags]) == 0
    record = json.loads((tmp_path / "mine.onnx.json").read_text())
    assert record["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert record["bytes"] == file.stat().st_size
    assert record["operators"]["Conv"] > 10
    assert record["parity"]["images"] == {"random": 3, "val": 3}
    assert all(row["relative"] < 1e-3 for row in record["parity"]["outputs"].values())
    assert record["metadata"]["classes"] == ["person", "vehicle", "animal"]
    assert (record["score"]["suite"], record["score"]["metric"]) == ("val", "AP50")
    assert record["score"]["file"] == pytest.approx(record["score"]["run"], abs=1e-3)


@pytest.mark.slow
def test_litert_file_and_record(run, tmp_path):
    file = tmp_path / "mine.tflite"
    command = ["--workdir", str(run), "--format", "litert", "--output", str(file), "--images", "2"]
    assert main(command) == 0
    record = json.loads((tmp_path / "mine.tflite.json").read_text())
    assert record["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert record["operators"]["CONV_2D"] > 10
    assert record["parity"]["images"] == {"random": 2, "val": 2}
    assert record["score"]["file"] == pytest.approx(record["score"]["run"], abs=1e-3)
    assert flatbuffer.read_metadata(file.read_bytes()) == record["metadata"]


@pytest.mark.slow
def test_stablehlo_file_and_record(run, tmp_path):
    file = tmp_path / "mine.stablehlo"
    command = ["--workdir", str(run), "--format", "stablehlo", "--output", str(file)]
    assert main([*command, "--images", "2", "--nms"]) == 0
    record = json.loads((tmp_path / "mine.stablehlo.json").read_text())
    assert record["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert record["operators"]["convolution"] > 10
    assert record["platforms"] == ["cpu", "cuda", "tpu"]
    assert record["parity"]["images"] == {"random": 2, "val": 2}
    assert record["metadata"]["outputs"] == "detections"
    assert record["score"]["file"] == pytest.approx(record["score"]["run"], abs=1e-3)


@pytest.mark.slow
def test_int8_file_is_written_if_its_score_is_accepted(run, tmp_path, monkeypatch, capsys):
    file = tmp_path / "mine.tflite"
    command = ["--workdir", str(run), "--format", "litert", "--output", str(file), "--images", "2"]
    command += ["--int8", "--calibration", "4"]
    assert main([*command, "--explain"]) == 0
    record = json.loads((tmp_path / "mine.tflite.json").read_text())
    assert record["metadata"]["quantization"] == record["quantization"]["scheme"] == "int8"
    assert record["metadata"]["input"]["dtype"] == "uint8"
    assert record["quantization"]["calibration"] == 4
    assert record["device"]["arena_bytes"] > 64 * 64 * 4  # at least one map at stride 4
    assert "CAST" not in record["operators"]
    assert ("ethos_u55_128" in record["device"]) == (find_spec("ethosu") is not None)
    most_harmful = record["quantization"]["tensors"][0]["tensor"]
    assert most_harmful in capsys.readouterr().out

    # A file that is worse than the run is not written.
    file.unlink()
    worse = {"suite": "val", "metric": "AP50", "run": 0.5, "file": 0.4}
    monkeypatch.setattr(acceptance, "score_file", lambda *_: worse)
    assert main(command) == 3
    assert not file.exists()
    assert "AP50 on val is 40.00, that of the run 50.00" in capsys.readouterr().out
    assert main([*command, "--force"]) == 0
    assert file.exists()


@pytest.mark.parametrize(
    ("score", "accepted"),
    [((0.5, 0.491), True), ((0.5, 0.6), True), ((0.5, 0.489), False), ((0.5, nan), False)],
)
def test_scores_that_are_accepted(score, accepted):
    run, file = score
    record = {"suite": "val", "metric": "AP50", "run": run, "file": file}
    assert (not acceptance.reasons(record)) == accepted


def test_a_file_without_a_score_is_not_accepted():
    (reason,) = acceptance.reasons(None)
    assert "its score is not known" in reason


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--format onxx --output a.onnx", "--format onxx: did you mean 'onnx'"),
        ("--format onnx --output a.tflite", "--output a.tflite: give a file that ends in .onnx"),
        ("--format onnx --output a.onnx --outputs box", "did you mean 'boxes'"),
        ("--format onnx --output a.onnx --dtype int8", "--dtype int8: did you mean 'uint8'"),
        ("--format onnx --output a.onnx --batch 0", "--batch 0: give 1 or more"),
        ("--format onnx --output a.onnx --nms --outputs raw", "--outputs raw: without boxes"),
        ("--format litert --output a.tflite --nms", "--nms: not with --format litert"),
        ("--format litert --output a.tflite --outputs boxes", "--outputs boxes: not with"),
        ("--format onnx --output a.onnx --int8", "--quantize int8: only with --format litert"),
        ("--format litert --output a.tflite --quantize int4", "--quantize int4: did you mean"),
        ("--format litert --output a.tflite --quantize int16 --int8", "--int8: short for"),
        ("--format stablehlo --output a.stablehlo --int8", "only with --format litert"),
        ("--format litert --output a.tflite --force", "--force: only with --quantize"),
        ("--format litert --output a.tflite --explain", "--explain: only with --quantize int8"),
        ("--format litert --output a.tflite --calibration 9", "--calibration: only with"),
        ("--format litert --output a.tflite --int8 --calibration 0", "--calibration 0: give 1"),
        (
            "--format litert --output a.tflite --int8 --dtype float32",
            "--dtype float32: an int8 file reads uint8",
        ),
        ("--format onnx --output a.onnx --config.model.neck=fpn", "belong to the trained network"),
    ],
)
def test_invalid_input_is_one_message_and_exit_code_2(run, flags, message, capsys):
    argv = ["--workdir", str(run), *flags.split()]
    assert errors.exit_code(lambda: main(argv)) == 2
    assert message in capsys.readouterr().err
