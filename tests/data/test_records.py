"""Padding, the COCO dict for scoring (checked with pycocotools), and selections."""

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tinyjax.data.records import Objects, build_split, select_images
from tinyjax.errors import UserError

CLASSES = ("person", "car")


def objects(*rows):
    """rows: (box, label, ignore)."""
    boxes = np.array([row[0] for row in rows], float).reshape(-1, 4)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    labels = np.array([row[1] for row in rows], np.int32)
    return Objects(boxes, labels, np.array([row[2] for row in rows], bool), area)


@pytest.fixture
def split():
    """Three images of 60 x 80, halved for the network and shifted 4 px to the right."""
    rows = [
        objects(((10, 10, 20, 30), 1, False), ((40, 5, 70, 50), 1, True), ((2, 2, 9, 9), 0, False)),
        objects(),
        objects(((5.5, 6.25, 11, 20), 0, False)),
    ]
    infos = [
        {
            "id": 70 + i,
            "file_name": f"{i}.jpg",
            "height": 60,
            "width": 80,
            "time_of_day": ("day", "night", "day")[i],
        }
        for i in range(3)
    ]
    images = [np.full((30, 48, 1), i, np.uint8) for i in range(3)]
    return build_split(
        images, rows, infos, CLASSES, np.full((3, 2), 0.5), np.full((3, 2), (4.0, 0.0))
    )


def score(truth, detections):
    """AP, IoU .50:.95. detections: (image id, category id, xyxy)."""
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    rows = [
        {
            "image_id": i,
            "category_id": c,
            "score": 0.9 - 0.01 * k,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
        }
        for k, (i, c, (x1, y1, x2, y2)) in enumerate(detections)
    ]
    run = COCOeval(coco, coco.loadRes(rows), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run.stats[0]


def test_arrays_are_padded_and_in_network_pixels(split):
    assert split.inputs["image"].shape == (3, 30, 48, 1)
    assert split.inputs["image"].dtype == np.uint8
    assert split.boxes.shape == (3, 8, 4)
    assert split.boxes.dtype == np.float32
    assert split.labels.dtype == np.int32
    assert split.valid.dtype == split.ignore.dtype == bool
    np.testing.assert_array_equal(
        split.boxes[0, :3], [[9, 5, 14, 15], [24, 2.5, 39, 25], [5, 1, 8.5, 4.5]]
    )
    assert split.labels[0].tolist() == [1, 0, 0, 0, 0, 0, 0, 0]
    assert split.valid[0].tolist() == [True, False, True] + 5 * [False]
    assert split.ignore[0].tolist() == [False, True, False] + 5 * [False]
    rest = ~(split.valid | split.ignore)
    assert not split.boxes[rest].any()
    assert not split.labels[rest].any()
    assert rest[1].all()
    assert split.names == ("0.jpg", "1.jpg", "2.jpg")
    assert split.classes == CLASSES


@pytest.mark.parametrize(("count", "slots"), [(0, 8), (8, 8), (9, 16), (39, 40)])
def test_slots_are_the_next_multiple_of_eight(count, slots):
    rows = objects(*[((0, 0, 1 + i, 1), 0, False) for i in range(count)])
    info = {"file_name": "a", "height": 60, "width": 80}
    geometry = np.ones((1, 2)), np.zeros((1, 2))
    split = build_split([np.zeros((60, 80, 1), np.uint8)], [rows], [info], CLASSES, *geometry)
    assert split.boxes.shape == (1, slots, 4)
    assert split.valid.sum() == count


def test_too_few_slots_are_an_error():
    rows = objects(*[((0, 0, 1, 1), 0, False)] * 5)
    with pytest.raises(UserError, match="slots = 4: an image has 5 boxes"):
        build_split(
            [np.zeros((4, 4, 1), np.uint8)],
            [rows],
            [{"file_name": "a"}],
            CLASSES,
            np.ones((1, 2)),
            np.zeros((1, 2)),
            slots=4,
        )


def test_truth_is_in_file_pixels_with_valid_coco_ids(split):
    truth = split.truth
    assert [(m["id"], m["source_id"], m["time_of_day"]) for m in truth["images"]] == [
        (0, 70, "day"),
        (1, 71, "night"),
        (2, 72, "day"),
    ]
    assert truth["categories"] == [{"id": 1, "name": "person"}, {"id": 2, "name": "car"}]
    assert [a["id"] for a in truth["annotations"]] == [1, 2, 3, 4, 5]
    last = truth["annotations"][-1]
    assert last["bbox"] == [5.5, 6.25, 5.5, 13.75]
    assert last["area"] == 5.5 * 13.75
    crowd = [a for a in truth["annotations"] if a["iscrowd"]]
    assert [(a["image_id"], a["category_id"], a["ignore"]) for a in crowd] == [(0, 1, 1), (0, 2, 1)]
    assert all(a["bbox"] == [40, 5, 30, 45] for a in crowd)


def test_perfect_detections_score_one_and_ignored_regions_do_not_count(split):
    right = [(0, 2, (10, 10, 20, 30)), (0, 1, (2, 2, 9, 9)), (2, 1, (5.5, 6.25, 11, 20))]
    assert score(split.truth, right) == pytest.approx(1)
    inside = [(0, 1, (45, 10, 55, 30)), (0, 2, (50, 20, 60, 40))]
    assert score(split.truth, inside + right) == pytest.approx(1)
    elsewhere = [(1, 1, (45, 10, 55, 30)), (1, 2, (50, 20, 60, 40))]
    assert score(split.truth, elsewhere + right) < 0.9


def test_selection_keeps_arrays_and_truth_consistent(split):
    day = [i for i, m in enumerate(split.truth["images"]) if m["time_of_day"] == "day"]
    selected = select_images(split, day[::-1])
    assert selected.names == ("2.jpg", "0.jpg")
    assert selected.inputs["image"][:, 0, 0, 0].tolist() == [2, 0]
    np.testing.assert_array_equal(selected.boxes, split.boxes[[2, 0]])
    assert [(m["id"], m["source_id"]) for m in selected.truth["images"]] == [(0, 72), (1, 70)]
    assert [(a["id"], a["image_id"], a["category_id"]) for a in selected.truth["annotations"]] == [
        (1, 0, 1),
        (2, 1, 2),
        (3, 1, 1),
        (4, 1, 2),
        (5, 1, 1),
    ]
    right = [(1, 2, (10, 10, 20, 30)), (1, 1, (2, 2, 9, 9)), (0, 1, (5.5, 6.25, 11, 20))]
    assert score(selected.truth, right) == pytest.approx(1)
    assert [m["id"] for m in split.truth["images"]] == [0, 1, 2]  # the input is not changed


def test_selection_may_repeat_images_and_rejects_unknown_indices(split):
    repeated = select_images(split, [2, 2])
    assert [a["image_id"] for a in repeated.truth["annotations"]] == [0, 1]
    for index in (3, -1):
        with pytest.raises(UserError, match=f"no image {index}; the split has 0..2"):
            select_images(split, [0, index])
