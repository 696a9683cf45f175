"""Records of splits and the differences between them."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.layouts import recognition_sets, source_files
from tests.data.layouts.recognition_sets import load_recognition
from tests.data.loaders import load_classification, load_detection
from tinyjax.data import fingerprint
from tinyjax.data.fingerprint import class_difference, describe, difference

NAMES = st.lists(st.sampled_from([f"{k}.png" for k in range(8)]), max_size=12)


def record(names, labels=None, pixels=None):
    zeros = [0] * len(names)
    values = {"names": [*names], "labels": labels or zeros, "pixels": pixels or zeros}
    return {"images": len(names), **values}


@given(NAMES, NAMES)
def test_difference_counts_what_was_added_and_removed(before, now):
    message = difference(record(before), record(now))
    added, removed = Counter(now) - Counter(before), Counter(before) - Counter(now)
    assert (message == "") == (before == now)
    assert (f"{added.total()} added" in message) == bool(added)
    assert (f"{removed.total()} removed" in message) == bool(removed)
    if before != now and not added and not removed:
        assert message == "the same images in another order"


@pytest.mark.parametrize(
    ("current", "message"),
    [
        (record("abc"), ""),
        (record("abde"), "images: 2 added (d, e), 1 removed (c)"),
        (record("abcdefg"), "images: 4 added (d, e, f and 1 more)"),
        (record("bac"), "the same images in another order"),
        (record("abc", labels=[0, 7, 0]), "other labels in 1 of 3 images (b)"),
        (
            record("abc", [1, 0, 0], [0, 1, 1]),
            "other labels in 1 of 3 images (a), other pixels in 2 of 3 images (b, c)",
        ),
    ],
)
def test_difference_names_images(current, message):
    assert difference(record("abc"), current) == message


def test_records_of_many_images_hold_digests(tmp_path, monkeypatch):
    split = load_detection(source_files.yolo(tmp_path, {"train": 4}), "train")
    fewer = load_detection(tmp_path, "train", limit=3)
    monkeypatch.setattr(fingerprint, "MAX_LISTED", 2)
    recorded = describe(split)
    assert all(len(recorded[name]) == 64 for name in ("names", "labels", "pixels"))
    assert difference(recorded, describe(split)) == ""
    message = "other images or another order (4 images, now 3)"
    assert difference(recorded, describe(fewer)) == message
    other_labels = split._replace(boxes=split.boxes + 1)
    assert difference(recorded, describe(other_labels)) == "other labels"
    monkeypatch.setattr(fingerprint, "MAX_LISTED", 4)  # recorded in a version with another limit
    assert difference(recorded, describe(split)).startswith("other images")


def test_all_layouts_have_the_same_record(tmp_path):
    folders = [
        write(tmp_path / write.__name__, {"train": 4})
        for write in (source_files.coco, source_files.voc, source_files.yolo)
    ]
    zipped = source_files.zip_folder(folders[0], tmp_path / "coco.zip")
    records = [
        describe(load_detection(source, "train", classes=("person", "car")))
        for source in (*folders, zipped)
    ]
    assert all(difference(records[0], other) == "" for other in records)
    assert records[0]["images"] == 4
    assert records[0]["names"] == [f"train_{i:02d}.png" for i in range(4)]
    assert len({*records[0]["pixels"]}) == 4


def test_padding_rows_do_not_matter(tmp_path):
    """An image with many boxes adds padding rows to all other images."""
    split = load_detection(source_files.yolo(tmp_path, {"train": 4}), "train")
    before = describe(split)
    label_file = tmp_path / "labels" / "train" / "train_00.txt"
    label_file.write_text("\n".join([label_file.read_text()] * 9))
    crowded = load_detection(tmp_path, "train")
    assert crowded.boxes.shape[1] > split.boxes.shape[1]
    message = "other labels in 1 of 4 images (train_00.png)"
    assert difference(before, describe(crowded)) == message


@pytest.mark.parametrize("array", ["labels", "modality", "cameras", "captures"])
def test_arrays_of_recognition_belong_to_the_labels(tmp_path, array):
    recognition_sets.pairs(tmp_path, identities=4)
    split = load_recognition(tmp_path, "train", "pairs")
    is_input = array in split.inputs
    changed = (split.inputs[array] if is_input else getattr(split, array)).copy()
    changed[1] += 1
    fields = {"inputs": {**split.inputs, array: changed}} if is_input else {array: changed}
    message = f"other labels in 1 of {len(split.names)} images ({split.names[1]})"
    assert difference(describe(split), describe(split._replace(**fields))) == message
    assert difference(describe(split), describe(split)) == ""


def test_streamed_images_are_compared_by_the_sizes_of_their_files(tmp_path, noise_images):
    options = {"size": (64, 96), "stream": True}
    folder = source_files.yolo(tmp_path, {"train": 4})
    before = describe(load_detection(folder, "train", **options))
    image = folder / "images" / "train" / "train_01.png"
    assert before["pixels"][1] == image.stat().st_size
    image.write_bytes(image.read_bytes() + b"0")
    message = "other pixels in 1 of 4 images (train_01.png)"
    assert difference(before, describe(load_detection(folder, "train", **options))) == message
    images = load_classification(noise_images, "train", 32, stream=True)
    file = noise_images / "train" / "cat" / "0.png"
    assert describe(images)["pixels"][0] == file.stat().st_size


@pytest.mark.parametrize(
    ("before", "now", "message"),
    [
        (["a", "b"], ("a", "b"), ""),
        (["person", "car"], ["car", "person"], "were person, car and are now car, person"),
        (["a"], ["a", "b"], "were a and are now a, b"),
        (
            [*"abcdefghijkl"],
            [*"abcdefghijlk"],
            "have changed (12 classes, now 12; number 10, from 0, was k and is now l)",
        ),
        (
            [*"abcdefghijk"],
            [*"abcdefghijkl"],
            "have changed (11 classes, now 12; number 11, from 0, was none and is now l)",
        ),
    ],
)
def test_class_difference(before, now, message):
    assert class_difference(before, now) == message
