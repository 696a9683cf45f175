"""Loading detection sets in any layout: invalid images and boxes, nested zips, `where`."""

import json
import logging
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from tests.data.layouts import source_files
from tests.data.loaders import load_detection
from tinyjax import config as configs
from tinyjax.data import images, prefetch
from tinyjax.data.loading import load_split
from tinyjax.errors import UserError

OWN = Path(__file__).parents[2] / "configs" / "own.py"
SPLITS = {"train": 5, "val": 3}


def broken(folder):
    """A set with an unreadable image, a missing image and an empty box."""
    source = source_files.coco(folder, SPLITS)
    (source / "images" / "train_00.png").write_bytes(b"no image")
    (source / "images" / "train_01.png").unlink()
    file = source / "annotations" / "instances_train.json"
    document = json.loads(file.read_text())
    last = document["annotations"][-1]  # of train_03
    document["annotations"].append({**last, "id": 99, "bbox": [1, 1, 0, 5]})
    file.write_text(json.dumps(document))
    return source


def load_by_config(source, split, on_error):
    """Load a split of a config with command-line overrides, as a run does."""
    spec = f"{OWN}:source={source},classes=person+car"
    config = configs.load(spec, [f"--config.data.on_error={on_error}"])
    return load_split(config.data, {"train": config.data.train, **config.data.suites}[split])


def test_invalid_images_and_boxes_are_skipped_and_logged(tmp_path, monkeypatch):
    messages = []
    monkeypatch.setattr(logging.getLogger("tinyjax"), "warning", messages.append)
    source = broken(tmp_path / "a")
    split = load_by_config(source, "train", "skip")
    full = load_detection(source_files.coco(tmp_path / "b", SPLITS), "train", source_files.CLASSES)
    assert split.names == full.names[2:]
    assert (split.inputs["image"] == full.inputs["image"][2:]).all()
    assert (split.boxes == full.boxes[2:]).all()
    (message,) = messages
    for words in (
        "left out of train:\n",
        "missing image: 1\n",
        "train_01.png: no such image",
        "unreadable image: 1\n",
        "train_00.png: not a readable image",
        "empty box: 1\n",
        "annotation 99: box x 1 to 1, y 1 to 6 is empty",
    ):
        assert words in message, words
    load_by_config(source, "val", "skip")
    assert messages == [message]


def test_first_invalid_image_is_an_error_by_default(tmp_path):
    with pytest.raises(UserError, match=r"train_01.png: no such image"):
        load_by_config(broken(tmp_path), "train", "stop")


def test_unknown_on_error_is_rejected(tmp_path):
    with pytest.raises(UserError, match=r"data.on_error = 'drop': give stop or skip"):
        load_by_config(tmp_path, "train", "drop")


def test_split_without_valid_images_is_an_error(tmp_path):
    source = source_files.coco(tmp_path, SPLITS)
    for file in (source / "images").glob("val*"):
        file.write_bytes(b"")
    with pytest.raises(UserError, match=r"instances_val.json: split 'val' has no valid images"):
        load_by_config(source, "val", "skip")


@pytest.mark.parametrize("layout", ["coco", "voc", "yolo"])
def test_valid_is_an_alias_of_val_if_only_one_exists(layout, tmp_path):
    folder = getattr(source_files, layout)(tmp_path, {"train": 4, "val": 3, "valid": 2})
    assert [len(load_detection(folder, name).names) for name in ("val", "valid")] == [3, 2]
    folder = getattr(source_files, layout)(tmp_path / "b", {"train": 4, "valid": 2})
    assert [len(load_detection(folder, name).names) for name in ("val", "valid")] == [2, 2]


@pytest.mark.parametrize("invalid", ["image", "box"])
def test_first_error_does_not_wait_for_all_images(invalid, tmp_path, monkeypatch):
    source = source_files.coco(tmp_path, {"train": 2})
    file = source / "annotations" / "instances_train.json"
    document = json.loads(file.read_text())
    for i in range(100, 1100):
        document["images"].append({"id": i, "file_name": f"train_{i}.png"})
        (source / "images" / f"train_{i}.png").hardlink_to(source / "images" / "train_01.png")
    if invalid == "image":
        (source / "images" / "train_00.png").write_bytes(b"no image")
    else:
        document["annotations"][0]["bbox"] = [1, 1, 0, 5]
    file.write_text(json.dumps(document))
    reads = []
    read = images.read_image
    monkeypatch.setattr(images, "read_image", lambda *args: reads.append(args) or read(*args))
    with pytest.raises(UserError, match=r"not a readable image|is empty"):
        load_detection(source, "train")
    assert 1 <= len(reads) <= 2 * prefetch.MAX_AHEAD


@pytest.mark.parametrize("layout", ["coco", "voc", "yolo"])
@pytest.mark.parametrize("location", ["in a zip", "in a folder", "in a folder of a zip"])
def test_zip_within_the_source_is_an_error(location, layout, tmp_path):
    (tmp_path / "outer").mkdir()
    inner = getattr(source_files, layout)(tmp_path / "set", SPLITS)
    inner = source_files.zip_folder(inner, tmp_path / "outer" / "inner.zip")
    source = tmp_path / "outer"
    if "of a zip" in location or location == "in a zip":
        source = tmp_path / "outer.zip"
        with zipfile.ZipFile(source, "w") as file:
            file.write(inner, "inner.zip" if location == "in a zip" else "deeper/inner.zip")
    message = r"inner.zip: a zip within .*outer.*; give the inner zip as the source"
    with pytest.raises(UserError, match=message):
        load_detection(source, "train")


@pytest.fixture
def flights(tmp_path):
    """A set whose images, except the last, have fields for time and altitude."""
    source = source_files.coco(tmp_path / "flights", {"train": 6})
    file = source / "annotations" / "instances_train.json"
    document = json.loads(file.read_text())
    fields = [("day", 60), ("night", 80), ("day", 81), ("night", 60), ("night", 130)]
    rows = sorted(document["images"], key=lambda info: info["file_name"])
    for info, (time, height) in zip(rows, fields, strict=False):
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
def test_where_selects_images(where, expected, flights):
    full = load_detection(flights, "train", source_files.CLASSES)
    selected = load_detection(flights, "train", source_files.CLASSES, where=where)
    assert selected.names == tuple(full.names[i] for i in expected)
    assert (selected.inputs["image"] == full.inputs["image"][expected]).all()
    assert [info["file_name"] for info in selected.truth["images"]] == [*selected.names]


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"time": "night"}, r"no image has a field 'time'; did you mean 'time_of_day'\? known: "),
        ({"time_of_day": "dusk"}, "no image has time_of_day = 'dusk'"),
        (
            {"altitude_m": (60, 70, 80)},
            r"altitude_m = \(60, 70, 80\): give a value, or \(low, high",
        ),
        ({"altitude_m": None}, "altitude_m = None: give a value"),
        ({"altitude_m": (81, 60)}, "low must be less than high"),
        ("night", "where = 'night': give a dict"),
    ],
)
def test_invalid_where_is_an_error(where, words, flights):
    with pytest.raises(UserError, match=words):
        load_detection(flights, "train", source_files.CLASSES, where=where)


def turned(folder, layout, orientation):
    """A set whose first image is stored turned, with labels for the stored pixels."""
    source = getattr(source_files, layout)(folder, {"train": 2})
    (file,) = source.rglob("train_00.png")
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(file).save(file, exif=exif)
    return source


@pytest.mark.parametrize("layout", ["coco", "voc"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_labels_of_unturned_pixels_are_reported_with_the_exif_tag(orientation, layout, tmp_path):
    source = turned(tmp_path, layout, orientation)
    message = (
        rf"train_00.png: EXIF orientation {orientation} turns the image to 96 x 64 .* unturned "
        r"pixels, 64 x 96: .*Remove the tag \(exiftool -Orientation= FILE\)"
    )
    with pytest.raises(UserError, match=message):
        load_detection(source, "train", size=(96, 96))
    problems = []
    load_detection(
        source, "train", size=(96, 96), on_error=lambda *problem: problems.append(problem)
    )
    assert [problem for problem, _ in problems] == ["size mismatch"]
    streamed = load_detection(source, "train", size=(96, 96), stream=True)
    with pytest.raises(UserError, match=message):
        streamed.inputs["image"].read(0)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4])
def test_orientations_that_keep_the_sides_have_no_size_mismatch(orientation, tmp_path):
    source = turned(tmp_path, "coco", orientation)
    assert load_detection(source, "train").inputs["image"].shape == (2, 64, 96, 1)


@pytest.mark.parametrize("layout", ["coco", "voc"])
def test_other_size_mismatches_do_not_mention_exif(layout, tmp_path):
    source = getattr(source_files, layout)(tmp_path, {"train": 2})
    (file,) = source.rglob("train_00.png")
    Image.open(file).transpose(Image.Transpose.ROTATE_90).save(file)
    message = "the image is 96 x 64 .* but 64 x 96 in its label file; its boxes would not fit"
    with pytest.raises(UserError, match=message):
        load_detection(source, "train", size=(96, 96))
