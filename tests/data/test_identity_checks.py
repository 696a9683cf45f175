"""Descriptions of visible-infrared splits, and the guard against trained test identities."""

import json

import pytest

from tests.data.layouts import recognition_sets as sets
from tests.data.layouts.recognition_sets import load_recognition
from tinyjax.data.identity_checks import describe, find_leak, identity_record
from tinyjax.data.synthetic import identities

FEW = "fewer than 20 identities: high ranks such as Rank-20 say little"


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for write in (sets.sysu, sets.regdb, sets.pairs):
        write(root / write.__name__)
    return root


def test_description_of_sysu(roots):
    assert describe(load_recognition(roots / "sysu", "train", "sysu")) == [
        "3 identities, 144 visible and 72 infrared images, cameras 1, 2, 3, 4, 5, 6"
    ]
    lines = describe(load_recognition(roots / "sysu", "val", "sysu"))
    assert lines[:2] == [
        "2 identities, 48 visible and 36 infrared images, cameras 3, 4, 5, 6",
        FEW,
    ]
    assert len(lines) == 2


def test_description_names_what_has_no_match(roots):
    split = load_recognition(roots / "sysu", "test", "sysu")
    protocol = split.protocols["indoor_single"]
    (trial,) = protocol.trials[:1]
    keep = split.labels[trial.gallery] != 1  # no gallery image of the second identity
    alone = protocol._replace(trials=(trial._replace(gallery=trial.gallery[keep]),))
    lines = describe(split._replace(protocols={"indoor": alone}))
    assert lines[-1] == "indoor: no gallery image of 1 identity (0010); their queries are left out"
    keep = split.labels[trial.query] == 0
    alone = protocol._replace(trials=(trial._replace(query=trial.query[keep]),))
    lines = describe(split._replace(protocols={"indoor": alone}))
    assert lines[-1] == "indoor: no query of 2 identities (0010, 0011)"


def test_description_names_twins_and_single_modalities(roots):
    split = load_recognition(roots / "pairs", "train", "pairs", capture=r"IMG_(\d)_")
    assert describe(split)[1] == (
        "16 images share a capture with an image of the other modality; these are not compared"
    )
    visible = identities.load(2, "pretrain", per_camera=(1, 0), size=(32, 16))
    assert describe(visible)[1] == (
        "no infrared image of 2 identities (pretrain_0000, pretrain_0001)"
    )


def test_leak_between_trials(roots):
    train = identity_record(load_recognition(roots / "regdb", "train", "regdb", trial=1))
    train = json.loads(json.dumps(train))  # as stored by a run
    assert find_leak(train, load_recognition(roots / "regdb", "test", "regdb", trial=1)) == ""
    other = load_recognition(roots / "regdb", "test", "regdb", trial=2)
    assert find_leak(train, other) == (
        "regdb: the network was trained on trial 1 and the split is of trial 2 (1 of 3 identities "
        "of this split were trained on); evaluate on trial 1, or train on trial 2"
    )


def test_leak_within_a_data_set(roots):
    trained = identity_record(load_recognition(roots / "sysu", "trainval", "sysu"))
    assert find_leak(trained, load_recognition(roots / "sysu", "test", "sysu")) == ""
    assert find_leak(trained, load_recognition(roots / "sysu", "val", "sysu")) == (
        "sysu: 2 of 2 identities of this split were trained on (0007, 0009); evaluate on other "
        "identities"
    )


def test_identities_of_other_sets_are_not_compared(roots):
    cows = identity_record(load_recognition(roots / "pairs", "train", "pairs"))
    other = load_recognition(roots / "pairs", "train", "pairs")
    assert find_leak(cows, other)
    assert find_leak(cows, other._replace(origin=("pairs of goats", 0))) == ""
    people = identity_record(identities.load(2, "train", size=(32, 16)))
    assert find_leak(people, identities.load(2, "test", size=(32, 16))) == ""
    assert find_leak(people, identities.load(1, "train", size=(32, 16)))
    assert find_leak(people, identities.load(1, "train", size=(32, 16), seed=1)) == ""
