"""COCO, VOC, YOLO and ArrayRecord give the same arrays for the same set."""

import json
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from tests.data.layouts import source_files
from tests.data.layouts.source_files import WRITERS, assert_same
from tests.data.loaders import load_detection
from tinyjax.data.layouts import arrayrecord, yolo
from tinyjax.data.layouts.listing import raise_error
from tinyjax.data.layouts.recognition import find_layout
from tinyjax.data.sources import open_source
from tinyjax.errors import UserError

SPLITS = {"train": 5, "val": 3}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = source_files.coco(tmp_path_factory.mktemp("reference"), SPLITS)
    return {name: load_detection(folder, name, source_files.CLASSES) for name in SPLITS}


def test_coco_split_equals_the_drawn_scenes(expected):
    expected = expected["train"]
    for i, (name, image, objects) in enumerate(source_files.scenes("train", 5)):
        assert expected.names[i] == name
        assert np.array_equal(expected.inputs["image"][i, ..., 0], image)
        assert expected.boxes[i, : len(objects)].tolist() == [box for _, box in objects]
        assert [expected.classes[k] for k in expected.labels[i, : len(objects)]] == [
            category for category, _ in objects
        ]
        assert expected.valid[i].sum() == len(objects)


@pytest.mark.parametrize("packed", ["folder", "zip", "nested zip"])
@pytest.mark.parametrize("layout", WRITERS)
def test_all_layouts_give_the_same_arrays(layout, packed, tmp_path, expected):
    source = WRITERS[layout](tmp_path / "set", SPLITS)
    if packed != "folder":
        prefix = "VOCdevkit/VOC2012/" if packed == "nested zip" else ""
        source = source_files.zip_folder(source, tmp_path / "set.zip", prefix)
    options = {"first_pixel": 0} if layout == "flat voc" else {}
    for name in SPLITS:  # Roboflow's folder "valid" is "val"
        assert_same(load_detection(source, name, source_files.CLASSES, **options), expected[name])


@pytest.mark.parametrize("layout", ["coco", "voc", "yolo"])
def test_prepared_set_gives_the_same_arrays(layout, tmp_path, expected):
    source = WRITERS[layout](tmp_path / "set", SPLITS)
    with open_source(source) as root:
        module = find_layout(root, "auto")
        listings = {name: module.read_listing(root, name, raise_error) for name in SPLITS}
        arrayrecord.write(listings, tmp_path / "prepared")
    prepared = load_detection(tmp_path / "prepared", "train", source_files.CLASSES)
    assert_same(prepared, expected["train"])
    assert find_layout(tmp_path / "prepared", "auto").__name__.endswith("arrayrecord")
    assert arrayrecord.list_splits(tmp_path / "prepared") == ["train", "val"]


def test_prepared_set_keeps_ignored_regions_and_fields(tmp_path):
    folder = source_files.coco(tmp_path / "set", SPLITS)
    file = folder / "annotations" / "instances_train.json"
    document = json.loads(file.read_text())
    document["categories"].append({"id": 9, "name": "blur", "ignore": 1})
    for image in document["images"]:
        image["altitude_m"] = 60
    first, second, third = document["annotations"][:3]
    first["category_id"], second["iscrowd"], third["area"] = 9, 1, 33.5
    file.write_text(json.dumps(document))
    listings = {"train": find_layout(folder, "coco").read_listing(folder, "train", raise_error)}
    arrayrecord.write(listings, tmp_path / "prepared")
    before, after = (load_detection(s, "train") for s in (folder, tmp_path / "prepared"))
    assert_same(before, after)
    assert before.classes == ("person", "car")
    assert before.ignore.sum() == 2
    assert {image["altitude_m"] for image in after.truth["images"]} == {60}
    assert before.truth["images"] == after.truth["images"]


def test_prepared_set_keeps_category_groups(tmp_path):
    folder = source_files.coco(tmp_path / "set", {"train": 3})
    file = folder / "annotations" / "instances_train.json"
    document = json.loads(file.read_text())
    document["categories"] += [
        {"id": 0, "name": "all"},
        {"id": 5, "name": "x", "supercategory": "all"},
    ]
    file.write_text(json.dumps(document))
    listings = {"train": find_layout(folder, "coco").read_listing(folder, "train", raise_error)}
    arrayrecord.write(listings, tmp_path / "prepared")
    for source in (folder, tmp_path / "prepared"):
        assert load_detection(source, "train").classes == ("person", "car", "x")
        assert load_detection(source, "train", ("all", "car")).classes == ("all", "car")


def test_voc_difficult_is_ignored_and_corners_count_from_one(tmp_path):
    image = np.zeros((source_files.HEIGHT, source_files.WIDTH), np.uint8)
    source_files.save(tmp_path / "JPEGImages" / "a.jpg.png", source_files.png(image))
    source_files.save(tmp_path / "ImageSets" / "Main" / "train.txt", "a.jpg")
    difficult_object = (
        "<object><name>car</name><difficult>1</difficult><bndbox><xmin>11</xmin><ymin>12</ymin>"
        "<xmax>20</xmax><ymax>30</ymax></bndbox></object>"
    )
    xml = source_files.voc_xml("a.jpg.png", [("car", [4, 5, 10, 20])], 1, difficult_object)
    source_files.save(tmp_path / "Annotations" / "a.jpg.xml", xml)
    split = load_detection(tmp_path, "train")
    assert split.boxes[0, :2].tolist() == [[4, 5, 10, 20], [10, 11, 20, 30]]
    assert split.valid[0, :2].tolist() == [True, False]
    assert split.ignore[0, :2].tolist() == [False, True]


def test_yolo_polygons_become_their_boxes(tmp_path):
    folder = source_files.yolo(tmp_path, SPLITS)
    label = folder / "labels" / "train" / "train_00.txt"
    label.write_text("1 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75\n")
    split = load_detection(folder, "train")
    assert split.boxes[0, 0].tolist() == [24, 16, 72, 48]
    assert split.labels[0, 0] == 1


def test_mixed_sizes_are_letterboxed_or_resized(tmp_path):
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
        load_detection(folder, "train")
    boxed = load_detection(folder, "train", size=(64, 96))
    stretched = load_detection(folder, "train", size=(64, 96), fit="resize")
    assert boxed.boxes[0, 0].tolist() == [36, 16, 42, 24]  # 24 columns of gray on either side
    assert stretched.boxes[0, 0].tolist() == [24, 16, 36, 24]  # twice as wide
    for split in (boxed, stretched):
        assert split.truth["annotations"][0]["bbox"] == [12, 16, 6, 8]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_yolo_labels_in_the_image_folder(suffix, packed, tmp_path):
    """Labels sort before or after the images; byte order marks and Finder files are skipped."""
    folder = tmp_path / "set"
    source_files.save(folder / "classes.txt", "\ufeffperson\ncar\n")
    pixels = np.zeros((source_files.HEIGHT, source_files.WIDTH), np.uint8)
    for name in ("a", "b"):
        source_files.save(folder / "train" / f"{name}{suffix.upper()}", b"")
        Image.fromarray(pixels).save(folder / "train" / f"{name}{suffix.upper()}")
        source_files.save(folder / "train" / f"{name}.txt", "\ufeff1 0.5 0.5 0.25 0.25\n")
        source_files.save(folder / "train" / f"._{name}{suffix}", b"finder")
    source_files.save(folder / "docs" / "readme.txt", "no split")
    source = source_files.zip_folder(folder, tmp_path / "set.zip") if packed else folder
    split = load_detection(source, "train")
    assert split.classes == ("person", "car")
    assert split.valid.sum(1).tolist() == [1, 1]
    assert split.labels[:, 0].tolist() == [1, 1]
    with open_source(source) as root:
        assert yolo.list_splits(root) == ["train"]


def test_yaml_may_name_missing_splits(tmp_path):
    folder = source_files.yolo(tmp_path, SPLITS)
    file = folder / "data.yaml"
    file.write_text(file.read_text() + "test:  # optional\nminival: images/none\n")
    assert yolo.list_splits(folder) == ["train", "val"]


def test_yolo_keypoints_after_the_box_are_skipped(tmp_path):
    folder = source_files.yolo(tmp_path, SPLITS)
    file = folder / "data.yaml"
    file.write_text(file.read_text() + "kpt_shape: [2, 2]\n")
    label = folder / "labels" / "train" / "train_00.txt"
    label.write_text("0 0.5 0.5 0.25 0.25 0.1 0.1 0.9 0.9\n")
    assert load_detection(folder, "train").boxes[0, 0].tolist() == [36, 24, 60, 40]


@pytest.mark.parametrize("layout", ["yolo", "coco"])
def test_exif_orientation_is_applied(layout, tmp_path):
    """EXIF orientation 6 is applied on loading, also after conversion."""
    folder = WRITERS[layout](tmp_path / "set", {"train": 3})
    file = next((tmp_path / "set" / "images").rglob("train_00.png"))
    stored = Image.fromarray(np.rot90(np.asarray(Image.open(file))))  # rotated to the left
    exif = Image.Exif()
    exif[0x0112] = 6  # viewers rotate it to the right
    stored.save(file, exif=exif)
    assert Image.open(file).size == (source_files.HEIGHT, source_files.WIDTH)
    turned = load_detection(folder, "train", source_files.CLASSES)
    assert_same(
        turned,
        load_detection(
            source_files.coco(tmp_path / "plain", {"train": 3}), "train", source_files.CLASSES
        ),
    )
    listings = {"train": find_layout(folder, "auto").read_listing(folder, "train", raise_error)}
    arrayrecord.write(listings, tmp_path / "prepared")
    assert_same(load_detection(tmp_path / "prepared", "train", source_files.CLASSES), turned)


def test_single_number_size_is_a_square(tmp_path):
    folder = source_files.coco(tmp_path, SPLITS)
    assert load_detection(folder, "train", size=64).inputs["image"].shape == (5, 64, 64, 1)


def test_voc_images_without_xml_are_background(tmp_path):
    folder = source_files.flat_voc(tmp_path, SPLITS)
    (folder / "train" / "train_04.xml").unlink()  # the one without objects
    split = load_detection(folder, "train", first_pixel=0)
    assert split.valid.sum(1).tolist() == [1, 2, 3, 1, 0]


@pytest.mark.parametrize("suffix", [".png", ".txt", ".xml", ".json"])
@pytest.mark.parametrize("layout", WRITERS)
def test_names_in_decomposed_unicode_match(layout, suffix, tmp_path, expected):
    """macOS decomposes the names of files, while other systems and texts compose them."""
    folder = WRITERS[layout](tmp_path / "set", SPLITS)
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.suffix in (".txt", ".xml", ".json"):
            file.write_text(file.read_text().replace("train_00", "trän_00"))
        if "train_00" in file.name:
            form = "NFD" if file.suffix == suffix else "NFC"
            file.rename(file.with_name(normalize(form, file.name.replace("train_00", "trän_00"))))
    split = load_detection(folder, "train", source_files.CLASSES)
    by_image = dict(zip(split.names, split.boxes.tolist(), strict=True))
    (name,) = (n for n in by_image if "00" in n)
    assert by_image[name] == expected["train"].boxes[0].tolist()
    assert len(by_image) == SPLITS["train"]
