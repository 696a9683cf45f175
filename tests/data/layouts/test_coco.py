"""The COCO layout, on a tiny data set and on HIT-UAV."""

import io
import json
import zipfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from tests.data.loaders import load_detection
from tinyjax.data.records import background_counts
from tinyjax.errors import UserError


def image(path, height=40, width=60, value=100):
    buffer = io.BytesIO()
    Image.fromarray(np.full((height, width), value, np.uint8)).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue())


def document():
    def box(id, image, category, bbox, **more):
        return {"id": id, "image_id": image, "category_id": category, "bbox": bbox, **more}

    return {
        "categories": [
            {"id": 3, "name": "person"},
            {"id": 7, "name": "car"},
            {"id": 8, "name": "boat"},
            {"id": 9, "name": "blur"},
            {"id": 11, "name": "unclear", "ignore": 1},
        ],
        "images": [
            {"id": 50, "file_name": "a.png", "width": 60, "height": 40, "altitude_m": 60},
            {"id": 20, "file_name": "b.png", "width": 60, "height": 40, "altitude_m": 90},
            {"id": 30, "file_name": "c.png"},
        ],
        "annotations": [
            box(1, 20, 3, [1, 2, 3, 4]),
            box(2, 50, 7, [10, 10, 20, 8.5], area=99.0, iscrowd=0),
            box(3, 50, 8, [5, 5, 5, 5]),
            box(4, 50, 9, [30, 20, 10, 10]),
            box(5, 50, 11, [40, 1, 5, 5]),
            box(6, 20, 7, [11, 12, 6, 7], iscrowd=1),
            box(7, 20, 3, [21, 22, 6, 7], ignore=1),
            box(8, 20, 8, [31, 12, 6, 7], iscrowd=1),
            box(9, 50, 3, [-2, 35, 6, 9]),
        ],
    }


def write(folder, data=None):
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").mkdir()
    for i, name in enumerate("abc"):
        image(folder / "images" / f"{name}.png", value=100 + i)
    (folder / "annotations" / "instances_val.json").write_text(json.dumps(data or document()))
    return folder


def zipped(folder, target, prefix):
    with zipfile.ZipFile(target, "w") as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, prefix + path.relative_to(folder).as_posix())
    return target


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "set")


@pytest.fixture(params=["folder", "nested folder", "zip", "nested zip"])
def source(request, tmp_path):
    if request.param == "nested folder":
        write(tmp_path / "set" / "below")
        return tmp_path / "set"
    folder = write(tmp_path / "set")
    if request.param == "folder":
        return folder
    prefix = "set/" if request.param == "nested zip" else ""
    return zipped(folder, tmp_path / "set.zip", prefix)


def test_boxes_labels_and_order_from_all_sources(source):
    split = load_detection(source, "val", ("car", "person"))
    assert split.names == ("a.png", "b.png", "c.png")
    assert split.inputs["image"].shape == (3, 40, 60, 1)
    assert split.inputs["image"][:, 0, 0, 0].tolist() == [100, 101, 102]
    assert split.boxes.shape == (3, 8, 4)
    of_a = split.boxes[0][split.valid[0]]
    np.testing.assert_array_equal(of_a, [[10, 10, 30, 18.5], [-2, 35, 4, 44]])
    assert split.labels[0][split.valid[0]].tolist() == [0, 1]
    assert split.labels[1][split.valid[1]].tolist() == [1]
    assert not (split.valid | split.ignore)[2].any()
    assert split.classes == ("car", "person")
    assert split.truth["categories"] == [{"id": 1, "name": "car"}, {"id": 2, "name": "person"}]


def test_labels_follow_the_order_of_classes(folder):
    split = load_detection(folder, "val", ("person", "car"))
    assert split.labels[0][split.valid[0]].tolist() == [1, 0]
    assert [a["category_id"] for a in split.truth["annotations"] if not a["iscrowd"]] == [2, 1, 1]


def test_ignored_by_name_category_and_annotation(folder):
    split = load_detection(folder, "val", ("person", "car"), ignore_classes=("blur",))
    np.testing.assert_array_equal(
        split.boxes[0][split.ignore[0]], [[30, 20, 40, 30], [40, 1, 45, 6]]
    )
    np.testing.assert_array_equal(
        split.boxes[1][split.ignore[1]], [[11, 12, 17, 19], [21, 22, 27, 29]]
    )
    assert not (split.valid & split.ignore).any()
    assert not split.labels[split.ignore].any()
    crowd = Counter(
        (a["image_id"], a["category_id"]) for a in split.truth["annotations"] if a["iscrowd"]
    )
    assert crowd == {(0, 1): 2, (0, 2): 2, (1, 1): 2, (1, 2): 2}
    # a crowd of an unused category counts as background, too
    assert background_counts(split) == {"boat": 2}


def test_unused_categories_are_counted_as_background(folder):
    split = load_detection(folder, "val", ("person",))
    assert background_counts(split) == {"boat": 2, "blur": 1, "car": 2}
    assert [m["background"] for m in split.truth["images"]] == [
        {"car": 1, "boat": 1, "blur": 1},
        {"car": 1, "boat": 1},
        {},
    ]


def test_fields_of_the_source_and_its_areas_are_kept(folder):
    truth = load_detection(folder, "val", ("person", "car")).truth
    assert [m.get("altitude_m") for m in truth["images"]] == [60, 90, None]
    assert [m["source_id"] for m in truth["images"]] == [50, 20, 30]
    assert [(m["height"], m["width"]) for m in truth["images"]] == 3 * [(40, 60)]
    assert [a["area"] for a in truth["annotations"] if not a["iscrowd"]] == [99.0, 54.0, 12.0]


def test_letterbox_changes_images_and_boxes_but_not_the_truth(folder):
    image(folder / "images" / "c.png", 80, 30)
    split = load_detection(folder, "val", ("car",), size=(60, 60), channels=3)
    assert split.inputs["image"].shape == (3, 60, 60, 3)
    np.testing.assert_array_equal(split.boxes[0, 0], [10, 20, 30, 28.5])
    np.testing.assert_array_equal(split.offset, [[0, 10], [0, 10], [19, 0]])
    np.testing.assert_allclose(split.scale[2], [22 / 30, 60 / 80])
    assert split.truth["annotations"][0]["bbox"] == [10, 10, 20, 8.5]


def test_sixteen_bit_images_use_range16(folder):
    for name in "abc":
        deep = Image.fromarray(np.full((40, 60), 21000, np.uint16))
        deep.save(folder / "images" / f"{name}.png")
    split = load_detection(folder, "val", ("car",), range16=("range", 20000, 25000))
    assert np.unique(split.inputs["image"]).tolist() == [51]


def edited(change):
    data = document()
    change(data)
    return data


def wrong_files():
    def bbox(value):
        return lambda d: d["annotations"][0].update(bbox=value)

    return {
        "flat": (bbox([1, 2, 0, 4]), r"annotation 1: box x 1 to 1, y 2 to 6 is empty"),
        "nan": (bbox([1, 2, float("nan"), 4]), "annotation 1: box .* is not finite"),
        "outside": (bbox([60, 2, 3, 4]), r"annotation 1: .* outside its image of 60 x 40 px"),
        "three numbers": (bbox([1, 2, 3]), r"annotation 1: bbox .*give four numbers"),
        "no images": (lambda d: d.pop("images"), "not COCO: no list 'images'"),
        "empty": (lambda d: d.update(images=[], annotations=[]), "split 'val' has no images"),
        "no bbox": (lambda d: d["annotations"][0].pop("bbox"), "'annotations' has no 'bbox'"),
        "image": (
            lambda d: d["annotations"][0].update(image_id=4),
            "1: image_id 4 is not the id",
        ),
        "category": (
            lambda d: d["annotations"][0].update(category_id=4),
            "category_id 4; known: 3, 7",
        ),
        "ids": (lambda d: d["images"][0].update(id=20), "two images share an id"),
        "size": (
            lambda d: d["images"][0].update(width=64),
            r"a\.png: the image is 40 x 60 .* 40 x 64 in its label file",
        ),
        "missing": (
            lambda d: d["images"][0].update(file_name="z.png"),
            r"z\.png: no such image \(1 of 3",
        ),
    }


@pytest.mark.parametrize("case", wrong_files())
def test_invalid_files_are_errors(tmp_path, case):
    change, message = wrong_files()[case]
    folder = write(tmp_path / "set", edited(change))
    with pytest.raises(UserError, match=message):
        load_detection(folder, "val", ("person", "car"))


def test_other_mistakes_are_errors(folder, tmp_path):
    def fails(message, source=folder, split="val", classes=("person",), **more):
        with pytest.raises(UserError, match=message):
            load_detection(source, split, classes, **more)

    fails("nowhere: no such folder", source=tmp_path / "nowhere")
    fails(r"no images of a split 'vall'; did you mean 'val'\?", split="vall")
    # The images have 8 bits and are all invalid if an option is checked with each of them.
    fails(r"range16 = \('foo', 1, 2\): give", range16=("foo", 1, 2), on_error=lambda *_: None)
    fails(r"fit = 'crop': known: letterbox", fit="crop", on_error=lambda *_: None)
    fails(r"instances_val\.json: no category 'persn'; did you mean 'person'\?", classes=("persn",))
    fails("no category 'blurr'; did you mean 'blur'", ignore_classes=("blurr",))
    fails("'person' is named twice", classes=("person", "person"))
    fails("'person' is named twice", ignore_classes=("person",))
    fails("'unclear' is marked", classes=("unclear",))
    image(folder / "images" / "c.png", 80, 30)
    fails(r"images of 2 sizes, from \(40, 60\) to \(80, 30\).*give size")
    (folder / "annotations" / "instances_val.json").write_text("{")
    fails(r"instances_val\.json: not JSON")


def test_integer_valued_float_ids_are_accepted(tmp_path):
    def change(data):
        for row in (*data["images"], *data["categories"], *data["annotations"]):
            row.update({key: float(row[key]) for key in row if key.endswith("id")})

    folders = write(tmp_path / "a"), write(tmp_path / "b", edited(change))
    whole, floats = (load_detection(folder, "val", ("car", "person")) for folder in folders)
    assert whole.truth == floats.truth
    assert whole.truth["images"][0]["source_id"] == 50


ROBOFLOW = [  # categories of an export; 0 is the project's name
    {"id": 0, "name": "drones", "supercategory": "none"},
    {"id": 3, "name": "person", "supercategory": "drones"},
    {"id": 7, "name": "car", "supercategory": "drones"},
    {"id": 8, "name": "boat", "supercategory": "drones"},
]


def test_category_group_is_a_class_only_if_labeled(tmp_path):
    def change(data):
        data["categories"] = ROBOFLOW
        data["annotations"] = [a for a in data["annotations"] if a["category_id"] in (3, 7)]

    def used(data):
        change(data)
        data["annotations"][0]["category_id"] = 0

    def of_one_name(data):
        change(data)
        data["categories"] = [{**c} for c in ROBOFLOW]
        data["categories"][0]["name"] = data["categories"][1]["supercategory"] = "person"

    def classes(change):
        return load_detection(write(tmp_path / change.__name__, edited(change)), "val").classes

    assert classes(change) == ("person", "car", "boat")
    assert classes(used) == ("drones", "person", "car", "boat")
    assert set(classes(of_one_name)) == {"person", "car", "boat"}


HIT_UAV = {  # images, night, day, person, car, bicycle, other_vehicle, ignored
    "train": (1449, 1186, 263, 6128, 3316, 2884, 61, 124),
    "val": (270, 220, 50, 2138, 637, 560, 15, 2),
    "shift": (423, 148, 275, 2136, 864, 318, 3, 1),
}


@pytest.mark.parametrize("name", HIT_UAV)
def test_hit_uav_counts(data_root, name):
    file = data_root / "hit_uav_ir" / "hit_uav_ir.zip"
    split = load_detection(file, name, ("person", "car", "bicycle"))
    images, night, day, *counts, other, ignored = HIT_UAV[name]
    assert split.inputs["image"].shape == (images, 256, 320, 1)
    time = Counter(m["time_of_day"] for m in split.truth["images"])
    assert time == {"night": night, "day": day}
    assert np.bincount(split.labels[split.valid]).tolist() == counts
    assert background_counts(split) == {"other_vehicle": other}
    assert split.ignore.sum() == ignored
    assert len(split.truth["annotations"]) == sum(counts) + 3 * ignored
    prefix = split.boxes[split.valid | split.ignore]
    assert (prefix >= 0).all()
    assert (prefix <= (320, 256, 320, 256)).all()
    assert (prefix[:, 2:] > prefix[:, :2]).all()
    assert split.inputs["image"].std() > 20  # decoded images are not blank


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("val_night", {"time_of_day": "night"}),
        ("val_day", {"time_of_day": "day"}),
        ("val_alt60_80", {"altitude_m": (60, 81)}),
        ("val_alt100_130", {"altitude_m": (100, 131)}),
        ("val_angle30_50", {"camera_angle_deg": (30, 51)}),
        ("val_angle70_90", {"camera_angle_deg": (70, 91)}),
    ],
)
def test_where_selects_the_slices_of_hit_uav(data_root, name, where):
    """The slices that configs/studies/capacity.py trains on."""
    file = data_root / "hit_uav_ir" / "hit_uav_ir.zip"
    with zipfile.ZipFile(file) as archive:
        listed = json.loads(archive.read("annotations/splits.json"))[name]
    assert load_detection(file, "val", where=where).names == tuple(sorted(listed))
