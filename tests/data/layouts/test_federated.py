"""Federated labels in the COCO layout, on a miniature of LVIS v1."""

import json

import pytest

from tests.data.layouts import lvis_set
from tests.data.loaders import load_detection
from tinyjax.data.layouts import coco
from tinyjax.data.layouts.listing import raise_error
from tinyjax.data.layouts.recognition import find_layout
from tinyjax.data.layouts.selection import rename_categories
from tinyjax.data.records import select_images
from tinyjax.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return lvis_set.write(tmp_path_factory.mktemp("lvis"))


@pytest.fixture(scope="module")
def val(folder):
    return load_detection(folder, "val", channels=3)


def test_layout_and_splits_are_recognized(folder):
    assert find_layout(folder, "auto") is coco
    assert coco.list_splits(folder) == ["train", "val"]
    assert load_detection(folder / "annotations" / "lvis_v1_val.json", "train").names[0] == (
        "train2017/000000000001.jpg"
    )


def test_images_are_in_the_folders_of_their_urls(val):
    names = ("train2017/000000000011", "val2017/000000000002", "val2017/000000000012")
    assert val.names == tuple(f"{name}.jpg" for name in names)
    assert val.valid.sum(1).tolist() == [1, 2, 1]


def test_all_images_below_one_more_folder(tmp_path):
    folder = lvis_set.write(tmp_path)
    (folder / "images").mkdir()
    for name in ("train2017", "val2017"):
        (folder / name).rename(folder / "images" / name)
    assert len(load_detection(folder, "val").names) == 3


def test_truth_has_federated_labels_with_its_own_ids(val):
    assert val.classes == ("aardvark", "banana", "cart", "dagger")
    assert [c["frequency"] for c in val.truth["categories"]] == ["f", "c", "r", "r"]
    labels = [
        (image["source_id"], image["neg_category_ids"], image["not_exhaustive_category_ids"])
        for image in val.truth["images"]
    ]
    assert labels == [(11, [1, 4], [2]), (2, [2], []), (12, [], [])]


def test_ids_follow_the_order_of_the_selected_classes(folder):
    split = load_detection(folder, "val", ("cart", "banana"))
    images = split.truth["images"]
    assert [image["neg_category_ids"] for image in images] == [[], [2], []]
    assert images[0]["not_exhaustive_category_ids"] == [2]
    assert [c["frequency"] for c in split.truth["categories"]] == ["r", "c"]


def test_selected_images_keep_their_labels(val):
    images = select_images(val, [1, 0]).truth["images"]
    assert [image["neg_category_ids"] for image in images] == [[2], [1, 4]]


def test_renamed_categories(folder):
    listing = coco.read_listing(folder, "val", raise_error)
    renamed = rename_categories(listing, {"dagger": "weapon"})
    entry = next(entry for entry in renamed.entries if entry.info["id"] == 11)
    assert entry.info["neg_categories"] == ["aardvark", "weapon"]
    assert renamed.frequencies["weapon"] == "r"


def test_other_coco_files_have_no_federated_labels(tmp_path):
    file = lvis_set.write(tmp_path) / "annotations" / "lvis_v1_val.json"
    document = json.loads(file.read_text())
    for image in document["images"]:
        del image["neg_category_ids"], image["not_exhaustive_category_ids"]
    for category in document["categories"]:
        del category["frequency"]
    file.write_text(json.dumps(document))
    split = load_detection(tmp_path, "val")
    assert "neg_category_ids" not in split.truth["images"][0]
    assert split.truth["categories"][0] == {"id": 1, "name": "aardvark"}


@pytest.mark.parametrize("value", [[2, 99], 2, ["x"]])
def test_invalid_ids_are_reported(tmp_path, value):
    file = lvis_set.write(tmp_path) / "annotations" / "lvis_v1_val.json"
    document = json.loads(file.read_text())
    document["images"][0]["neg_category_ids"] = value
    file.write_text(json.dumps(document))
    with pytest.raises(UserError, match=r"lvis_v1_val.json: image 2: neg_category_ids"):
        load_detection(tmp_path, "val")
    problems = []
    split = load_detection(tmp_path, "val", on_error=lambda *problem: problems.append(problem))
    assert [problem for problem, _ in problems] == ["unknown category"]
    assert len(split.names) == 3
