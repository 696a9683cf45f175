"""The classes and images that a classifier uses, what it logs about them, and its report."""

import numpy as np
import pytest
from PIL import Image

from tests.configs import classifier
from tinyjax.data.records import ClassificationSplit
from tinyjax.errors import UserError
from tinyjax.reporting import classification
from tinyjax.run.csv_files import read_rows
from tinyjax.tasks import classify

COUNTS = {"train": {"cat": 2, "dog": 1, "owl": 1}, "val": {"cat": 1, "dog": 1, "owl": 2}}


def write_images(root, counts=COUNTS, **common):
    """Write images, split -> class -> number, and return their config.

    common: fields of config.data.common.
    """
    for split, classes in counts.items():
        for name, count in classes.items():
            (root / split / name).mkdir(parents=True)
            for k in range(count):
                Image.fromarray(np.full((8, 8), k, np.uint8)).save(root / split / name / f"{k}.png")
    config = classifier.get_config(str(root))
    with config.data.common.unlocked():
        config.data.common.update(common)
    return config


def load_splits(config):
    training = classify.load(config.data, config.data.train)
    return training, classify.load(config.data, config.data.suites.val, training.classes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val": {**COUNTS["val"], "Yak": 1}}, r"\(only in 'val': Yak; only in training: none\)"),
        ({"val": {"cat": 1, "dog": 2}}, r"\(only in 'val': none; only in training: owl\)"),
        ({"train": {**COUNTS["train"], "dog": 0}}, r"\(only in 'val': dog; only in training: none"),
    ],
)
def test_classes_missing_from_a_split_are_named(tmp_path, changes, message):
    config = write_images(tmp_path, {**COUNTS, **changes})
    with pytest.raises(UserError, match=rf"{message}.*list the classes to use in .* data\.common"):
        load_splits(config)


def test_images_of_unlisted_classes_are_left_out_and_counted(tmp_path):
    config = write_images(tmp_path, classes=("owl", "cat"))
    training, val = load_splits(config)
    assert training.classes == val.classes == ("owl", "cat")
    first, second = classify.describe_data(training, {"val": val}, config, tmp_path)
    assert first.endswith("2 classes of 1 to 2 images; 1 of other classes left out")
    assert second.endswith("2 classes of 1 to 2 images; 1 of other classes left out")


def test_a_single_class_is_rejected(tmp_path):
    config = write_images(tmp_path, classes=("owl",))
    training, val = load_splits(config)
    with pytest.raises(UserError, match=r"data\.train: 'owl' is the only class; give two"):
        classify.describe_data(training, {"val": val}, config, tmp_path)


def test_reports_show_names_with_dollar_signs_and_count_ties_as_mistakes(tmp_path):
    labels = np.array([0, 1, 2, 2], np.int32)
    images = np.zeros((4, 8, 8, 1), np.uint8)
    split = ClassificationSplit({"image": images}, labels, tuple("abcd"), ("$5_$ x^", "b", "$c$"))
    logits = np.array([[1, 0, 0], [0, 2, 2], [np.nan] * 3, [0, 0, 1]], np.float32)
    classification.write_report(tmp_path, {"val": split}, {"val": logits})
    classification.save_samples(split, logits, tmp_path / "samples" / "val.png")
    assert {p.name for p in tmp_path.rglob("*.png")} == {
        "confusion.png", "per_class.png", "worst_val.png", "val.png",
    }  # fmt: skip
    table = read_rows(tmp_path / "per_class.csv")
    rows = [(row["class"], row["accuracy"], row["mistaken_for"]) for row in table]
    assert rows == [("$5_$ x^", "1.0", ""), ("b", "0.0", "$c$"), ("$c$", "0.5", "$5_$ x^")]
