"""The command benchmark: its rows, tables and messages. Times are not compared with anything."""

import numpy as np
import pytest
from PIL import Image

from tests.configs import detector
from tests.untrained import CLASSES, write_random_detector
from tinyjax import benchmark, errors
from tinyjax import config as configs
from tinyjax.exporting import latency, litert, onnx
from tinyjax.exporting.functions import ExportedFunction
from tinyjax.run import timing
from tinyjax.run.csv_files import read_rows, write_rows
from tinyjax.run.weights import read_weights, write_weights


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for k in range(2):
        Image.fromarray(np.full((9, 12), 100 * k, np.uint8)).save(folder / f"{k}.png")
    return folder


def mean_colors():
    """A function whose logits are the means of the colors."""
    metadata = {
        "task": "classify",
        "classes": [*CLASSES],
        "input": {"height": 8, "width": 8, "channels": 3, "dtype": "uint8"},
        "config": configs.classifier().to_dict(),
    }

    def call(image):
        return {"logits": image.astype(np.float32).mean((1, 2))}

    return ExportedFunction(call, (8, 8, 3), "uint8", metadata)


@pytest.fixture
def file(tmp_path):
    onnx.write(mean_colors(), tmp_path / "mine.onnx")
    return tmp_path / "mine.onnx"


def record_processes(monkeypatch):
    """Replace `timing.compare` by one that builds and calls in this process; return the names of
    the processes, with the calls of each.
    """
    recorded = {}

    def compare(candidates, rounds):
        seconds, unavailable = {}, {}
        for name, (build, arguments) in candidates.items():
            try:
                calls = build(*arguments)
            except errors.UserError as error:
                unavailable[name] = str(error)
                continue
            recorded[name] = {key: call() for key, call in calls.items()}
            seconds[name] = {key: [0.001 * (i + 1) for i in range(rounds)] for key in calls}
        return timing.Comparison(seconds, {}, unavailable)

    monkeypatch.setattr(timing, "compare", compare)
    for module in (benchmark, latency):
        monkeypatch.setattr(module, "limit_cores", lambda threads: threads or 1)
    return recorded


def test_a_file_is_timed_in_every_runtime_and_number_of_threads(file, photos, monkeypatch, capsys):
    recorded = record_processes(monkeypatch)
    flags = ["--threads", "1", "0", "--rounds", "5"]
    assert benchmark.main(["--file", str(file), "--input", str(photos), *flags]) == 0
    rows = [r for r in read_rows(file.with_name("mine-latency.csv")) if r["runtime"] != "OpenVINO"]
    assert [(row["name"], row["runtime"], row["threads"]) for row in rows] == [
        ("mine.onnx", "ONNX Runtime", "1"), ("mine.onnx", "ONNX Runtime", "all"),
    ]  # fmt: skip
    for row in rows:
        assert [float(row[name]) for name in ("q1_ms", "median_ms", "q3_ms")] == [2, 3, 4]
        assert row["outputs"] == "classify"
        assert row["version"].startswith("onnxruntime 1.")
        assert "cores: " in row["device"]
    np.testing.assert_array_equal(recorded["ONNX Runtime", 1]["mine.onnx"]["logits"], [[0] * 3])
    assert "ONNX Runtime" in capsys.readouterr().out


@pytest.mark.slow
def test_calls_take_turns_in_processes_of_their_own(file, photos):
    litert_file = file.with_suffix(".tflite")
    litert_file.write_bytes(litert.convert(mean_colors()))
    targets = [benchmark.file_target(f, sorted(photos.iterdir())) for f in (file, litert_file)]
    rows = latency.measure(latency.file_processes(targets, [1]), targets, rounds=3)
    assert {"ONNX Runtime", "LiteRT"} <= {row["runtime"] for row in rows}
    for row in rows:
        assert row["rounds"] == 3
        assert 0 < row["q1_ms"] <= row["median_ms"] <= row["q3_ms"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_random_detector(tmp_path_factory.mktemp("run") / "run", detector.get_config())


@pytest.mark.slow
def test_a_run_is_timed_as_it_predicts(run, photos, monkeypatch):
    recorded = record_processes(monkeypatch)
    assert benchmark.main(["--workdir", str(run), "--input", str(photos), "--rounds", "2"]) == 0
    (row,) = read_rows(run / "latency.csv")
    assert (row["name"], row["outputs"], row["runtime"]) == ("run", "detections", "tinyjax")
    assert recorded["tinyjax", 1]["run"]["boxes"].shape == (1, 300, 4)


@pytest.mark.slow
def test_table_and_figure_of_a_sweep(run, photos, tmp_path, monkeypatch):
    """Two members with the same network; the evaluation's score precedes that of the results."""
    record_processes(monkeypatch)
    (weights,) = (run / "weights").glob("*.safetensors")
    trees, metadata = read_weights(weights.with_suffix(""))
    from tinyjax.core import Variables

    folder = tmp_path / "sweep"
    for id in ("a", "b"):
        write_weights(folder / "weights" / id, Variables(**trees), metadata)
    (folder / "config.json").write_text((run / "config.json").read_text())
    (folder / "plan.json").write_text('{"populations": [{"members": ["a", "b"]}]}')
    members = [
        {"member": id, "backbone": f"net/{id}", "parameters": 9, "multiply_adds": 8} for id in "ab"
    ]
    write_rows(folder / "members.csv", members, members[0])
    results = [{"member": id, "suite": "val", "AP50": 0.2} for id in "ab"]
    write_rows(folder / "results.csv", [*results, {**results[0], "suite": "day"}], results[0])
    evaluated = {"member": "b", "suite": "val", "slice": "", "corruption": "", "AP50": 0.4}
    sliced = {**evaluated, "slice": "time=day", "AP50": 0.9}
    write_rows(folder / "evaluations" / "last.csv", [evaluated, sliced], evaluated)
    assert benchmark.main(["--workdir", str(folder), "--input", str(photos), "--rounds", "2"]) == 0
    rows = [r for r in read_rows(folder / "latency.csv") if r["runtime"] == "ONNX Runtime"]
    assert [(r["member"], r["backbone"], r["AP50"]) for r in rows] == [
        ("a", "net/a", "0.2"), ("b", "net/b", "0.4"),
    ]  # fmt: skip
    assert int(rows[0]["bytes"]) > 10_000
    # The first convolution has a quarter of the pixels.
    assert 64 * 64 < int(rows[0]["arena_bytes"]) < 64 * 64 * 64
    assert (folder / "figures" / "latency.png").exists()
    line = "--workdir {} --file {} --input {}".format(folder, folder / "a.onnx", photos)
    assert errors.exit_code(lambda: benchmark.main(line.split())) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--input {photos}", "--file: give a file of tinyjax.export; or --workdir"),
        ("--input {photos} --file {file} --threads -1", "--threads -1: give 0 or more"),
        ("--input {photos} --file {file} --rounds 1", "--rounds 1: give 2 or more"),
        ("--input {photos} --file {file}.x", "mine.onnx.x: not a file of tinyjax.export"),
        ("--input {photos} --workdir {photos}", "no run here"),
        ("--input {photos}/2.png --file {file}", "no such file or folder"),
    ],
)
def test_invalid_input_is_one_message_and_exit_code_2(line, message, file, photos, capsys):
    argv = line.format(photos=photos, file=file).split()
    assert errors.exit_code(lambda: benchmark.main(argv)) == 2
    assert message in capsys.readouterr().err
