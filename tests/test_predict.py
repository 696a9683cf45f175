"""The command predict on images and videos, valid and broken."""

import itertools
import json
import os
import re
import signal
import sys
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import tinyjax
from tests.untrained import CLASSES, write_untrained_run
from tinyjax import api, errors, predict
from tinyjax.data import images, prefetch, video
from tinyjax.run.csv_files import read_rows

LOW = 0.0005  # threshold for a network that was never trained


@pytest.fixture(scope="module", autouse=True)
def compile_once():
    """Commands with the same weights share a compiled network."""
    load = cache(tinyjax.load)  # which binds the package's attribute before it is patched here
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "load", lambda path, weights, _: load(path, weights))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_untrained_run(tmp_path_factory.mktemp("predict") / "run")


@pytest.fixture
def photos(tmp_path):
    """A folder with three images of different sizes, two in a subfolder, and a text file."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, shape in (("b.png", (64, 64)), ("more/a.jpg", (60, 100)), ("more/b.png", (50, 50))):
        Image.fromarray(rng.integers(0, 255, shape, np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def command(run, output, *sources, **flags):
    options = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    inputs = ["--input", *map(str, sources)]
    return ["--workdir", str(run), "--output", str(output), *inputs, *options]


def read_tables(output):
    rows = json.loads((output / "predictions.json").read_text())
    return rows, read_rows(output / "predictions.csv")


def files_in(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_pattern_of_images_of_different_sizes(run, photos, tmp_path, capsys):
    output = tmp_path / "out"
    assert predict.main(command(run, output, photos / "**" / "*.*g", threshold=LOW)) == 0
    tables = {"predictions.json", "predictions.csv"}
    assert files_in(output) == {"b.png.png", "more/a.jpg.png", "more/b.png.png", *tables}
    rows, lines = read_tables(output)
    sizes = {"b.png": (64, 64), "more/a.jpg": (100, 60), "more/b.png": (50, 50)}
    numbers = {name: number for number, name in enumerate(sizes)}
    assert {row["file_name"] for row in rows} == set(sizes)
    for row in rows:
        x, y, w, h = row["bbox"]
        width, height = sizes[row["file_name"]]
        assert 0 <= x < x + w <= width + 0.01
        assert 0 <= y < y + h <= height + 0.01
        assert row["score"] >= LOW
        assert row["category"] == CLASSES[row["category_id"] - 1]
        assert row["image_id"] == numbers[row["file_name"]]
    assert [line["file"] for line in lines] == [row["file_name"] for row in rows]
    for line, row in zip(lines, rows, strict=True):
        assert (line["frame"], line["time"], line["category"]) == ("", "", row["category"])
        corners = np.array([float(line[name]) for name in ("x1", "y1", "x2", "y2")])
        np.testing.assert_allclose(corners[2:] - corners[:2], row["bbox"][2:], atol=1e-6)
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith(f"{len(rows)} objects (")
    assert "in 3 images" in last


def test_command_agrees_with_the_api(run, photos, tmp_path):
    output = tmp_path / "out"
    assert predict.main(command(run, output, photos, threshold=LOW)) == 0
    detections = tinyjax.load(run)(np.asarray(Image.open(photos / "b.png")), threshold=LOW)
    rows, _ = read_tables(output)
    columns = ("image_id", "category_id", "bbox", "score")
    assert [{name: row[name] for name in columns} for row in rows] == detections.to_coco(0)
    picture = np.asarray(Image.open(output / "b.png.png"))
    np.testing.assert_array_equal(
        picture, detections.draw(np.asarray(Image.open(photos / "b.png")))
    )


def test_outputs_of_several_folders_stay_in_the_output_folder(run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos / "more")
    argv = command(run, tmp_path / "out", "../b.png", "b.png", photos / "b.png", threshold=LOW)
    assert predict.main(argv) == 0
    assert files_in(tmp_path / "out") >= {"b.png.png", "more/b.png.png"}
    rows, _ = read_tables(tmp_path / "out")
    assert {(row["image_id"], row["file_name"]) for row in rows} == {
        (0, "b.png"),
        (1, "more/b.png"),
    }
    assert {p.name for p in tmp_path.iterdir()} == {"photos", "out"}


def test_weights_file_two_classes_and_no_pictures(run, photos, tmp_path):
    (weights,) = (run / "weights").glob("*.safetensors")
    argv = command(weights, tmp_path / "out", photos, threshold=LOW)
    assert predict.main([*argv, "--no-pictures", "--class", "animal", "--class=vehicle"]) == 0
    assert files_in(tmp_path / "out") == {"predictions.json", "predictions.csv"}
    rows, _ = read_tables(tmp_path / "out")
    assert {row["category"] for row in rows} == {"vehicle", "animal"}


def test_no_detections_give_empty_tables_and_pictures(run, photos, tmp_path, capsys):
    assert predict.main(command(run, tmp_path / "out", photos, threshold=1)) == 0
    assert read_tables(tmp_path / "out") == ([], [])
    assert (tmp_path / "out" / "b.png.png").exists()
    assert "0 objects in 1 images" in capsys.readouterr().out


def test_16_bit_images_are_converted_by_the_rule_of_the_run(photos, tmp_path):
    run = write_untrained_run(tmp_path / "run", range16=("range", 0, 65535))
    gray = np.asarray(Image.open(photos / "b.png"))
    Image.fromarray(gray.astype(np.uint16) * 257).save(photos / "c.png")
    assert predict.main(command(run, tmp_path / "out", photos, threshold=LOW)) == 0
    rows, _ = read_tables(tmp_path / "out")
    columns = ("category_id", "bbox", "score")
    eight, sixteen = (
        [[row[key] for key in columns] for row in rows if row["file_name"] == name]
        for name in ("b.png", "c.png")
    )
    assert eight == sixteen != []


def test_broken_image_is_skipped_with_a_warning(run, photos, tmp_path, capsys):
    (photos / "a.png").write_bytes((photos / "b.png").read_bytes()[:500])
    argv = command(run, tmp_path / "out", photos, threshold=LOW)
    assert predict.main(argv) == 2
    rows, _ = read_tables(tmp_path / "out")
    assert {(row["image_id"], row["file_name"]) for row in rows} == {(1, "b.png")}
    assert files_in(tmp_path / "out") >= {"b.png.png"}
    printed = capsys.readouterr().out
    assert f"skipped: {photos / 'a.png'}: not a readable image" in printed
    assert "not read completely: 1 of 2 files" in printed


def test_stopped_command_writes_its_predictions(run, photos, tmp_path, monkeypatch, capsys):
    """The input has many more images than are read ahead."""
    total = 40 * prefetch.MAX_AHEAD
    monkeypatch.setattr(
        predict, "find_files", lambda _: [photos / f"{i}.png" for i in range(total)]
    )

    def read(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        return np.zeros((64, 64, 1), np.uint8)

    monkeypatch.setattr(images, "read_image", read)
    argv = command(run, tmp_path / "out", photos, threshold=LOW)
    assert predict.main([*argv, "--no-pictures"]) == predict.STOPPED
    rows, _ = read_tables(tmp_path / "out")
    assert 0 < len({row["image_id"] for row in rows}) < total
    assert f"of {total} images" in capsys.readouterr().out


def write_video(file, count, codec):
    """Write a video of `count` frames with a moving square, 10 per second."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*codec), 10.0, (96, 64))
    for i in range(count):
        frame = np.full((64, 96, 3), 60, np.uint8)
        frame[20:40, i : i + 20] = 220
        writer.write(frame)
    writer.release()


def test_videos_and_images_together(run, photos, tmp_path, capsys):
    write_video(photos / "x.mp4", 20, "mp4v")
    write_video(photos / "z.avi", 40, "MJPG")
    data = (photos / "z.avi").read_bytes()
    (photos / "z.avi").write_bytes(data[: len(data) // 2])
    (photos / "broken.mkv").write_bytes(b"no video")
    assert predict.main(command(run, tmp_path / "out", photos, threshold=LOW)) == 2
    printed = capsys.readouterr().out
    assert f"skipped: {photos / 'broken.mkv'}: not a video that OpenCV can read" in printed
    ends = re.search(rf"{photos / 'z.avi'}: ends after (\d+) of (\d+) frames", printed)
    read, stated = map(int, ends.groups())
    assert 0 < read < stated
    assert "not read completely: 2 of 4 files" in printed
    drawn = {"b.png.png": 1, "x.mp4.mp4": 20, "z.avi.mp4": read}
    assert drawn.keys() <= files_in(tmp_path / "out")
    for name in ("x.mp4.mp4", "z.avi.mp4"):
        assert video.read_info(tmp_path / "out" / name) == (drawn[name], 10.0)
        assert len(list(video.read_frames(tmp_path / "out" / name))) == drawn[name]
    rows, lines = read_tables(tmp_path / "out")
    assert {row["file_name"] for row in rows} == {"b.png", "x.mp4", "z.avi"}
    numbers = {name: set() for name in ("x.mp4", "z.avi")}
    for row, line in zip(rows, lines, strict=True):
        if row["file_name"] == "b.png":
            assert "frame" not in row
            continue
        first = 1 if row["file_name"] == "x.mp4" else 21
        assert row["image_id"] == first + row["frame"]
        assert row["time"] == pytest.approx(row["frame"] / 10, abs=1e-3)
        assert (line["frame"], line["time"]) == (str(row["frame"]), str(row["time"]))
        numbers[row["file_name"]].add(row["frame"])
    assert numbers == {"x.mp4": set(range(20)), "z.avi": set(range(read))}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--input {photos}/x.png", "x.png: no such file or folder"),
        ("--input {photos}/*.bmp", "no images match"),
        ("--input {empty}", "no images"),
        ("--input {photos}/..", "its subfolders have some: give '"),
        ("--input {photos} --output {photos}", "give another folder"),
        ("--input {photos}/**/*.jpg --output {photos}/more", "give another folder"),
        ("--input {photos} --output {photos}/b.png", "not a folder"),
        ("--input {photos} --threshold 30", "threshold = 30.0: give a score from 0 to 1"),
        ("--input {photos} --class persom", "class 'persom': did you mean 'person'"),
        ("--input {photos} --weights best", "no such weights; available: "),
        ("--input {photos} --workdir {empty}", "no such weights; has the run finished?"),
        ("--input {photos} --workdir {empty}/none", "no such weights; and no folder "),
        ("--input {photos} {photos}/x.mp4", "pip install 'tinyjax[video]'"),
    ],
)
def test_invalid_input_is_one_message(line, message, run, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "empty").mkdir()
    if "x.mp4" in line:
        (photos / "x.mp4").touch()
    options = line.format(photos=photos, empty=tmp_path / "empty")
    argv = f"--workdir {run} --output {tmp_path}/out {options}".split()
    assert errors.exit_code(lambda: predict.main(argv)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_find_files_returns_each_file_once_and_no_hidden_files(photos):
    (photos / ".b.png").touch()
    (photos / "[1].png").touch()
    expected = [photos / "[1].png", photos / "b.png"]
    assert predict.find_files([str(photos)]) == expected
    assert (
        predict.find_files([str(photos / "[1].png"), str(photos), str(photos / "*.png")])
        == expected
    )
    assert predict.find_files([str(photos / "notes.txt")]) == [photos / "notes.txt"]
    pattern = str(photos / "**" / "*.*g")
    files = predict.find_files([pattern])
    (photos / "more" / "A").symlink_to("..")  # sorts before the files next to it
    assert predict.find_files([pattern]) == files


def test_map_ahead_keeps_the_order_and_is_bounded():
    taken = itertools.count()
    last = [0]

    def items():
        while True:
            last[0] = next(taken)
            yield last[0]

    squares = prefetch.map_ahead(lambda x: x * x, items())
    assert [next(squares) for _ in range(50)] == [x * x for x in range(50)]
    assert last[0] == 49 + prefetch.MAX_AHEAD
    assert list(prefetch.map_ahead(Path, ["a", "b"])) == [Path("a"), Path("b")]
