"""Faces and pairs of folders: division by lists, folders or at random, captures, wrong folders."""

import shutil

import pytest

from tests.data.layouts import recognition_sets as sets
from tests.data.layouts.recognition_sets import load_recognition
from tests.data.layouts.source_files import save
from tinyjax.errors import UserError


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for write in (sets.regdb, sets.llcm, sets.pairs):
        write(root / write.__name__)
    return root


# ---- faces


@pytest.mark.parametrize("layout", ["oulu", "buaa"])
def test_faces_by_folders(tmp_path, layout):
    sets.pairs(tmp_path / "Oulu_20Class_train", 4, "VIS", "NIR")
    sets.pairs(tmp_path / "Oulu_20Class_test", 3, "VIS", "NIR")
    assert len(load_recognition(tmp_path, "train", layout).classes) == 4
    test = load_recognition(tmp_path, "test", layout)
    assert [*test.protocols] == ["infrared_to_visible"]
    (trial,) = test.protocols["infrared_to_visible"].trials
    assert len(trial.query) == 6
    gallery = [test.names[i] for i in trial.gallery]
    if layout == "oulu":
        assert len(gallery) == 6
    else:
        assert gallery == [f"VIS/cow{k}/IMG_0_VIS.png" for k in range(3)]
    with pytest.raises(UserError, match=r"missing gallery_visible\.txt or gallery_infrared\.txt"):
        load_recognition(tmp_path, "gallery", layout)


def test_faces_by_lists(tmp_path):
    sets.pairs(tmp_path, 3)
    for modality in ("visible", "infrared"):
        names = [f"{modality}/cow{n}/IMG_0_{modality}.png {n}" for n in range(2)]
        save(tmp_path / f"test_{modality}.txt", "\n".join(names))
    split = load_recognition(tmp_path, "test", "buaa")
    assert split.classes == ("cow0", "cow1")


# ---- pairs and validation


def test_pairs_are_divided_by_identity(roots):
    options = {"val_fraction": 0.25, "seed": 3}
    splits = {
        name: load_recognition(roots / "pairs", name, "pairs", **options)
        for name in ("train", "val", "test")
    }
    classes = {name: {*split.classes} for name, split in splits.items()}
    assert {name: len(c) for name, c in classes.items()} == {"train": 2, "val": 2, "test": 4}
    assert len(set.union(*classes.values())) == 8
    assert [bool(split.protocols) for split in splits.values()] == [False, True, True]
    again = load_recognition(roots / "pairs", "test", "pairs", **options)
    assert again.names == splits["test"].names
    other = load_recognition(roots / "pairs", "test", "pairs", seed=4)
    assert other.classes != again.classes
    # Without a validation split its identities are trained on.
    whole = load_recognition(roots / "pairs", "train", "pairs", seed=3)
    assert {*whole.classes} == classes["train"] | classes["val"]


@pytest.mark.parametrize("layout", ["regdb", "llcm"])
def test_validation_identities_are_held_out_of_training(roots, layout):
    options = {"val_fraction": 0.5}
    train = load_recognition(roots / layout, "train", layout, **options)
    val = load_recognition(roots / layout, "val", layout, **options)
    whole = load_recognition(roots / layout, "train", layout)
    assert {*train.classes}.isdisjoint(val.classes)
    assert {*train.classes} | {*val.classes} == {*whole.classes}
    assert val.protocols
    with pytest.raises(UserError, match=r"'val'.*give val_fraction = 0\.2 in data\.common"):
        load_recognition(roots / layout, "val", layout)
    for fraction in (1, -0.1, 1.5):
        with pytest.raises(UserError, match=r"val_fraction = .*: give a number between 0 and 1"):
            load_recognition(roots / layout, "train", layout, val_fraction=fraction)


def test_pairs_by_lists(roots, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(roots / "pairs", root)
    save(root / "train_id.txt", "cow0,cow1\ncow2\n")
    save(root / "test_id.txt", "cow5\n")
    assert load_recognition(root, "train", "pairs").classes == ("cow0", "cow1", "cow2")
    assert load_recognition(root, "test", "pairs").classes == ("cow5",)
    with pytest.raises(UserError, match=r"no list val_id\.txt; known: test, train"):
        load_recognition(root, "val", "pairs")
    # The set's own validation identities come before a fraction of the training identities.
    save(root / "val_id.txt", "cow6\ncow7\n")
    assert load_recognition(root, "val", "pairs", val_fraction=0.5).classes == ("cow6", "cow7")
    train = load_recognition(root, "train", "pairs", val_fraction=0.5)
    assert train.classes == ("cow0", "cow1", "cow2")
    save(root / "test_id.txt", "cow5,cow11\n")
    with pytest.raises(UserError, match=r"test_id\.txt names 1 identities without a folder"):
        load_recognition(root, "test", "pairs")
    save(root / "test_id.txt", "cow1,cow5\n")
    with pytest.raises(UserError, match=r"test_id\.txt and train_id\.txt share 1 identities"):
        load_recognition(root, "test", "pairs")


def test_at_least_four_validation_identities(tmp_path):
    sets.pairs(tmp_path, 24)
    options = {"val_fraction": 0.1}
    assert len(load_recognition(tmp_path, "train", "pairs", **options).classes) == 8
    assert len(load_recognition(tmp_path, "val", "pairs", **options).classes) == 4


def test_pairs_without_a_modality(tmp_path):
    sets.pairs(tmp_path)
    shutil.rmtree(tmp_path / "infrared")
    with pytest.raises(UserError, match=r"no folders infrared/<id>/\*\.png side by side"):
        load_recognition(tmp_path, "train", "pairs")
    save(tmp_path / "infrared" / "0.png", sets.picture("0"))
    with pytest.raises(UserError, match=r"infrared: no images in folders <id>/"):
        load_recognition(tmp_path, "train", "pairs")


def test_captures_by_name(roots):
    split = load_recognition(roots / "pairs", "test", "pairs", capture=r"IMG_(\d+)")
    expected = [(label, name[-1]) for label, name in zip(split.labels, _shots(split), strict=True)]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(expected))}
    assert split.captures.tolist() == [numbers[key] for key in expected]
    assert len(numbers) == 8  # 4 identities x 2 moments, each seen by both modalities
    for pattern, message in (
        ("IMG_(", "not a regular expression"),
        ("IMG", "give one group"),
        (r"shot_(\d)", r"does not match the name 'infrared/cow"),
    ):
        with pytest.raises(UserError, match=message):
            load_recognition(roots / "pairs", "test", "pairs", capture=pattern)


def _shots(split):
    return [name.split("_")[1] for name in split.names]
