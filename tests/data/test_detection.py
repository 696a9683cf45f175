"""What is true of every layout: broken images and boxes, and a zip in a zip."""

import json
import logging
import zipfile
from pathlib import Path

import pytest

from tests.data.layouts import source_files
from tinyjax import config as configs
from tinyjax.data import detection, images
from tinyjax.data.detection import load
from tinyjax.data.loading import load_set
from tinyjax.errors import UserError

OWN = Path(__file__).parents[2] / "configs" / "own.py"
SPLITS = {"train": 5, "val": 3}


def broken(folder):
    """An image that is none, one that is missing, and a box that is empty."""
    source = source_files.coco(folder, SPLITS)
    (source / "images" / "train_00.png").write_bytes(b"no image")
    (source / "images" / "train_01.png").unlink()
    file = source / "annotations" / "instances_train.json"
    document = json.loads(file.read_text())
    last = document["annotations"][-1]  # of train_03
    document["annotations"].append({**last, "id": 99, "bbox": [1, 1, 0, 5]})
    file.write_text(json.dumps(document))
    return source


def loaded(source, split, broken):
    """As a run does it, from the command line."""
    spec = f"{OWN}:source={source},classes=person+car"
    config = configs.load(spec, [f"--config.data.on_error={broken}"])
    return load_set(config.data, {"train": config.data.train, **config.data.suites}[split])


def test_what_is_broken_is_left_out_counted_and_named(tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(logging.getLogger("tinyjax"), "warning", messages.append)
    source = broken(tmp_path / "a")
    split = loaded(source, "train", "skip")
    whole = load(source_files.coco(tmp_path / "b", SPLITS), "train", source_files.CLASSES)
    assert split.names == whole.names[2:]
    assert (split.images == whole.images[2:]).all()
    assert (split.boxes == whole.boxes[2:]).all()
    (said,) = messages
    for words in (
        "train: left out\n",
        "missing image: 1\n",
        "train_01.png: no such image",
        "unreadable image: 1\n",
        "train_00.png: not a readable image",
        "empty box: 1\n",
        "annotation 99: box x 1 to 1, y 1 to 6 is empty",
    ):
        assert words in said, words
    loaded(source, "val", "skip")
    assert messages == [said]


def test_by_default_the_first_that_is_broken_is_an_error(tmp_path):
    with pytest.raises(UserError, match=r"train_01.png: no such image"):
        loaded(broken(tmp_path), "train", "stop")


def test_no_other_way_is_known(tmp_path):
    with pytest.raises(UserError, match=r"data.on_error = 'drop': give stop or skip"):
        loaded(tmp_path, "train", "drop")


def test_a_split_of_which_nothing_is_left_is_an_error(tmp_path):
    source = source_files.coco(tmp_path, SPLITS)
    for file in (source / "images").glob("val*"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"instances_val.json: no image of split 'val' can be used"):
        loaded(source, "val", "skip")


@pytest.mark.parametrize("layout", ["coco", "voc", "yolo"])
def test_valid_stands_for_val_only_where_val_is_not_there(layout, tmp_path):
    folder = getattr(source_files, layout)(tmp_path, {"train": 4, "val": 3, "valid": 2})
    assert [len(load(folder, name).names) for name in ("val", "valid")] == [3, 2]
    folder = getattr(source_files, layout)(tmp_path / "b", {"train": 4, "valid": 2})
    assert [len(load(folder, name).names) for name in ("val", "valid")] == [2, 2]


@pytest.mark.parametrize("what", ["image", "box"])
def test_the_first_error_does_not_wait_for_all_images(what, tmp_path, monkeypatch):
    source = source_files.coco(tmp_path, {"train": 2})
    file = source / "annotations" / "instances_train.json"
    document = json.loads(file.read_text())
    first = next(i for i in document["images"] if i["file_name"] == "train_00.png")
    document["images"] += [{**first, "id": 100 + i} for i in range(1000)]
    if what == "image":
        (source / "images" / "train_00.png").write_bytes(b"no image")
    else:
        document["annotations"][0]["bbox"] = [1, 1, 0, 5]
    file.write_text(json.dumps(document))
    reads = []
    read = images.read
    monkeypatch.setattr(images, "read", lambda *how: reads.append(how) or read(*how))
    with pytest.raises(UserError, match=r"not a readable image|is empty"):
        load(source, "train")
    assert 1 <= len(reads) <= 2 * detection.AHEAD


@pytest.mark.parametrize("layout", ["coco", "voc", "yolo"])
@pytest.mark.parametrize("kind", ["in a zip", "in a folder", "in a folder of a zip"])
def test_a_zip_that_is_not_the_source_itself(kind, layout, tmp_path):
    (tmp_path / "outer").mkdir()
    inner = getattr(source_files, layout)(tmp_path / "set", SPLITS)
    inner = source_files.zipped(inner, tmp_path / "outer" / "inner.zip")
    source = tmp_path / "outer"
    if "of a zip" in kind or kind == "in a zip":
        source = tmp_path / "outer.zip"
        with zipfile.ZipFile(source, "w") as file:
            file.write(inner, "inner.zip" if kind == "in a zip" else "deeper/inner.zip")
    message = r"inner.zip: a zip within .*outer.*; give the inner zip itself as the source"
    with pytest.raises(UserError, match=message):
        load(source, "train")


@pytest.fixture
def flights(tmp_path):
    """A set whose images say when and how high they were taken, the last of them not."""
    source = source_files.coco(tmp_path / "flights", {"train": 6})
    file = source / "annotations" / "instances_train.json"
    document = json.loads(file.read_text())
    said = [("day", 60), ("night", 80), ("day", 81), ("night", 60), ("night", 130)]
    rows = sorted(document["images"], key=lambda info: info["file_name"])
    for info, (time, height) in zip(rows, said, strict=False):
        info |= {"time_of_day": time, "altitude_m": height}
    file.write_text(json.dumps(document))
    return source


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"time_of_day": "night"}, [1, 3, 4]),
        ({"altitude_m": (60, 81)}, [0, 1, 3]),
        ({"altitude_m": 60}, [0, 3]),
        ({"time_of_day": "night", "altitude_m": (60, 81)}, [1, 3]),
    ],
)
def test_where_takes_the_images_that_say_so(where, expected, flights):
    whole = load(flights, "train", source_files.CLASSES)
    some = load(flights, "train", source_files.CLASSES, where=where)
    assert some.names == tuple(whole.names[i] for i in expected)
    assert (some.images == whole.images[expected]).all()
    assert [info["file_name"] for info in some.truth["images"]] == [*some.names]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"time": "night"}, r"no image says 'time'; did you mean 'time_of_day'\? known: "),
        ({"time_of_day": "dusk"}, "no image has time_of_day = 'dusk'"),
        (
            {"altitude_m": (60, 70, 80)},
            r"altitude_m = \(60, 70, 80\): give a value, or \(low, high",
        ),
        ({"altitude_m": None}, "altitude_m = None: give a value"),
        ({"altitude_m": (81, 60)}, "give the low end first"),
        ("night", "where = 'night': give a dict"),
    ],
)
def test_where_that_cannot_be_is_an_error(where, words, flights):
    with pytest.raises(UserError, match=words):
        load(flights, "train", source_files.CLASSES, where=where)
