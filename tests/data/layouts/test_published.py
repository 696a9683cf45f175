"""Published sets: what of their faults and filters is left out, and what is said to be missing."""

import logging
import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.data.layouts import published_sets as tiny
from tests.data.layouts import source_files
from tinyjax.data.detection import load
from tinyjax.data.layouts import published
from tinyjax.data.layouts.listing import Entry, Label, Listing
from tinyjax.errors import UserError


def test_llvips_boxes_without_area_are_left_out_and_counted_once(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logging.getLogger("tinyjax"), "warning", said.append)
    published._say.cache_clear()
    tiny.llvip(tmp_path)
    for _ in range(2):
        split = load(tmp_path, "infrared/train", layout="llvip")
    assert split.valid.sum(1).tolist() == [2, 0, 2]
    assert said == ["LLVIP, infrared/train: 1 boxes without area left out"]


def test_images_without_a_box_stay_or_are_left_out(tmp_path):
    tiny.llvip(tmp_path)
    names = [
        load(tmp_path, "visible/train", layout="llvip", empty=e).names for e in ("keep", "drop")
    ]
    assert names == [("010001.jpg", "010002.jpg", "010003.jpg"), ("010001.jpg", "010003.jpg")]


def test_small_boxes_are_left_out_by_area(tmp_path):
    tiny.llvip(tmp_path)
    for area, count in ((3.9, 2), (4, 1)):  # the smaller box is 1 x 4
        split = load(tmp_path, "visible/test", layout="llvip", min_area=area)
        assert split.valid.sum(1).tolist() == [count, count]


def test_low_objects_are_left_out_or_dont_care_by_class(tmp_path):
    """FLIR's objects are 15 px high here; the filter asks for more, as the lab's "> 50" does."""
    tiny.flir_aligned(tmp_path)
    load_it = partial(load, tmp_path, "thermal/val", layout="flir_aligned")
    for limit, persons in ((14.9, 2), (15, 0)):
        split = load_it(min_height={"person": limit, "car": 10})
        assert (split.valid & (split.labels == 0)).sum() == persons
        assert (split.valid & (split.labels > 0)).sum() == 4
        assert split.ignore.sum() == 0
    split = load_it(min_height={"person": 15}, small="ignore_classes")
    assert (split.valid.sum(), split.ignore.sum()) == (4, 2)
    assert (load_it().valid.sum(), load_it().ignore.sum()) == (6, 0)


def test_filters_are_in_pixels_for_relative_boxes_too(tmp_path):
    folder = source_files.yolo(tmp_path, {"train": 4})
    high = load(folder, "train", min_height={"person": 11.9}).valid.sum()
    none = load(folder, "train", min_height={"person": 12}, classes=("person",)).valid.sum()
    assert (high, none) == (load(folder, "train").valid.sum(), 0)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"empty": "leave"}, r"empty = 'leave': known: keep, drop"),
        ({"small": "dontcar"}, r"small = 'dontcar': did you mean 'ignore_classes'"),
        ({"min_height": {"persn": 5}}, r"min_height: no category 'persn'; did you mean 'person'"),
    ],
)
def test_unknown_words_are_named(more, message):
    listed = Listing(
        "a list", [Entry(Path("a"), {}, [Label("", "person", (0, 0, 1, 1))])], ("person",)
    )
    with pytest.raises(UserError, match=message):
        published.mended(listed, **more)


# --- what is missing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gone", "message"),
    [
        (
            "llvip",
            "LLVIP/infrared/train",
            "LLVIP: infrared/train is not there; unpack LLVIP.zip so that "
            "LLVIP/infrared/train/*.jpg exists",
        ),
        ("llvip", "LLVIP/Annotations", "LLVIP/Annotations/*.xml exists"),
        ("llvip", "LLVIP/visible/test/190001.jpg", None),
        (
            "flir_aligned",
            "align/JPEGImages/FLIR_00002_RGB.jpg",
            "FLIR aligned: rgb/train: 1 of 2 images that its labels name are missing",
        ),
        (
            "flir_adas_v2",
            "FLIR_ADAS_v2/images_rgb_val/coco.json",
            "images_rgb_val/coco.json exists",
        ),
        (
            "flir_adas_v2",
            "FLIR_ADAS_v2/images_rgb_val/data",
            "FLIR ADAS v2: rgb/val: 2 of 2 images that its labels name are missing",
        ),
        ("coco2017", "coco/val2017", "COCO 2017: val2017: 3 of 3 images that its labels name"),
        (
            "voc2007",
            "VOCdevkit/VOC2007/JPEGImages",
            "Pascal VOC 2007: JPEGImages is not there; unpack VOCtrainval_06-Nov-2007.tar",
        ),
        ("domainnet", "domainnet/sketch", "domainnet/sketch/* exists"),
        (
            "domainnet",
            "domainnet/real/zigzag",
            "DomainNet: real_train: 2 of 4 images that its labels name are missing",
        ),
    ],
)
def test_what_is_taken_away_is_named(name, gone, message, tmp_path):
    getattr(tiny, name)(tmp_path)
    place = tmp_path / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    _, found = published.looked(tmp_path, name)
    if message is None:  # LLVIP's images are those of the folder: nothing names them
        assert found == []
    else:
        assert any(message in text for text in found), found


@pytest.mark.parametrize(
    ("name", "gone", "split", "message"),
    [
        ("llvip", "LLVIP/infrared/train", "infrared/train", r"unpack LLVIP.zip so that LLVIP/infr"),
        ("llvip", "LLVIP", "infrared/train", r"no LLVIP here; unpack LLVIP.zip so that LLVIP/"),
        ("llvip", "LLVIP/Annotations", "visible/test", r"LLVIP: Annotations is not there"),
        ("llvip", "LLVIP/Annotations/190001.xml", "visible/test", r"190001.xml: no such file"),
        ("llvip", "", "ir/train", r"no images of a split 'ir/train'; .*known: infrared/test"),
        (
            "flir_adas_v1",
            "",
            "rgb/train",
            r"FLIR ADAS v1: rgb/train: its RGB images have no labels",
        ),
        ("comic2k", "", "extra", r"Comic2k: extra: its boxes are placeholders"),
        ("kaist", "", "lwir/train-all-20", r"did you mean 'lwir/train-all-02'"),
        (
            "kaist",
            "kaist-rgbt/images/set06",
            "lwir/test-all-20",
            r"I00019.jpg: no such image \(1 of 2",
        ),
        (
            "hit_uav",
            "HIT-UAV/normal_json/val",
            "val",
            r"no such image \(3 of 3 images that .*_val.js",
        ),
    ],
)
def test_loading_fails_with_what_is_missing(name, gone, split, message, tmp_path):
    getattr(tiny, name)(tmp_path)
    place = tmp_path / gone
    if gone:
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(UserError, match=message):
        load(tmp_path, split, layout=name)


@pytest.mark.parametrize(
    ("name", "file", "text", "split", "message"),
    [
        ("hit_uav", "HIT-UAV/normal_json/annotations/test.json", "{}", "test", "not HIT-UAV's"),
        (
            "flir_adas_v1",
            "FLIR_ADAS_1_3/val/thermal_annotations.json",
            "[]",
            "thermal/val",
            "not COCO",
        ),
        (
            "kaist",
            "kaist-rgbt/annotations-xml-new-sanitized/set00/V000/I00000.xml",
            "<annotation><object><bndbox><x>1</x></bndbox></object></annotation>",
            "lwir/train-all-02",
            "I00000.xml: object 1: <bndbox>",
        ),
        (
            "kaist",
            "kaist-rgbt/imageSets/train-all-02.txt",
            "I00000",
            "lwir/train-all-02",
            "'I00000'; give",
        ),
        ("llvip", "LLVIP/Annotations/190002.xml", "", "visible/test", "190002.xml: not XML"),
    ],
)
def test_a_broken_file_is_an_error_that_names_it(name, file, text, split, message, tmp_path):
    getattr(tiny, name)(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=message):
        load(tmp_path, split, layout=name)


@pytest.mark.parametrize(
    ("name", "split", "said"),
    [
        ("flir_adas_v2", "thermal/train", "thermal/train: 5 images, published unknown"),
        ("kaist", "lwir/mine", "lwir/mine: 5 images, published unknown"),
        ("llvip", "infrared/train", "infrared/train: 5 images, published 12,025"),
    ],
)
def test_counts_are_set_against_those_published_where_they_are_known(name, split, said):
    assert f"  {said}" in published.report(name, {split: 5}, [])
