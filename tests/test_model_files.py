"""The commands evaluate and predict with --model: an exported file instead of a run."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.configs import detector
from tests.configs.detectors import two_stage_config
from tests.recognition.recognition_runs import write_recognition_run
from tests.untrained import write_random_detector
from tinyjax import errors, evaluate, export, predict
from tinyjax.run.csv_files import read_rows


def write_file(run, file, *flags):
    name = {".onnx": "onnx", ".tflite": "litert", ".stablehlo": "stablehlo"}[file.suffix]
    command = ["--workdir", str(run), "--format", name, "--output", str(file), "--images", "1"]
    assert export.main([*command, *flags]) == 0
    return file


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A detector with a clean and a corrupted suite."""
    config = detector.get_config().unlock()
    config.data.suites = {
        "val": {"n": 4, "seed": 1},
        "noisy": {"n": 3, "seed": 2, "corrupt": ("gaussian_noise",), "severities": (3,)},
    }
    return write_random_detector(tmp_path_factory.mktemp("run") / "run", config.lock())


@pytest.fixture(scope="module")
def file(run, tmp_path_factory):
    return write_file(run, tmp_path_factory.mktemp("file") / "mine.onnx")


def files_in(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def assert_same_scores(actual, expected):
    """Rows of two evaluations; their members have other names."""
    assert len(actual) == len(expected) > 1
    for row, other in zip(actual, expected, strict=True):
        names = ("suite", "slice", "corruption", "severity")
        assert [row[name] for name in names] == [other[name] for name in names]
        for name in {*other} - {"member", *names}:
            value, reference = (float(r[name] or "nan") for r in (row, other))
            assert value == pytest.approx(reference, abs=1e-3, nan_ok=True), name


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "tflite", "stablehlo"])
def test_scores_of_a_detector_are_those_of_the_run(run, tmp_path, suffix):
    before = files_in(run)
    file = write_file(run, tmp_path / f"mine.{suffix}")
    assert evaluate.main(["--model", str(file)]) == 0
    assert files_in(run) == before
    written = files_in(tmp_path)
    assert {f"mine-evaluations/{suffix}.{s}" for s in ("csv", "json", "npz")} <= written
    assert f"mine-evaluations/{suffix}/mine/val.npz" in written
    actual = read_rows(tmp_path / "mine-evaluations" / f"{suffix}.csv")
    assert {row["member"] for row in actual} == {"mine"}
    assert evaluate.main(["--workdir", str(run)]) == 0
    expected = read_rows(run / "evaluations" / "last.csv")
    assert max(float(row["AR100"]) for row in expected) > 0.01
    assert {row["corruption"] for row in expected} == {"", "gaussian_noise"}
    assert_same_scores(actual, expected)


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--outputs", "boxes"), ("--nms",)])
def test_scores_of_a_two_stage_detector_are_those_of_the_run(flags, tmp_path):
    config = two_stage_config("faster_rcnn").unlock()
    config.data.suites = {"val": {"n": 30, "seed": 1}, "more": {"n": 20, "seed": 2}}
    run = write_random_detector(tmp_path / "run", config.lock())
    write_file(run, tmp_path / "mine.onnx", *flags)
    assert evaluate.main(["--model", str(tmp_path / "mine.onnx")]) == 0
    assert evaluate.main(["--workdir", str(run)]) == 0
    actual = read_rows(tmp_path / "mine-evaluations" / "onnx.csv")
    expected = read_rows(run / "evaluations" / "last.csv")
    assert max(float(row["AR100"]) for row in expected) > 0
    assert_same_scores(actual, expected)


@pytest.mark.slow
def test_scores_of_a_recognizer_are_those_of_the_run(tmp_path):
    run = write_recognition_run(tmp_path / "run")
    write_file(run, tmp_path / "mine.onnx")
    assert evaluate.main(["--model", str(tmp_path / "mine-infrared.onnx")]) == 0
    assert evaluate.main(["--workdir", str(run)]) == 0
    actual = read_rows(tmp_path / "mine-evaluations" / "onnx.csv")
    assert_same_scores(actual, read_rows(run / "evaluations" / "last.csv"))


@pytest.mark.slow
def test_identities_that_the_network_was_trained_on_are_refused(tmp_path, capsys):
    run = write_recognition_run(tmp_path / "run", split="test")
    write_file(run, tmp_path / "mine.onnx")
    argv = ["--model", str(tmp_path / "mine.onnx")]
    assert errors.exit_code(lambda: evaluate.main(argv)) == 2
    assert "3 of 3 identities of this split were trained on" in capsys.readouterr().err
    assert not (tmp_path / "mine-evaluations").exists()


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), ("--nms",)])
def test_predictions_are_those_of_the_run(run, flags, tmp_path):
    file = write_file(run, tmp_path / "mine.onnx", *flags)
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for name, size in (("a.png", (64, 64)), ("b.png", (50, 90))):
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(tmp_path / "photos" / name)
    rows = []
    for name, source in (("run", ["--workdir", str(run)]), ("file", ["--model", str(file)])):
        output = tmp_path / name
        inputs = ["--input", str(tmp_path / "photos"), "--no-pictures"]
        assert predict.main([*source, *inputs, "--output", str(output)]) == 0
        rows.append(json.loads((output / "predictions.json").read_text()))
    assert len(rows[0]) == len(rows[1]) > 20
    for row, other in zip(*rows, strict=True):
        names = ("image_id", "file_name", "category")
        assert [row[name] for name in names] == [other[name] for name in names]
        assert row["score"] == pytest.approx(other["score"], abs=1e-5)
        assert row["bbox"] == pytest.approx(other["bbox"], abs=0.02)


@pytest.mark.parametrize(
    ("command", "line", "message"),
    [
        (evaluate, "--model {file} --workdir {file}", "give one of them"),
        (evaluate, "--suite val", "--workdir: give a run folder; or --model"),
        (evaluate, "--model {file} --weights best", "--weights best: "),
        (evaluate, "--model {file}", "a.onnx: not an ONNX file that can be read"),
        (evaluate, "--model {litert}", "a.tflite: not a LiteRT file that can be read"),
        (evaluate, "--model {stablehlo}", "a.stablehlo: not a StableHLO file that"),
        (evaluate, "--model {file}.pt", "a.onnx.pt: not a file of tinyjax.export"),
        (predict, "--input {photos} --output {out} --model {file} --workdir {file}", "give one of"),
        (predict, "--input {photos} --output {out} --model {file}", "not an ONNX file"),
        (predict, "--input {photos} --output {out} --model {photos}", "a file of tinyjax.export"),
    ],
)
def test_invalid_input_is_one_message_and_exit_code_2(command, line, message, tmp_path, capsys):
    for name in ("a.onnx", "a.tflite", "a.stablehlo"):
        (tmp_path / name).write_text("not a network")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "x.png")
    paths = {
        "file": tmp_path / "a.onnx",
        "litert": tmp_path / "a.tflite",
        "stablehlo": tmp_path / "a.stablehlo",
        "photos": tmp_path / "x.png",
        "out": tmp_path / "out",
    }
    argv = line.format(**paths).split()
    assert errors.exit_code(lambda: command.main(argv)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_images_of_another_size_than_the_file_reads(run, file, tmp_path, capsys):
    text = "\n".join([
        "from tests.configs import detector\n",
        "def get_config(arg=None):",
        "    config = detector.get_config()",
        "    config.data.common = {'size': (96, 64)}",
        "    return config",
    ])  # fmt: skip
    (tmp_path / "wide.py").write_text(text)
    argv = ["--model", str(file), "--suites", str(tmp_path / "wide.py"), "--suite", "val"]
    assert errors.exit_code(lambda: evaluate.main(argv)) == 2
    expected = (
        "data.suites.val: images of 64 x 96, but the file reads 64 x 64; give size = (64, 64)"
    )
    assert expected in capsys.readouterr().err
