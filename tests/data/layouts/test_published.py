"""Published sets: protocol filters, known issues, and messages about missing files."""

import logging
import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.data.layouts import published_sets as tiny
from tests.data.layouts import source_files
from tests.data.loaders import load_detection
from tinyjax.data.layouts import listing, published, selection
from tinyjax.data.layouts.listing import Entry, Label, Listing
from tinyjax.errors import UserError


def test_llvip_boxes_without_area_are_dropped_and_logged_once(tmp_path, monkeypatch):
    message = []
    monkeypatch.setattr(logging.getLogger("tinyjax"), "warning", message.append)
    listing.warn_once.cache_clear()
    tiny.llvip(tmp_path)
    for _ in range(2):
        split = load_detection(tmp_path, "infrared/train", layout="llvip")
    assert split.valid.sum(1).tolist() == [2, 0, 2]
    assert message == ["LLVIP, infrared/train: 1 boxes without area left out"]


def test_images_without_boxes_are_kept_or_dropped(tmp_path):
    tiny.llvip(tmp_path)
    names = [
        load_detection(tmp_path, "visible/train", layout="llvip", empty=e).names
        for e in ("keep", "drop")
    ]
    assert names == [("010001.jpg", "010002.jpg", "010003.jpg"), ("010001.jpg", "010003.jpg")]


def test_min_area_drops_small_boxes(tmp_path):
    tiny.llvip(tmp_path)
    for area, count in ((3.9, 2), (4, 1)):  # the smaller box is 1 x 4
        split = load_detection(tmp_path, "visible/test", layout="llvip", min_area=area)
        assert split.valid.sum(1).tolist() == [count, count]


def test_min_height_drops_or_ignores_by_class(tmp_path):
    """The drawn objects are 15 px high; the filter is strict, as "> 50" in the protocol."""
    tiny.flir_aligned(tmp_path)
    load_val = partial(load_detection, tmp_path, "thermal/val", layout="flir_aligned")
    for limit, persons in ((14.9, 2), (15, 0)):
        split = load_val(min_height={"person": limit, "car": 10})
        assert (split.valid & (split.labels == 0)).sum() == persons
        assert (split.valid & (split.labels > 0)).sum() == 4
        assert split.ignore.sum() == 0
    split = load_val(min_height={"person": 15}, small="ignore")
    assert (split.valid.sum(), split.ignore.sum()) == (4, 2)
    assert (load_val().valid.sum(), load_val().ignore.sum()) == (6, 0)


def test_filters_of_relative_boxes_are_in_pixels(tmp_path):
    folder = source_files.yolo(tmp_path, {"train": 4})
    high = load_detection(folder, "train", min_height={"person": 11.9}).valid.sum()
    none = load_detection(
        folder, "train", min_height={"person": 12}, classes=("person",)
    ).valid.sum()
    assert (high, none) == (load_detection(folder, "train").valid.sum(), 0)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"empty": "leave"}, r"empty = 'leave': known: keep, drop"),
        ({"small": "dontcar"}, r"small = 'dontcar': known: drop, ignore"),
        ({"min_height": {"persn": 5}}, r"min_height: no category 'persn'; did you mean 'person'"),
    ],
)
def test_unknown_values_are_errors(more, message):
    listed = Listing(
        "a list", [Entry(Path("a"), {}, [Label("", "person", (0, 0, 1, 1))])], ("person",)
    )
    with pytest.raises(UserError, match=message):
        selection.apply_protocol(listed, **more)


# --- what is missing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "removed", "message"),
    [
        (
            "llvip",
            "LLVIP/infrared/train",
            "LLVIP: infrared/train does not exist; unpack LLVIP.zip so that "
            "LLVIP/infrared/train/*.jpg exists",
        ),
        ("llvip", "LLVIP/Annotations", "LLVIP/Annotations/*.xml exists"),
        ("llvip", "LLVIP/visible/test/190001.jpg", None),
        (
            "flir_aligned",
            "align/JPEGImages/FLIR_00002_RGB.jpg",
            "FLIR aligned: rgb/train: 1 of 2 labeled images are missing",
        ),
        (
            "flir_adas_v2",
            "FLIR_ADAS_v2/images_rgb_val/coco.json",
            "images_rgb_val/coco.json exists",
        ),
        (
            "flir_adas_v2",
            "FLIR_ADAS_v2/images_rgb_val/data",
            "FLIR ADAS v2: rgb/val: 2 of 2 labeled images are missing",
        ),
        ("coco2017", "coco/val2017", "COCO 2017: val2017: 3 of 3 labeled images are missing"),
        (
            "voc2007",
            "VOCdevkit/VOC2007/JPEGImages",
            "Pascal VOC 2007: JPEGImages does not exist; unpack VOCtrainval_06-Nov-2007.tar",
        ),
        ("domainnet", "domainnet/sketch", "domainnet/sketch/* exists"),
        (
            "domainnet",
            "domainnet/real/zigzag",
            "DomainNet: real_train: 2 of 4 labeled images are missing",
        ),
    ],
)
def test_missing_files_are_reported(name, removed, message, tmp_path):
    getattr(tiny, name)(tmp_path)
    place = tmp_path / removed
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    _, problems = published.inspect_files(tmp_path, name)
    if message is None:  # LLVIP's images are those of the folder: nothing names them
        assert problems == []
    else:
        assert any(message in text for text in problems), problems


@pytest.mark.parametrize(
    ("name", "removed", "split", "message"),
    [
        ("llvip", "LLVIP/infrared/train", "infrared/train", r"unpack LLVIP.zip so that LLVIP/infr"),
        (
            "llvip",
            "LLVIP",
            "infrared/train",
            r"no LLVIP in this folder; unpack LLVIP.zip so",
        ),
        ("llvip", "LLVIP/Annotations", "visible/test", r"LLVIP: Annotations does not exist"),
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
            r"no such image \(3 of 3 images in .*_val.js",
        ),
    ],
)
def test_loading_names_the_missing_files(name, removed, split, message, tmp_path):
    getattr(tiny, name)(tmp_path)
    place = tmp_path / removed
    if removed:
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    with pytest.raises(UserError, match=message):
        load_detection(tmp_path, split, layout=name)


@pytest.mark.parametrize(
    ("name", "file", "text", "split", "message"),
    [
        (
            "hit_uav",
            "HIT-UAV/normal_json/annotations/test.json",
            "{}",
            "test",
            "not a HIT-UAV label file",
        ),
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
def test_broken_file_is_an_error(name, file, text, split, message, tmp_path):
    getattr(tiny, name)(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=message):
        load_detection(tmp_path, split, layout=name)


@pytest.mark.parametrize(
    ("name", "split", "message"),
    [
        ("flir_adas_v2", "thermal/train", "thermal/train: 5 images, published unknown"),
        ("kaist", "lwir/mine", "lwir/mine: 5 images, published unknown"),
        ("llvip", "infrared/train", "infrared/train: 5 images, published 12,025"),
    ],
)
def test_counts_are_set_against_those_published_where_they_are_known(name, split, message):
    assert f"  {message}" in published.describe(name, {split: 5}, [])
