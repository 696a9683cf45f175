"""Files of types that are not read are counted and named: no image is missing without a word."""

import logging

import numpy as np
import pytest
from PIL import Image

from tests.data.layouts import source_files
from tests.data.loaders import load_classification, load_detection
from tinyjax.data.layouts import listing
from tinyjax.errors import UserError
from tinyjax.predict import find_files

SPLITS = {"train": 4, "val": 2}
LAYOUTS = ("yolo", "roboflow_yolo", "voc", "flat_voc", "coco", "roboflow_coco")


@pytest.fixture
def warnings(caplog, monkeypatch):
    """The text of the warnings."""
    monkeypatch.setattr(logging.getLogger("tinyjax"), "propagate", True)
    listing.warn_once.cache_clear()
    caplog.set_level(logging.WARNING, logger="tinyjax")
    return lambda: caplog.text


def rename(root, suffix, stem=None):
    """Give all images, or those of a stem, another suffix."""
    files = [file for file in sorted(root.rglob("*.png")) if stem in (None, file.stem)]
    for file in files:
        file.rename(file.with_suffix(suffix))
    return files


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_image_that_is_missing_because_of_its_type_is_named(layout, stream, tmp_path):
    folder = getattr(source_files, layout)(tmp_path / "set", SPLITS)
    assert rename(folder, ".HEIC", "train_01")
    message = r"train_01.*no .*image.*; train_01\.HEIC is of a type that is not read, convert it"
    with pytest.raises(UserError, match=message):
        load_detection(folder, "train", stream=stream, size=(32, 32))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_set_without_images_that_are_read(layout, tmp_path):
    folder = getattr(source_files, layout)(tmp_path / "set", SPLITS)
    rename(folder, ".jp2")
    message = (
        r"6 files of a type that is not read \(\.jp2\)|_0\d\.jp2 is of a type that is not read"
    )
    with pytest.raises(UserError, match=message):
        load_detection(folder, "train")


@pytest.mark.parametrize("layout", ["yolo", "flat_voc"])
@pytest.mark.parametrize("packed", [False, True])
def test_unlabeled_files_are_counted(layout, packed, tmp_path, warnings):
    folder = getattr(source_files, layout)(tmp_path / "set", SPLITS)
    images = folder / ("images/train" if layout == "yolo" else "train")
    (images / "more.raw").mkdir()  # a folder is no file
    for name in ("a.heic", "b.HEIC", "c.npy", "notes.txt", "train_00.npy"):
        (images / name).write_bytes(b"-")  # train_00.npy is next to train_00.png
    if layout == "flat_voc":
        (images / "notes.txt").unlink()
    source = source_files.zip_folder(folder, tmp_path / "set.zip") if packed else folder
    assert len(load_detection(source, "train").names) == 4
    assert "3 files of a type that is not read (.heic, .npy); convert them to png" in warnings()


@pytest.mark.parametrize("suffix", [".jfif", ".JPE", ".gif", ".pgm", ".pnm", ".mpo"])
@pytest.mark.parametrize("layout", ["yolo", "voc", "flat_voc"])
def test_further_suffixes_are_read(layout, suffix, tmp_path):
    """The content of a file counts, not its suffix."""
    folder = getattr(source_files, layout)(tmp_path / "set", SPLITS)
    expected = load_detection(folder, "train")
    rename(folder, suffix)
    for file in folder.rglob("*.xml"):
        file.write_text(file.read_text().replace(".png", suffix))
    np.testing.assert_array_equal(
        load_detection(folder, "train").inputs["image"], expected.inputs["image"]
    )


@pytest.fixture
def classes(tmp_path):
    for split in SPLITS:
        for name in ("bird", "cat", "dog"):
            for k in range(2):
                file = tmp_path / split / name / f"{k}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.full((8, 8), 99, np.uint8)).save(file)
    return tmp_path


def test_class_without_images_that_are_read_is_an_error(classes, warnings):
    for split in SPLITS:
        rename(classes / split / "cat", ".avif")
    message = r"train.cat: only 2 files of a type that is not read \(\.avif\); convert them to png"
    with pytest.raises(UserError, match=message):
        load_classification(classes, "train", (8, 8))
    with pytest.raises(UserError, match=r"no class 'cat'|train.cat: only 2 files"):
        load_classification(classes, "train", (8, 8), classes=("cat", "dog"))
    split = load_classification(classes, "train", (8, 8), classes=("bird", "dog"))
    assert split.names == ("bird/0.png", "bird/1.png", "dog/0.png", "dog/1.png")
    assert not warnings()


def test_split_without_images_that_are_read_is_an_error(classes):
    rename(classes, ".heif")
    with pytest.raises(UserError, match=r"'train'.*It has 12 files of a type.*\(\.heif\)"):
        load_classification(classes, "train", (8, 8))


def test_some_images_of_a_class_are_counted(classes, warnings):
    rename(classes / "train", ".avif", "1")
    assert len(load_classification(classes, "train", (8, 8)).names) == 3
    for name in ("bird", "cat", "dog"):
        assert (
            f"{classes / 'train' / name}: 1 file of a type that is not read (.avif)" in warnings()
        )


def test_inputs_of_predict_are_counted(classes, warnings):
    folder = classes / "train" / "cat"
    (folder / "film.mp4").write_bytes(b"-")
    (folder / "0.npy").write_bytes(b"-")  # next to 0.png
    (folder / "x.heic").write_bytes(b"-")
    files = [folder / "0.png", folder / "1.png", folder / "film.mp4"]
    assert find_files([str(folder)]) == files
    assert f"--input {folder}: 1 file of a type that is not read (.heic)" in warnings()
    assert find_files([str(folder / "x.heic")]) == [folder / "x.heic"]  # an error when it is read
    with pytest.raises(UserError, match=r"no images match; 1 file of a type.*\(\.heic\)"):
        find_files([str(folder / "*.heic")])
    with pytest.raises(UserError, match=r"no images match; known formats: .*\.pgm"):
        find_files([str(folder / "*.pdf")])
