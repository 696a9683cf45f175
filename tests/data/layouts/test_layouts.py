"""COCO, VOC, YOLO and ArrayRecord: the same set in each gives the same arrays."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.data.layouts import source_files
from tests.data.layouts.source_files import same
from tinyjax.data.detection import layout_of, load
from tinyjax.data.images import opened
from tinyjax.data.layouts import arrayrecord, yolo
from tinyjax.data.layouts.listing import refuse
from tinyjax.errors import UserError

SPLITS = {"train": 5, "val": 3}
WRITERS = {
    "coco": source_files.coco,
    "roboflow coco": source_files.roboflow_coco,
    "voc": source_files.voc,
    "flat voc": source_files.flat_voc,
    "yolo": source_files.yolo,
    "roboflow yolo": source_files.roboflow_yolo,
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = source_files.coco(tmp_path_factory.mktemp("reference"), SPLITS)
    return {name: load(folder, name, source_files.CLASSES) for name in SPLITS}


def test_the_reference_is_what_was_drawn(expected):
    expected = expected["train"]
    for i, (name, image, objects) in enumerate(source_files.scenes("train", 5)):
        assert expected.names[i] == name
        assert np.array_equal(expected.images[i, ..., 0], image)
        assert expected.boxes[i, : len(objects)].tolist() == [box for _, box in objects]
        assert [expected.classes[k] for k in expected.labels[i, : len(objects)]] == [
            category for category, _ in objects
        ]
        assert expected.valid[i].sum() == len(objects)


@pytest.mark.parametrize("packed", ["folder", "zip", "nested zip"])
@pytest.mark.parametrize("layout", WRITERS)
def test_every_layout_gives_the_same_arrays(layout, packed, tmp_path, expected):
    source = WRITERS[layout](tmp_path / "set", SPLITS)
    if packed != "folder":
        inside = "VOCdevkit/VOC2012/" if packed == "nested zip" else ""
        source = source_files.zipped(source, tmp_path / "set.zip", inside)
    own = {"first_pixel": 0} if layout == "flat voc" else {}
    for name in SPLITS:  # where Roboflow has a folder "valid", that is "val"
        same(load(source, name, source_files.CLASSES, **own), expected[name])


@pytest.mark.parametrize("layout", ["coco", "voc", "yolo"])
def test_prepared_once_it_is_still_the_same(layout, tmp_path, expected):
    source = WRITERS[layout](tmp_path / "set", SPLITS)
    with opened(source) as root:
        module = layout_of(root, "auto")
        listings = {name: module.listing(root, name, refuse) for name in SPLITS}
        arrayrecord.write(listings, tmp_path / "prepared")
    prepared = load(tmp_path / "prepared", "train", source_files.CLASSES)
    same(prepared, expected["train"])
    assert layout_of(tmp_path / "prepared", "auto").__name__.endswith("arrayrecord")
    assert arrayrecord.splits(tmp_path / "prepared") == ["train", "val"]


def test_prepared_keeps_what_is_dont_care_and_every_field(tmp_path):
    folder = source_files.coco(tmp_path / "set", SPLITS)
    file = folder / "annotations" / "instances_train.json"
    document = json.loads(file.read_text())
    document["categories"].append({"id": 9, "name": "blur", "ignore": 1})
    for image in document["images"]:
        image["altitude_m"] = 60
    first, second, third = document["annotations"][:3]
    first["category_id"], second["iscrowd"], third["area"] = 9, 1, 33.5
    file.write_text(json.dumps(document))
    listings = {"train": layout_of(folder, "coco").listing(folder, "train", refuse)}
    arrayrecord.write(listings, tmp_path / "prepared")
    before, after = (load(s, "train") for s in (folder, tmp_path / "prepared"))
    same(before, after)
    assert before.classes == ("person", "car")
    assert before.ignore.sum() == 2
    assert {image["altitude_m"] for image in after.truth["images"]} == {60}
    assert before.truth["images"] == after.truth["images"]


def test_prepared_keeps_which_categories_are_groups_of_others(tmp_path):
    folder = source_files.coco(tmp_path / "set", {"train": 3})
    file = folder / "annotations" / "instances_train.json"
    document = json.loads(file.read_text())
    document["categories"] += [
        {"id": 0, "name": "all"},
        {"id": 5, "name": "x", "supercategory": "all"},
    ]
    file.write_text(json.dumps(document))
    listings = {"train": layout_of(folder, "coco").listing(folder, "train", refuse)}
    arrayrecord.write(listings, tmp_path / "prepared")
    for source in (folder, tmp_path / "prepared"):
        assert load(source, "train").classes == ("person", "car", "x")
        assert load(source, "train", ("all", "car")).classes == ("all", "car")


def test_voc_difficult_is_dont_care_and_corners_count_from_one(tmp_path):
    image = np.zeros((source_files.HEIGHT, source_files.WIDTH), np.uint8)
    source_files.save(tmp_path / "train" / "a.jpg.png", source_files.png(image))
    hard = (
        "<object><name>car</name><difficult>1</difficult><bndbox><xmin>11</xmin><ymin>12</ymin>"
        "<xmax>20</xmax><ymax>30</ymax></bndbox></object>"
    )
    xml = source_files.voc_xml("a.jpg.png", [("car", [4, 5, 10, 20])], 1, hard)
    source_files.save(tmp_path / "train" / "a.jpg.xml", xml)
    split = load(tmp_path, "train")
    assert split.boxes[0, :2].tolist() == [[4, 5, 10, 20], [10, 11, 20, 30]]
    assert split.valid[0, :2].tolist() == [True, False]
    assert split.ignore[0, :2].tolist() == [False, True]


def test_yolo_polygons_become_their_boxes(tmp_path):
    folder = source_files.yolo(tmp_path, SPLITS)
    label = folder / "labels" / "train" / "train_00.txt"
    label.write_text("1 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75\n")
    split = load(folder, "train")
    assert split.boxes[0, 0].tolist() == [24, 16, 72, 48]
    assert split.labels[0, 0] == 1


def test_mixed_sizes_are_fitted_by_either_rule(tmp_path):
    folder = source_files.coco(tmp_path, SPLITS)
    file = folder / "annotations" / "instances_train.json"
    document = json.loads(file.read_text())
    small = next(i for i in document["images"] if i["file_name"] == "train_00.png")
    small["width"], small["height"] = 48, 64
    document["annotations"] = [
        {"id": 1, "image_id": small["id"], "category_id": 1, "bbox": [12, 16, 6, 8]}
    ]
    file.write_text(json.dumps(document))
    Image.new("L", (48, 64)).save(folder / "images" / "train_00.png")
    with pytest.raises(UserError, match=r"images of 2 sizes, from \(64, 48\)"):
        load(folder, "train")
    boxed = load(folder, "train", size=(64, 96))
    stretched = load(folder, "train", size=(64, 96), fit="resize")
    assert boxed.boxes[0, 0].tolist() == [36, 16, 42, 24]  # 24 columns of gray on either side
    assert stretched.boxes[0, 0].tolist() == [24, 16, 36, 24]  # twice as wide
    for split in (boxed, stretched):
        assert split.truth["annotations"][0]["bbox"] == [12, 16, 6, 8]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_yolo_labels_may_stand_beside_the_images(suffix, packed, tmp_path):
    """Whatever sorts first, and with what Windows and a Mac leave behind."""
    folder = tmp_path / "set"
    source_files.save(folder / "classes.txt", "\ufeffperson\ncar\n")
    pixels = np.zeros((source_files.HEIGHT, source_files.WIDTH), np.uint8)
    for name in ("a", "b"):
        source_files.save(folder / "train" / f"{name}{suffix.upper()}", b"")
        Image.fromarray(pixels).save(folder / "train" / f"{name}{suffix.upper()}")
        source_files.save(folder / "train" / f"{name}.txt", "\ufeff1 0.5 0.5 0.25 0.25\n")
        source_files.save(folder / "train" / f"._{name}{suffix}", b"finder")
    source_files.save(folder / "docs" / "readme.txt", "no split")
    source = source_files.zipped(folder, tmp_path / "set.zip") if packed else folder
    split = load(source, "train")
    assert split.classes == ("person", "car")
    assert split.valid.sum(1).tolist() == [1, 1]
    assert split.labels[:, 0].tolist() == [1, 1]
    with opened(source) as root:
        assert yolo.splits(root) == ["train"]


def test_a_yaml_may_name_splits_that_are_not_there(tmp_path):
    folder = source_files.yolo(tmp_path, SPLITS)
    file = folder / "data.yaml"
    file.write_text(file.read_text() + "test:  # optional\nminival: images/none\n")
    assert yolo.splits(folder) == ["train", "val"]


def test_yolo_key_points_stand_behind_the_box(tmp_path):
    folder = source_files.yolo(tmp_path, SPLITS)
    file = folder / "data.yaml"
    file.write_text(file.read_text() + "kpt_shape: [2, 2]\n")
    label = folder / "labels" / "train" / "train_00.txt"
    label.write_text("0 0.5 0.5 0.25 0.25 0.1 0.1 0.9 0.9\n")
    assert load(folder, "train").boxes[0, 0].tolist() == [36, 24, 60, 40]


@pytest.mark.parametrize("layout", ["yolo", "coco"])
def test_a_photo_that_was_turned_is_read_as_it_is_shown(layout, tmp_path):
    """EXIF orientation 6: stored lying, shown standing. Prepared too."""
    folder = WRITERS[layout](tmp_path / "set", {"train": 3})
    place = next((tmp_path / "set" / "images").rglob("train_00.png"))
    stored = Image.fromarray(np.rot90(np.asarray(Image.open(place))))  # turned to the left
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it to the right to see it
    stored.save(place, exif=exif)
    assert Image.open(place).size == (source_files.HEIGHT, source_files.WIDTH)
    turned = load(folder, "train", source_files.CLASSES)
    same(
        turned,
        load(source_files.coco(tmp_path / "plain", {"train": 3}), "train", source_files.CLASSES),
    )
    listings = {"train": layout_of(folder, "auto").listing(folder, "train", refuse)}
    arrayrecord.write(listings, tmp_path / "prepared")
    same(load(tmp_path / "prepared", "train", source_files.CLASSES), turned)


def test_a_single_number_is_a_square(tmp_path):
    folder = source_files.coco(tmp_path, SPLITS)
    assert load(folder, "train", size=64).images.shape == (5, 64, 64, 1)


def test_voc_images_without_xml_are_background(tmp_path):
    folder = source_files.flat_voc(tmp_path, SPLITS)
    (folder / "train" / "train_04.xml").unlink()  # the one without objects
    split = load(folder, "train", first_pixel=0)
    assert split.valid.sum(1).tolist() == [1, 2, 3, 1, 0]
