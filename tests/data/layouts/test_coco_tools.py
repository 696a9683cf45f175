"""COCO files as converters and labeling services write them."""

import copy
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.layouts import source_files
from tests.data.layouts.source_files import assert_same
from tests.data.loaders import load_detection
from tinyjax.data.layouts import coco
from tinyjax.data.records import select_images
from tinyjax.errors import UserError
from tinyjax.metrics.detection import score

SPLITS = {"train": 5, "val": 3}


def annotations_file(folder, split="train"):
    return folder / "annotations" / f"instances_{split}.json"


def edited(folder, change, split="train"):
    """A set whose json is changed in place by `change`."""
    source_files.coco(folder, SPLITS)
    file = annotations_file(folder, split)
    document = json.loads(file.read_text())
    change(document)
    file.write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = source_files.coco(tmp_path_factory.mktemp("reference"), SPLITS)
    return {name: load_detection(folder, name) for name in SPLITS}


def collected(source, split="train"):
    problems = []
    loaded = load_detection(source, split, on_error=lambda *problem: problems.append(problem))
    return loaded, problems


# ---- areas

BINS = {"<8": (0, 8), "8-16": (8, 16), ">=16": (16, np.inf)}


def set_areas(area):
    def change(document):
        for annotation in document["annotations"]:
            annotation["area"] = area

    return change


@pytest.mark.parametrize(
    "area", [0, 1, 1.0, "1", -5, "none", [], 96 * 64, 1e300, float("nan"), float("inf"), True]
)
def test_size_bins_go_by_the_box_if_an_area_cannot_be(area, tmp_path, expected):
    split = load_detection(edited(tmp_path, set_areas(area)), "train")
    assert_same(split, expected["train"])
    scores = [
        score(
            {"boxes": s.boxes, "scores": s.valid.astype(np.float32), "labels": s.labels},
            s.truth,
            BINS,
        )
        for s in (split, expected["train"])
    ]
    np.testing.assert_equal(*scores)
    count = split.valid.sum()
    (notice,) = split.notices
    assert notice.startswith(f"{count} of {count} boxes have an area of at most 1 or above")


@pytest.mark.parametrize("area", [None, 2, 33.5, "33.5", 72])
def test_possible_areas_are_kept(area, tmp_path):
    """The boxes of persons are 6 x 12 px, those of cars 20 x 10 px."""
    split = load_detection(edited(tmp_path, set_areas(area)), "train")
    areas = {annotation["area"] for annotation in split.truth["annotations"]}
    assert areas == ({72, 200} if area is None else {float(area)})
    assert split.notices == ()


def test_areas_of_rounded_boxes_are_kept(tmp_path):
    """COCO's boxes are rounded to 0.01 px: the area of a rectangle may be slightly larger."""

    def change(document):
        document["annotations"][0] |= {"bbox": [1, 1, 6.12, 4.33], "area": 26.53}

    split = load_detection(edited(tmp_path, change), "train")
    assert split.truth["annotations"][0]["area"] == 26.53
    assert split.notices == ()


# ---- files and splits


def keypoints(folder, at="annotations"):
    source_files.coco(folder, SPLITS)
    for name in SPLITS:
        target = folder / at / f"person_keypoints_{name}.json"
        annotations_file(folder, name).rename(target)
        for image, *_ in source_files.scenes(name, SPLITS[name]):
            (folder / "images" / name).mkdir(exist_ok=True)
            (folder / "images" / image).rename(folder / "images" / name / image)
    return folder


@pytest.mark.parametrize("at", ["annotations", "."])
@pytest.mark.parametrize("others", [(), ("captions", "stuff", "panoptic")])
def test_keypoint_files_are_splits(others, at, tmp_path, expected):
    folder = keypoints(tmp_path, at)
    document = json.loads((folder / at / "person_keypoints_train.json").read_text())
    for name in others:
        (folder / at / f"{name}_train.json").write_text(json.dumps(document))
    assert coco.list_splits(folder) == ["train", "val"]
    for name in SPLITS:
        assert_same(load_detection(folder, name), expected[name])
    assert_same(load_detection(folder, "person_keypoints_train"), expected["train"])


def test_instances_precede_keypoints(tmp_path, expected):
    folder = source_files.coco(tmp_path, SPLITS)
    for name in SPLITS:
        (folder / "annotations" / f"person_keypoints_{name}.json").write_text("{}")
    assert coco.list_splits(folder) == ["train", "val"]
    assert_same(load_detection(folder, "train"), expected["train"])


def test_file_without_boxes_is_no_split(tmp_path):
    """As panoptic_<split>.json, whose annotations have segments_info."""
    folder = source_files.coco(tmp_path, SPLITS)
    document = json.loads(annotations_file(folder).read_text())
    for annotation in document["annotations"]:
        annotation.pop("bbox")
    for name in SPLITS:
        annotations_file(folder, name).rename(folder / f"{name}.json")
    (folder / "panoptic_train.json").write_text(json.dumps(document))
    assert coco.list_splits(folder) == ["train", "val"]


def prefixed(*prefixes):
    """Prefixes of the file names, repeated in turn."""

    def change(document):
        for k, image in enumerate(document["images"]):
            image["file_name"] = prefixes[k % len(prefixes)] + image["file_name"]

    return change


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "prefixes",
    [
        ["images/"],
        ["./"],
        ["/home/me/set/images/"],
        ["D:\\data\\set\\images\\", "/content/set/images/"],
        ["../images/"],
        ["project/set/images/", "/mnt/a/", "/mnt/b/"],
    ],
)
def test_paths_of_another_machine(prefixes, packed, tmp_path, expected):
    source = edited(tmp_path / "set", prefixed(*prefixes))
    if packed:
        source = source_files.zip_folder(source, tmp_path / "set.zip")
    split, problems = collected(source)
    assert problems == []
    base_names = [name.rpartition("/")[2] for name in split.names]
    split = select_images(split, np.argsort(base_names))
    assert sorted(base_names) == [*expected["train"].names]
    assert_same(split._replace(names=expected["train"].names), expected["train"])
    assert not any(name.startswith(("/", "D:", "..")) for name in split.names)


def test_trailing_part_is_the_same_for_a_folder(tmp_path):
    """A missing image of a subfolder isn't replaced by one of the same name above it."""
    folder = edited(tmp_path, prefixed("/home/me/set/images/cam1/"))
    (folder / "images" / "cam1").mkdir()
    for name in ("train_01.png", "train_02.png", "train_03.png", "train_04.png"):
        (folder / "images" / name).rename(folder / "images" / "cam1" / name)
    split, problems = collected(folder)
    assert [problem for problem, _ in problems] == ["missing image"]
    assert split.names == tuple(f"images/cam1/train_{k:02d}.png" for k in (1, 2, 3, 4))


# ---- entries


@pytest.mark.parametrize("key", ["bbox", "id", "image_id", "category_id"])
@pytest.mark.parametrize("value", ["missing", None])
def test_annotation_without_a_field_is_one_problem(key, value, tmp_path, expected):
    def change(document):
        document["annotations"][1]["segmentation"] = [[1, 2, 3, 4, 5, 6]]
        if value is None:
            document["annotations"][1][key] = None
        else:
            document["annotations"][1].pop(key)

    source = edited(tmp_path, change)
    split, problems = collected(source)
    ((problem, message),) = problems
    assert problem == "bad entry of annotations"
    assert f"instances_train.json: an entry of 'annotations' has no '{key}'" in message
    assert split.valid.sum() == expected["train"].valid.sum() - 1
    with pytest.raises(UserError, match="an entry of 'annotations' has no"):
        load_detection(source, "train")


def test_file_listed_twice_is_reported_and_left_out(tmp_path, expected):
    def change(document):
        document["images"].append({**document["images"][0], "id": 99})
        document["annotations"].append({**document["annotations"][0], "id": 99, "image_id": 99})

    source = edited(tmp_path, change)
    with pytest.raises(UserError, match=r"images.train_04.png is listed 2 times, .* ids 11, 99;"):
        load_detection(source, "train")
    split, problems = collected(source)
    assert [problem for problem, _ in problems] == ["image listed twice"]
    assert split.names == expected["train"].names[:-1]


def test_numbers_as_text(tmp_path, expected):
    def change(document):
        for field in ("images", "annotations", "categories"):
            for row in document[field]:
                for key, value in row.items():
                    if isinstance(value, int):
                        row[key] = str(value)
        for annotation in document["annotations"]:
            annotation["bbox"] = [str(value) for value in annotation["bbox"]]
            annotation |= {"iscrowd": "0", "ignore": "false", "area": "72"}

    split = load_detection(edited(tmp_path, change), "train")
    assert_same(
        split._replace(truth={"annotations": []}),
        expected["train"]._replace(truth={"annotations": []}),
    )
    assert split.truth["images"] == expected["train"].truth["images"]


@pytest.mark.parametrize(("value", "ignored"), [("1", True), ("true", True), (True, True)])
def test_crowd_as_text(value, ignored, tmp_path):
    def change(document):
        document["annotations"][0]["iscrowd"] = value

    assert load_detection(edited(tmp_path, change), "train").ignore.any() == ignored


def test_box_as_one_text_is_no_box(tmp_path):
    """Not the four digits of it."""

    def change(document):
        document["annotations"][0]["bbox"] = "1234"

    _, ((problem, message),) = collected(edited(tmp_path, change))
    assert problem == "bad box"
    assert "annotation 0: bbox 1234; give four numbers" in message


# ---- any document

VALID = {
    "images": [
        {"id": 7, "file_name": "train_00.png", "width": 96, "height": 64},
        {"id": 8, "file_name": "train_01.png", "width": 96, "height": 64},
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "car"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1, "bbox": [1, 2, 10, 20], "area": 50},
        {"id": 2, "image_id": 7, "category_id": 2, "bbox": [30, 2, 11, 20], "iscrowd": 0},
        {"id": 3, "image_id": 8, "category_id": 1, "bbox": [5, 6, 12, 20], "ignore": 0},
    ],
}
TRUE_BOXES = {
    ("train_00.png", "person", (1.0, 2.0, 11.0, 22.0)),
    ("train_00.png", "car", (30.0, 2.0, 41.0, 22.0)),
    ("train_01.png", "person", (5.0, 6.0, 17.0, 26.0)),
}
SAME = {  # the value in another form
    "text": str,
    # True is garbage of an earlier change: as 1.0 it would be another id.
    "float": lambda value: float(value) if type(value) is int else value,
}
GARBAGE = [None, "x?", True, [3], {}, 0.5, "", [1, 2, 3, None], float("nan")]


@st.composite
def documents(draw):
    document = copy.deepcopy(VALID)
    for _ in range(draw(st.integers(1, 4))):
        field = draw(st.sampled_from(sorted(document)))
        row = draw(st.sampled_from(document[field]))
        if not row:
            continue
        key = draw(st.sampled_from(sorted(row)))
        action = draw(st.sampled_from(["drop", "garbage", *SAME]))
        if action == "drop":
            row.pop(key)
        elif action == "garbage" and key in ("name", "iscrowd", "ignore"):
            row[key] = None  # any text is a name
        elif action == "garbage":
            row[key] = draw(st.sampled_from(GARBAGE))
        elif isinstance(row[key], list):
            row[key] = [SAME[action](value) for value in row[key]]
        elif isinstance(row[key], int | str):
            row[key] = SAME[action](row[key])
    return document


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return source_files.coco(tmp_path_factory.mktemp("documents"), {"train": 3})


def read_boxes(split):
    return {
        (split.names[i], split.classes[split.labels[i, k]], tuple(split.boxes[i, k].tolist()))
        for i, k in zip(*np.nonzero(split.valid), strict=True)
    }


@settings(max_examples=150, deadline=None)
@given(document=documents())
def test_any_document_is_read_right_or_reported(scratch, document):
    annotations_file(scratch).write_text(json.dumps(document))
    try:
        split, problems = collected(scratch)
    except UserError:
        return
    boxes = read_boxes(split)
    assert boxes <= TRUE_BOXES
    assert problems or boxes == TRUE_BOXES
    assert not split.ignore.any()


@pytest.mark.parametrize("row", [3, None, "x", []])
@pytest.mark.parametrize("field", ["images", "annotations"])
def test_row_that_is_no_dict_is_one_problem(field, row, tmp_path, expected):
    source = edited(tmp_path, lambda document: document[field].append(row))
    split, problems = collected(source)
    assert [problem for problem, _ in problems] == [f"bad entry of {field}"]
    assert_same(split, expected["train"])


def test_zip_with_a_document_of_each_tool(tmp_path, expected):
    source = source_files.zip_folder(keypoints(tmp_path / "set"), tmp_path / "set.zip")
    assert coco.list_splits(zipfile.Path(source)) == ["train", "val"]
    assert_same(load_detection(source, "val"), expected["val"])


def test_images_in_the_folder_of_fiftyone(tmp_path, expected):
    folder = source_files.coco(tmp_path, SPLITS)
    (folder / "images").rename(folder / "data")
    for name, split in expected.items():
        assert_same(load_detection(folder, name), split)
