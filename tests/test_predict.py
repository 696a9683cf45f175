"""The command predict, on images and videos, good and broken."""

import csv
import itertools
import json
import os
import re
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import tinyjax
from tests.untrained import CLASSES, untrained
from tinyjax import errors, predict
from tinyjax.data import detection, images, video

LOW = 0.0005  # of the scores: what was never trained is sure of nothing


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return untrained(tmp_path_factory.mktemp("predict") / "run")


@pytest.fixture
def photos(tmp_path):
    """Three images of differing size, two of them in a folder below, and a file that is none."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, shape in (("b.png", (64, 64)), ("more/a.jpg", (60, 100)), ("more/b.png", (50, 50))):
        Image.fromarray(rng.integers(0, 255, shape, np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def command(run, output, *sources, **flags):
    more = [f"--{name.replace('_', '-')}={value}" for name, value in flags.items()]
    inputs = ["--input", *map(str, sources)]
    return ["--workdir", str(run), "--output", str(output), *inputs, *more]


def found_in(output):
    rows = json.loads((output / "predictions.json").read_text())
    with (output / "predictions.csv").open(newline="") as stream:
        return rows, list(csv.DictReader(stream))


def files_in(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def test_a_pattern_of_mixed_sizes(run, photos, tmp_path, capsys):
    output = tmp_path / "out"
    assert predict.main(command(run, output, photos / "**" / "*.*g", threshold=LOW)) == 0
    tables = {"predictions.json", "predictions.csv"}
    assert files_in(output) == {"b.png.png", "more/a.jpg.png", "more/b.png.png", *tables}
    rows, lines = found_in(output)
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


def test_the_command_finds_what_the_model_finds(run, photos, tmp_path):
    output = tmp_path / "out"
    assert predict.main(command(run, output, photos, threshold=LOW)) == 0
    found = tinyjax.load(run)(np.asarray(Image.open(photos / "b.png")), threshold=LOW)
    rows, _ = found_in(output)
    same = ("image_id", "category_id", "bbox", "score")
    assert [{name: row[name] for name in same} for row in rows] == found.to_coco(0)
    picture = np.asarray(Image.open(output / "b.png.png"))
    np.testing.assert_array_equal(picture, found.draw(np.asarray(Image.open(photos / "b.png"))))


def test_files_from_several_places_stay_below_the_output(run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos / "more")
    argv = command(run, tmp_path / "out", "../b.png", "b.png", photos / "b.png", threshold=LOW)
    assert predict.main(argv) == 0
    assert files_in(tmp_path / "out") >= {"b.png.png", "more/b.png.png"}
    rows, _ = found_in(tmp_path / "out")
    assert {(row["image_id"], row["file_name"]) for row in rows} == {
        (0, "b.png"),
        (1, "more/b.png"),
    }
    assert {p.name for p in tmp_path.iterdir()} == {"photos", "out"}


def test_weights_alone_one_class_and_no_pictures(run, photos, tmp_path):
    (weights,) = (run / "weights").glob("*.safetensors")
    argv = command(weights, tmp_path / "out", photos, threshold=LOW)
    assert predict.main([*argv, "--no-pictures", "--class", "animal", "--class=vehicle"]) == 0
    assert files_in(tmp_path / "out") == {"predictions.json", "predictions.csv"}
    rows, _ = found_in(tmp_path / "out")
    assert {row["category"] for row in rows} == {"vehicle", "animal"}


def test_nothing_found_is_two_empty_tables_and_the_pictures(run, photos, tmp_path, capsys):
    assert predict.main(command(run, tmp_path / "out", photos, threshold=1)) == 0
    assert found_in(tmp_path / "out") == ([], [])
    assert (tmp_path / "out" / "b.png.png").exists()
    assert "0 objects in 1 images" in capsys.readouterr().out


def test_sixteen_bits_by_the_rule_of_the_run(photos, tmp_path):
    run = untrained(tmp_path / "run", range16=("range", 0, 65535))
    gray = np.asarray(Image.open(photos / "b.png"))
    Image.fromarray(gray.astype(np.uint16) * 257).save(photos / "c.png")
    assert predict.main(command(run, tmp_path / "out", photos, threshold=LOW)) == 0
    rows, _ = found_in(tmp_path / "out")
    same = ("category_id", "bbox", "score")
    eight, sixteen = (
        [[row[key] for key in same] for row in rows if row["file_name"] == name]
        for name in ("b.png", "c.png")
    )
    assert eight == sixteen != []


def test_a_broken_image_is_named_and_the_rest_is_done(run, photos, tmp_path, capsys):
    (photos / "a.png").write_bytes((photos / "b.png").read_bytes()[:500])
    argv = command(run, tmp_path / "out", photos, threshold=LOW)
    assert predict.main(argv) == 2
    rows, _ = found_in(tmp_path / "out")
    assert {(row["image_id"], row["file_name"]) for row in rows} == {(1, "b.png")}
    assert files_in(tmp_path / "out") >= {"b.png.png"}
    printed = capsys.readouterr().out
    assert f"left out: {photos / 'a.png'}: not a readable image" in printed
    assert "not read, or not all of it: 1 of 2 files" in printed


def test_told_to_stop_it_writes_what_it_has(run, photos, tmp_path, monkeypatch, capsys):
    """Far more images than are on their way at any time."""
    total = 40 * detection.AHEAD
    monkeypatch.setattr(predict, "find", lambda _: [photos / f"{i}.png" for i in range(total)])

    def read(*_):
        os.kill(os.getpid(), signal.SIGTERM)
        return np.zeros((64, 64, 1), np.uint8)

    monkeypatch.setattr(images, "read", read)
    argv = command(run, tmp_path / "out", photos, threshold=LOW)
    assert predict.main([*argv, "--no-pictures"]) == predict.STOPPED
    rows, _ = found_in(tmp_path / "out")
    assert 0 < len({row["image_id"] for row in rows}) < total
    assert f"of {total} images are done" in capsys.readouterr().out


def film(file, count, codec):
    """`count` frames of one picture with a moving square, 10 a second."""
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*codec), 10.0, (96, 64))
    for i in range(count):
        frame = np.full((64, 96, 3), 60, np.uint8)
        frame[20:40, i : i + 20] = 220
        writer.write(frame)
    writer.release()


def test_videos_and_images_in_one_go(run, photos, tmp_path, capsys):
    film(photos / "x.mp4", 20, "mp4v")
    film(photos / "z.avi", 40, "MJPG")
    data = (photos / "z.avi").read_bytes()
    (photos / "z.avi").write_bytes(data[: len(data) // 2])
    (photos / "broken.mkv").write_bytes(b"no video")
    assert predict.main(command(run, tmp_path / "out", photos, threshold=LOW)) == 2
    printed = capsys.readouterr().out
    assert f"left out: {photos / 'broken.mkv'}: not a video that OpenCV can read" in printed
    ends = re.search(rf"{photos / 'z.avi'}: ends after (\d+) of (\d+) frames", printed)
    there, said = map(int, ends.groups())
    assert 0 < there < said
    assert "not all of it: 2 of 4 files" in printed
    drawn = {"b.png.png": 1, "x.mp4.mp4": 20, "z.avi.mp4": there}
    assert drawn.keys() <= files_in(tmp_path / "out")
    for name in ("x.mp4.mp4", "z.avi.mp4"):
        assert video.about(tmp_path / "out" / name) == (drawn[name], 10.0)
        assert len(list(video.frames(tmp_path / "out" / name))) == drawn[name]
    rows, lines = found_in(tmp_path / "out")
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
    assert numbers == {"x.mp4": set(range(20)), "z.avi": set(range(there))}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--input {photos}/x.png", "x.png: no such file or folder"),
        ("--input {photos}/*.bmp", "no images match"),
        ("--input {empty}", "no images"),
        ("--input {photos} --output {photos}", "another folder"),
        ("--input {photos}/**/*.jpg --output {photos}/more", "another folder"),
        ("--input {photos} --output {photos}/b.png", "not a folder"),
        ("--input {photos} --threshold 30", "threshold = 30.0: give a score from 0 to 1"),
        ("--input {photos} --class persom", "class 'persom': did you mean 'person'"),
        ("--input {photos} --weights best", "no such weights; there are: "),
        ("--input {photos} --workdir {empty}", "no such weights; has the run finished?"),
        ("--input {photos} {photos}/x.mp4", "pip install 'tinyjax[video]'"),
    ],
)
def test_mistakes_are_one_message(line, message, run, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cv2", None)
    (tmp_path / "empty").mkdir()
    if "x.mp4" in line:
        (photos / "x.mp4").touch()
    given = line.format(photos=photos, empty=tmp_path / "empty")
    argv = f"--workdir {run} --output {tmp_path}/out {given}".split()
    assert errors.exit_code(lambda: predict.main(argv)) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_find_takes_each_file_once_and_no_hidden_ones(photos):
    (photos / ".b.png").touch()
    (photos / "[1].png").touch()
    named = [photos / "[1].png", photos / "b.png"]
    assert predict.find([str(photos)]) == named
    assert predict.find([str(photos / "[1].png"), str(photos), str(photos / "*.png")]) == named
    assert predict.find([str(photos / "notes.txt")]) == [photos / "notes.txt"]


def test_ahead_keeps_the_order_and_runs_only_so_far():
    taken = itertools.count()
    last = [0]

    def items():
        while True:
            last[0] = next(taken)
            yield last[0]

    squares = detection.ahead(lambda x: x * x, items())
    assert [next(squares) for _ in range(50)] == [x * x for x in range(50)]
    assert last[0] == 49 + detection.AHEAD
    assert list(detection.ahead(Path, ["a", "b"])) == [Path("a"), Path("b")]
