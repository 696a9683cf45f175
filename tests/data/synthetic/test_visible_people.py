"""Synthetic people as classes: visible images of people that no split for recognition has."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from tinyjax.data.loading import CLASSIFICATION_FORMATS, load_split
from tinyjax.data.synthetic import identities, visible_people
from tinyjax.errors import UserError


def test_splits_share_people_but_no_image():
    train, test = (visible_people.load(3, split, size=(48, 24)) for split in ("train", "test"))
    assert train.inputs["image"].shape == (3 * 4 * 6, 48, 24, 3)
    assert test.inputs["image"].shape == (3 * 4 * 2, 48, 24, 3)
    assert np.bincount(train.labels).tolist() == [24, 24, 24]
    assert train.classes == test.classes == ("pretrain_0000", "pretrain_0001", "pretrain_0002")
    images = [*train.inputs["image"], *test.inputs["image"]]
    assert len({image.tobytes() for image in images}) == len({*train.names, *test.names}) == 96
    colored = (np.ptp(train.inputs["image"].astype(int), axis=-1) > 0).any((1, 2))
    assert colored.all()  # all are visible
    for split in ("train", "val", "test"):
        assert {*identities.load(3, split).classes}.isdisjoint(train.classes)


def test_the_last_quarter_of_each_camera_is_the_test_split():
    test = visible_people.load(1, "test", per_camera=4, size=(48, 24))
    assert test.names == tuple(f"pretrain_0000/cam{camera}_03" for camera in (0, 1, 3, 4))
    few = visible_people.load(1, "test", per_camera=2, size=(48, 24))
    assert len(few.names) == 4


def data_config(**common):
    return ConfigDict({"format": "synthetic", "common": {"size": (48, 24), **common}})


def test_is_a_format_of_classification():
    split = ConfigDict({"split": "test"})
    loaded = load_split(data_config(n=2), split, CLASSIFICATION_FORMATS)
    np.testing.assert_array_equal(
        loaded.inputs["image"], visible_people.load(2, "test", size=(48, 24)).inputs["image"]
    )
    gray = load_split(data_config(n=2, color=0.0), split, CLASSIFICATION_FORMATS)
    assert (gray.inputs["image"] != loaded.inputs["image"]).mean() > 0.1
    dark = load_split(data_config(n=2), split, CLASSIFICATION_FORMATS, ("contrast", 3))
    change = (dark.inputs["image"] != loaded.inputs["image"]).mean((0, 1, 2))
    assert change.min() > 0.5  # in all three channels


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 2, "split": "val"}, "synthetic people: no split 'val'"),
        ({"n": 2, "per_camera": 1}, "per_camera = 1; give 2 or more"),
        ({"n": 2, "colour": 1.0}, "no argument 'colour' of a synthetic set"),
        ({}, "data: no 'n'"),
    ],
)
def test_invalid_argument_is_one_message(arguments, message):
    with pytest.raises(UserError, match=message):
        load_split(data_config(**arguments), ConfigDict({}), CLASSIFICATION_FORMATS)
