"""Anchors fitted to objects, and the reach of anchors, by hand and against brute force."""

import ast

import numpy as np
import pytest

from tinyjax.data.records import Objects, build_split
from tinyjax.detectors.anchor_fitting import assign_levels, fit_shapes, mean_iou
from tinyjax.detectors.anchor_reach import best_iou, class_reach, count_positives
from tinyjax.detectors.anchor_report import fit
from tinyjax.detectors.anchors import all_boxes, make_levels
from tinyjax.errors import UserError


def make_split(boxes_of_images, labels_of_images, classes=("person", "car", "bus"), size=(24, 32)):
    objects = [
        Objects(
            np.array(boxes, float).reshape(-1, 4),
            np.array(labels, int),
            *np.zeros((2, len(labels))),
        )
        for boxes, labels in zip(boxes_of_images, labels_of_images, strict=True)
    ]
    objects = [o._replace(ignore=o.ignore.astype(bool)) for o in objects]
    infos = [
        {"file_name": f"{i}.png", "height": size[0], "width": size[1]} for i in range(len(objects))
    ]
    images = np.zeros((len(objects), *size, 1), np.uint8)
    n = len(objects)
    return build_split(images, objects, infos, classes, np.ones((n, 2)), np.zeros((n, 2)))


def brute_force(boxes, anchors):
    """IoU [G, N]."""
    low = np.maximum(boxes[:, None, :2], anchors[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], anchors[None, :, 2:])
    intersection = np.maximum(high - low, 0).prod(-1)
    areas = [(b[:, 2:] - b[:, :2]).prod(-1) for b in (boxes, anchors)]
    return intersection / (areas[0][:, None] + areas[1] - intersection)


# ---- reach


def test_reach_by_hand():
    """One anchor of 4 x 4 at the center of each cell of 8 x 8: (2, 2, 6, 6), (10, 2, 14, 6), ..

    Persons: IoU 1; shifted by (2, 0): 8 / 24 = 1/3. Car: 4 x 8 around an anchor, 16 / 32 = 1/2.
    """
    split = make_split([[(2, 2, 6, 6), (12, 2, 16, 6)], [], [(18, 8, 22, 16)]], [[0, 0], [], [1]])
    rows = class_reach(split, make_levels((24, 32), (8,), (((4.0, 4.0, 1),),)), (0.5, 0.3))
    assert [row["class"] for row in rows] == ["all", "person", "car", "bus"]
    assert [row["objects"] for row in rows] == [3, 2, 1, 0]
    assert rows[0]["reach"] == pytest.approx((2 / 3, 1))
    assert rows[1]["reach"] == pytest.approx((0.5, 1))
    assert rows[2]["reach"] == (1, 1)
    assert np.isnan(rows[3]["reach"]).all()
    assert [row["positives"] for row in rows[:3]] == pytest.approx([2 / 3, 0.5, 1])


def test_a_positive_anchor_belongs_to_the_object_with_the_highest_iou():
    """The anchor (2, 2, 6, 6) has an IoU of 16 / 20 with the first object, 1 with the second."""
    boxes = np.array([(2, 2, 6, 7), (2, 2, 6, 6), (2, 2, 6, 6)], float)
    levels = make_levels((8, 8), (8,), (((4.0, 4.0, 1),),))
    images = np.array([0, 0, 1])
    np.testing.assert_array_equal(count_positives(boxes, images, levels, 0.5), [0, 1, 1])
    np.testing.assert_array_equal(count_positives(boxes[1:], images[:2], levels, 0.5), [1, 0])
    assert len(count_positives(boxes[:0], images[:0], levels, 0.5)) == 0


@pytest.mark.parametrize(
    ("strides", "anchors"),
    [
        ((4, 8), (((4.0, 7.0, 2), (9.0, 6.0, 1)), ((15.0, 18.0, 1), (40.0, 30.0, 3)))),
        ((4, 8, 16), ("torchvision",)),
        ((8, 16), ("detectron2",)),
    ],
)
@pytest.mark.parametrize("threshold", [0.5, 0.3])
def test_reach_equals_the_matrix_of_ious(strides, anchors, threshold):
    """Boxes at any position, also beyond the image, whose size is no multiple of the strides."""
    random = np.random.RandomState(0)
    size, images = np.array([50, 70]), np.sort(random.randint(0, 300, 200))
    center = random.uniform(-3, size[::-1] + 3, (200, 2))
    half = np.exp(random.uniform(0.5, 3, (200, 2)))
    boxes = np.concatenate([center - half, center + half], 1)
    levels = make_levels(tuple(size), strides, anchors)
    iou = brute_force(boxes, all_boxes(levels).astype(np.float64))
    np.testing.assert_allclose(best_iou(boxes, levels), iou.max(1), atol=1e-6)
    expected = np.zeros(200, int)
    for image in np.unique(images):
        rows = np.flatnonzero(images == image)
        best = iou[rows].argmax(0)[iou[rows].max(0) >= threshold]
        expected[rows] = np.bincount(best, minlength=len(rows))
    assert expected.sum() > 100
    np.testing.assert_array_equal(count_positives(boxes, images, levels, threshold), expected)


# ---- fitting


def test_shapes_are_medians_of_clusters():
    sizes = [(4, 8), (4, 9), (5, 9), (20, 10), (22, 10), (40, 11)]
    shapes = fit_shapes(np.array(sizes), 2)
    np.testing.assert_array_equal(shapes, [(4, 9), (22, 10)])
    # IoUs: 32/36, 1, 36/45, 200/220, 1, 220/440
    expected = (32 / 36 + 1 + 36 / 45 + 200 / 220 + 1 + 220 / 440) / 6
    assert mean_iou(np.array(sizes), shapes) == pytest.approx(expected)


def test_as_many_shapes_as_sizes_are_the_sizes():
    sizes = np.array([(4.0, 8), (30, 20), (8, 4), (4, 8), (100.0004, 3)])
    np.testing.assert_array_equal(fit_shapes(sizes, 4), [(4, 8), (8, 4), (100, 3), (30, 20)])
    with pytest.raises(UserError, match="5 anchors: the objects have 4 different sizes"):
        fit_shapes(sizes, 5)


def test_shapes_depend_on_the_seed_alone():
    sizes = np.random.RandomState(0).gamma(2, 8, (60, 2))
    np.testing.assert_array_equal(fit_shapes(sizes, 5, 1), fit_shapes(sizes, 5, 1))


@pytest.mark.parametrize(
    ("sizes", "strides", "expected"),
    [
        # 2.4 times the spacings 8, 4 and 2 is 19.2, 9.6 and 4.8
        ((3, 5, 9.5, 9.7, 19, 19.3), (4, 8), ((2, 2, 2, 1, 1), (1,))),
        ((30, 40), (4, 8), ((1,), (1,))),
        ((3, 4, 5), (4, 8, 16), ((2,), (1,), (1,))),
        ((5, 6, 50, 60), (4, 8, 16), ((2, 2), (1,), (1,))),
        ((5, 6, 7, 50), (4, 8, 16), ((2, 2), (1,), (1,))),
    ],
)
def test_levels_of_shapes(sizes, strides, expected):
    """Centers per axis, by level; no level is empty."""
    anchors = assign_levels(np.repeat(np.array(sizes)[:, None], 2, 1), strides)
    assert tuple(tuple(n for *_, n in level) for level in anchors) == expected
    assert [width for level in anchors for width, *_ in level] == list(sizes)


def test_small_shapes_have_as_many_centers_as_they_need():
    shapes = np.array([(1.0, 1), (3, 3), (4, 8)])
    ((*_, n1), (*_, n2), (*_, n3)), _ = assign_levels(np.array([*shapes, (40, 40)]), (4, 8), 5)
    assert (n1, n2, n3) == (5, 4, 2)  # 9.6 / size = 9.6, 3.2, 1.7


# ---- report


def test_report_has_a_value_of_the_config():
    random = np.random.RandomState(1)
    center = random.uniform(4, 20, (40, 2))
    half = random.uniform(2, 4, (40, 2))
    boxes = np.concatenate([center - half, center + half], 1)
    split = make_split([boxes[:20], boxes[20:]], [[0] * 20, [1] * 20])
    empty = make_split([[]], [[]])
    lines = fit({"train": split, "val": empty}, 3, (4, 8))
    options = dict(item.split("=") for item in lines[-1].split(" --config.model.")[1:])
    anchors = ast.literal_eval(options["anchors"].strip('"'))
    assert (options["strides"], len(anchors)) == ("4,8", 2)
    (row,) = (line for line in lines[2].splitlines() if line.startswith("train  fitted"))
    number = len(all_boxes(make_levels((24, 32), (4, 8), anchors)))
    assert row.split()[2:5] == [str(number), "all", "40"]
    with pytest.raises(UserError, match="split 'val', classes person, car, bus: no objects"):
        fit({"val": empty}, 3, (4, 8))
    with pytest.raises(UserError, match="1 anchors for 2 levels"):
        fit({"train": split}, 1, (4, 8))
