"""Statistics of splits: counted by hand on tiny sets, and HIT-UAV's leak."""

import json

import numpy as np
import pytest

from tests.data.layouts import source_files
from tests.data.loaders import load_detection
from tinyjax.data import statistics
from tinyjax.data.records import DetectionSplit, Objects, build_split, select_images


def split_of(images, boxes, classes=("person", "car")) -> DetectionSplit:
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
    return build_split(
        pixels, objects, infos, classes, np.ones((len(images), 2)), np.zeros((len(images), 2))
    )


def noise(n, seed=0):
    return list(np.random.default_rng(seed).integers(0, 256, (n, 64, 80), np.uint8))


def test_summary_counts():
    boxes = [[(1, 1, 5, 10), (1, 1, 5, 10)], [], [(-1, 2, 8, 6), (70, 60, 80, 64)]]
    summary = statistics.summarize(split_of(noise(3), boxes))
    assert (summary.images, summary.empty, summary.objects) == (3, 1, {"person": 4, "car": 0})
    assert summary.repeated == ["0.png"]
    assert summary.overhang == ["2.png"]
    assert summary.sides["person"].tolist() == [6, 6, 6, pytest.approx(40**0.5)]
    (line,) = statistics.summary_lines("val", summary)
    assert line == "val: 3 images, person 4, car 0; 1 without objects"


def test_warnings_name_objects_smaller_than_the_stride():
    summary = statistics.summarize(
        split_of(noise(2), [[(0, 0, 3, 3)], [(0, 0, 9, 9)]], ("person",))
    )
    (warning,) = statistics.find_warnings({"val": summary}, 4)
    assert warning.startswith("val: 50 % of the objects of class person are smaller than one cell")
    assert statistics.find_warnings({"val": summary}, 3) == []


def test_suite_may_be_named_training():
    training = split_of(noise(2), [[(0, 0, 9, 9)], [(0, 0, 9, 9)]], ("person",))
    suites = {
        "training": split_of(noise(1, 3), [[]], ("person",)),
        "val": split_of(noise(3, 5), [[]] * 3, ("person",)),
    }
    lines = statistics.data_report(training, suites, 4)
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
    lines = statistics.data_report(training, suites, 10)
    assert lines[6].startswith("warning: training: 100 % of the objects of class person are small")


def test_report_says_how_ambiguous_labels_were_read(tmp_path):
    source = source_files.flat_voc(tmp_path, {"train": 3, "val": 3})
    training, suite = load_detection(source, "train"), load_detection(source, "valid")
    lines = statistics.data_report(training, {"val": suite}, 4)
    for k, name in ((0, "training"), (2, "val")):
        assert lines[k].startswith(f"{name}: 3 images")
        assert lines[k + 1].startswith("  4 VOC files of an unknown tool: pixels counted from 0")


def test_ignored_regions_and_background_are_counted(tmp_path):
    folder = source_files.coco(tmp_path, {"train": 5})
    file = folder / "annotations" / "instances_train.json"
    document = json.loads(file.read_text())
    document["annotations"][0]["iscrowd"] = 1
    file.write_text(json.dumps(document))
    summary = statistics.summarize(load_detection(folder, "train", ("person",)))
    people = sum(c == "person" for _, _, o in source_files.scenes("train", 5) for c, _ in o)
    cars = sum(c == "car" for _, _, o in source_files.scenes("train", 5) for c, _ in o)
    assert (summary.objects, summary.ignored) == ({"person": people - 1}, 1)
    assert summary.background == {"car": cars}


def test_near_duplicates_survive_noise_gain_and_offset():
    noises = noise(6)
    blocks = [np.kron(image[:8, :10], np.ones((8, 8), np.uint8)) for image in noises]
    dimmer = (0.5 * blocks[3] + 30 + np.random.default_rng(1).normal(0, 3, (64, 80))).astype(
        np.uint8
    )
    flat = np.full((64, 80), 99, np.uint8)
    training = split_of(blocks, [[]] * 6)
    other = split_of([dimmer, *noise(1, 7), flat], [[]] * 3)
    similarity = statistics.max_similarity(other, training)
    assert similarity[0] > 0.99
    assert similarity[1] < 0.6
    assert abs(similarity[2]) < 1e-3
    (line,) = statistics.near_duplicate_lines({"train": training, "val": other})
    assert line.startswith("val: 1 of 3 images (33 %) have a near-duplicate in train")


@pytest.mark.parametrize(
    ("shapes", "size"),
    [
        ([(64, 96), (64, 96), (100, 200)], (64, 96)),
        ([(480, 640), (500, 660)], (480, 640)),  # 490 x 650, scaled down to 640
        ([(3000, 4000)], (480, 640)),
        ([(5, 700)], (32, 640)),
    ],
)
def test_suggested_size_is_the_median_in_multiples_of_the_stride(shapes, size):
    assert statistics.suggest_size(np.array(shapes)) == size


def test_official_hit_uav_split_leaks_and_session_split_does_not(data_root):
    """The data sheet: 28 % of the official test images have a near-duplicate in train."""
    file = data_root / "hit_uav_ir" / "hit_uav_ir.zip"
    splits = {name: load_detection(file, name, ("person",)) for name in ("train", "val", "shift")}
    for name in ("val", "shift"):
        assert statistics.max_similarity(splits[name], splits["train"]).max() < 0.9

    def official(name):
        parts = []
        for split in splits.values():
            infos = split.truth["images"]
            keep = [i for i, info in enumerate(infos) if info["official_split"] == name]
            parts.append(select_images(split, keep))
        images = np.concatenate([part.inputs["image"] for part in parts])
        return parts[0]._replace(inputs={"image": images})

    share = (
        statistics.max_similarity(official("test"), official("train")) > statistics.NEAR_DUPLICATE
    ).mean()
    assert 0.25 < share < 0.35


def test_class_table_shows_missing_classes():
    one, box = noise(1), (0, 0, 9, 9)
    training, other = split_of(one, [[box]]), split_of(noise(1, 3), [[box, box]])
    boxes = training._replace(labels=training.labels + 1)  # cars only
    lines = statistics.class_table(
        [("training", statistics.summarize(training)), ("other", statistics.summarize(other))]
    )
    assert [line.split() for line in lines] == [
        ["objects", "of", "class", "training", "other"],
        ["person", "1", "2"],
        ["car", "-", "-"],
    ]
    assert statistics.class_table(
        [("a", statistics.summarize(boxes)), ("b", statistics.summarize(training))]
    )[1:] == [
        f"{'person':<18}{'-':>14}{1:>14}",
        f"{'car':<18}{1:>14}{'-':>14}",
    ]
    alone = split_of(one, [[]], ("person",))
    assert (
        statistics.class_table([("a", statistics.summarize(alone))]) == []
    )  # one class: the counts say it
