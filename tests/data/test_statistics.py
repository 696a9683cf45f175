"""What a look at the data finds: counted by hand on tiny sets, and HIT-UAV's leak."""

import json

import numpy as np
import pytest

from tests.data.layouts import source_files
from tinyjax.data import statistics
from tinyjax.data.detection import load
from tinyjax.data.records import Objects, Split, stack, subset


def split_of(images, boxes, classes=("person", "car")) -> Split:
    """One class-0 object per box; boxes is a list per image."""
    objects = [
        Objects(
            np.array(b, float).reshape(-1, 4),
            np.zeros(len(b), np.int32),
            np.zeros(len(b), bool),
            np.ones(len(b)),
        )
        for b in boxes
    ]
    h, w = images[0].shape
    infos = [{"file_name": f"{i}.png", "height": h, "width": w} for i in range(len(images))]
    pixels = [image[..., None] for image in images]
    return stack(
        pixels, objects, infos, classes, np.ones((len(images), 2)), np.zeros((len(images), 2))
    )


def noise(n, seed=0):
    return list(np.random.default_rng(seed).integers(0, 256, (n, 64, 80), np.uint8))


def test_counts():
    boxes = [[(1, 1, 5, 10), (1, 1, 5, 10)], [], [(-1, 2, 8, 6), (70, 60, 80, 64)]]
    seen = statistics.look(split_of(noise(3), boxes))
    assert (seen.images, seen.empty, seen.objects) == (3, 1, {"person": 4, "car": 0})
    assert seen.twice == ["0.png"]
    assert seen.overhang == ["2.png"]
    assert seen.sides["person"].tolist() == [6, 6, 6, pytest.approx(40**0.5)]
    (line,) = statistics.lines("val", seen)
    assert line == "val: 3 images, person 4, car 0; 1 without objects"


def test_warnings_name_what_the_finest_stride_cannot_see():
    seen = statistics.look(split_of(noise(2), [[(0, 0, 3, 3)], [(0, 0, 9, 9)]], ("person",)))
    (warning,) = statistics.warnings({"val": seen}, 4)
    assert warning.startswith("val: 50 % of the objects of class person are smaller than one cell")
    assert statistics.warnings({"val": seen}, 3) == []


def test_a_suite_may_be_called_training():
    training = split_of(noise(2), [[(0, 0, 9, 9)], [(0, 0, 9, 9)]], ("person",))
    suites = {
        "training": split_of(noise(1, 3), [[]], ("person",)),
        "val": split_of(noise(3, 5), [[]] * 3, ("person",)),
    }
    lines = statistics.brief(training, suites, 4)
    assert [line.split(",")[0] for line in lines[:3]] == [
        "training: 2 images",
        "training: 1 images",
        "val: 3 images",
    ]
    assert "  person                  9.0" in lines[4]
    assert lines[6:] == [
        "warning: training: no object of class person",
        "warning: val: no object of class person",
    ]
    lines = statistics.brief(training, suites, 10)
    assert lines[6].startswith("warning: training: 100 % of the objects of class person are small")


def test_dont_care_and_background_are_counted(tmp_path):
    folder = source_files.coco(tmp_path, {"train": 5})
    file = folder / "annotations" / "instances_train.json"
    document = json.loads(file.read_text())
    document["annotations"][0]["iscrowd"] = 1
    file.write_text(json.dumps(document))
    seen = statistics.look(load(folder, "train", ("person",)))
    people = sum(c == "person" for _, _, o in source_files.scenes("train", 5) for c, _ in o)
    cars = sum(c == "car" for _, _, o in source_files.scenes("train", 5) for c, _ in o)
    assert (seen.objects, seen.ignore_classes) == ({"person": people - 1}, 1)
    assert seen.background == {"car": cars}


def test_near_duplicates_are_found_through_noise_gain_and_offset():
    ours = noise(6)
    blocks = [np.kron(image[:8, :10], np.ones((8, 8), np.uint8)) for image in ours]
    dimmer = (0.5 * blocks[3] + 30 + np.random.default_rng(1).normal(0, 3, (64, 80))).astype(
        np.uint8
    )
    flat = np.full((64, 80), 99, np.uint8)
    training = split_of(blocks, [[]] * 6)
    other = split_of([dimmer, *noise(1, 7), flat], [[]] * 3)
    most = statistics.alike(other, training)
    assert most[0] > 0.99
    assert most[1] < 0.6
    assert abs(most[2]) < 1e-3
    (line,) = statistics.leaks({"train": training, "val": other})
    assert line.startswith("val: 1 of 3 images (33 %) have a near-duplicate in train")


@pytest.mark.parametrize(
    ("shapes", "size"),
    [
        ([(64, 96), (64, 96), (100, 200)], (64, 96)),
        ([(480, 640), (500, 660)], (480, 640)),  # 490 x 650, which is a little too long
        ([(3000, 4000)], (480, 640)),
        ([(5, 700)], (32, 640)),
    ],
)
def test_a_size_for_many_is_their_median_in_whole_cells(shapes, size):
    assert statistics.common_size(np.array(shapes)) == size


def test_hit_uav_official_split_leaks_and_ours_does_not(data_root):
    """The fact sheet: 28 % of the official test images have a near-duplicate in train."""
    file = data_root / "hit_uav_ir" / "hit_uav_ir.zip"
    splits = {name: load(file, name, ("person",)) for name in ("train", "val", "shift")}
    for name in ("val", "shift"):
        assert statistics.alike(splits[name], splits["train"]).max() < 0.9

    def official(name):
        parts = []
        for split in splits.values():
            infos = split.truth["images"]
            keep = [i for i, info in enumerate(infos) if info["official_split"] == name]
            parts.append(subset(split, keep))
        return parts[0]._replace(images=np.concatenate([part.images for part in parts]))

    share = (statistics.alike(official("test"), official("train")) > statistics.ALIKE).mean()
    assert 0.25 < share < 0.35


def test_classes_that_a_split_lacks_are_shown_in_a_table():
    one, box = noise(1), (0, 0, 9, 9)
    training, other = split_of(one, [[box]]), split_of(noise(1, 3), [[box, box]])
    boxes = training._replace(labels=training.labels + 1)  # cars only
    lines = statistics.classes(
        [("training", statistics.look(training)), ("other", statistics.look(other))]
    )
    assert [line.split() for line in lines] == [
        ["objects", "of", "class", "training", "other"],
        ["person", "1", "2"],
        ["car", "-", "-"],
    ]
    assert statistics.classes([("a", statistics.look(boxes)), ("b", statistics.look(training))])[
        1:
    ] == [
        f"{'person':<18}{'-':>14}{1:>14}",
        f"{'car':<18}{1:>14}{'-':>14}",
    ]
    alone = split_of(one, [[]], ("person",))
    assert statistics.classes([("a", statistics.look(alone))]) == []  # one class: the counts say it
