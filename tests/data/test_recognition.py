"""Visible-infrared sets: published layouts in miniature, their protocols, wrong layouts."""

import random
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict

from tests.data.layouts import recognition_sets as sets
from tests.data.layouts.recognition_sets import load_recognition
from tests.data.layouts.source_files import save, zip_folder
from tinyjax.data.identity_checks import find_leak, identity_record
from tinyjax.data.loading import RECOGNITION_FORMATS, load_split
from tinyjax.data.modality import INFRARED, VISIBLE
from tinyjax.data.records import RecognitionSplit
from tinyjax.data.streaming import Images
from tinyjax.errors import UserError


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    root = tmp_path_factory.mktemp("sets")
    for write in (sets.sysu, sets.regdb, sets.llcm, sets.pairs):
        write(root / write.__name__)
    return root


def gallery_names(split: RecognitionSplit, protocol: str, trial: int) -> list[str]:
    return [split.names[i] for i in split.protocols[protocol].trials[trial].gallery]


# ---- SYSU-MM01


def test_sysu_splits(roots):
    counts = {}
    for name in ("train", "val", "test", "trainval"):
        split = load_recognition(roots / "sysu", name, "sysu")
        counts[name] = len(split.classes), len(split.names)
        assert split.names == tuple(sorted(split.names))
        infrared = np.isin(split.cameras, (3, 6))
        assert split.inputs["modality"].dtype == np.uint8
        np.testing.assert_array_equal(split.inputs["modality"] == INFRARED, infrared)
        assert [split.classes[k] for k in split.labels] == [n.split("/")[1] for n in split.names]
        assert len({*split.captures.tolist()}) == len(split.names)
        assert split.inputs["image"].shape == (len(split.names), 12, 6, 3)
        assert bool(split.protocols) == (name in ("val", "test"))
    # 6 cameras x 12 images of each identity, except those of SYSU_CAMERAS
    assert counts == {"train": (3, 216), "val": (2, 84), "test": (3, 156), "trainval": (5, 300)}
    assert load_recognition(roots / "sysu", "train", "sysu").classes == ("0001", "0002", "0005")


def agw_gallery(root, trial, cameras):
    """The gallery as AGW draws it, from the files of folders in order of identity and camera."""
    rng, chosen = random.Random(trial), []
    for identity in ("0006", "0010", "0011"):
        for camera in cameras:
            if (folder := root / f"cam{camera}" / identity).is_dir():
                files = sorted(str(file.relative_to(root)) for file in folder.iterdir())
                chosen.append(rng.choice(files))
    return chosen


def test_sysu_protocols(roots):
    root = roots / "sysu"
    split = load_recognition(root, "test", "sysu")
    assert [*split.protocols] == ["all_single", "all_multi", "indoor_single", "indoor_multi"]
    for name, protocol in split.protocols.items():
        assert len(protocol.trials) == 10
        assert protocol.identity_ranks
        assert protocol.skipped_cameras == {(3, 2)}
        for trial in protocol.trials:  # all infrared images, also in indoor search
            np.testing.assert_array_equal(trial.query, np.flatnonzero(split.inputs["modality"]))
        cameras = {*split.cameras[protocol.trials[0].gallery].tolist()}
        assert cameras == ({1, 2, 4, 5} if name.startswith("all") else {1, 2})
    for trial in range(10):
        assert gallery_names(split, "all_single", trial) == agw_gallery(root, trial, (1, 2, 4, 5))
        assert gallery_names(split, "indoor_single", trial) == agw_gallery(root, trial, (1, 2))
        # 0006 has 4 visible cameras, 0010 one, 0011 three
        multi = split.protocols["all_multi"].trials[trial].gallery
        assert len({*multi.tolist()}) == len(multi) == 80
    assert len({tuple(gallery_names(split, "all_single", t)) for t in range(10)}) == 10


def test_zipped_sysu(roots, tmp_path):
    packed = zip_folder(roots / "sysu", tmp_path / "sysu.zip", "SYSU-MM01/")
    zipped = load_recognition(packed, "test", "sysu", limit=30)
    loaded = load_recognition(roots / "sysu", "test", "sysu", limit=30)
    assert zipped.names == loaded.names
    np.testing.assert_array_equal(zipped.inputs["image"], loaded.inputs["image"])


def test_sysu_val_has_no_indoor_gallery(roots):
    split = load_recognition(roots / "sysu", "val", "sysu")
    assert [*split.protocols] == ["all_single", "all_multi"]


def test_incomplete_sysu(roots, tmp_path):
    root = tmp_path / "SYSU-MM01"
    shutil.copytree(roots / "sysu", root)
    with pytest.raises(UserError, match=r"no split 'query' of SYSU-MM01; known: train, val, test"):
        load_recognition(root, "query", "sysu")
    val = load_recognition(root, "val", "sysu")
    assert load_recognition(root, "val", "sysu", val_fraction=0.9).names == val.names
    (root / "exp" / "test_id.txt").write_text("6, ten")
    with pytest.raises(UserError, match=r"test_id\.txt: 'ten'; give comma-separated numbers"):
        load_recognition(root, "test", "sysu")
    (root / "exp" / "test_id.txt").write_text("6,300,301")
    with pytest.raises(UserError, match=r"2 of 3 identities .* no image .*\(0300, 0301\)"):
        load_recognition(root, "test", "sysu")
    (root / "cam3").rename(root / "thermal")
    (root / "cam3").mkdir()
    with pytest.raises(UserError, match=r"cam3 without folders of identities, such as 0001$"):
        load_recognition(root, "test", "sysu")
    shutil.rmtree(root / "cam4")
    (root / "exp" / "val_id.txt").unlink()
    with pytest.raises(UserError, match=r"missing here: cam4, exp/val_id\.txt$"):
        load_recognition(tmp_path, "trainval", "sysu")


# ---- RegDB


def test_regdb(roots):
    train = load_recognition(roots / "regdb", "train", "regdb", trial=2)
    test = load_recognition(roots / "regdb", "test", "regdb", trial=2)
    assert (train.classes, test.classes) == (("2", "3", "4"), ("1", "5", "6"))
    assert train.origin == test.origin == ("regdb", 2)
    assert train.protocols == {}
    assert np.bincount(train.labels).tolist() == [6, 6, 6]
    visible = np.flatnonzero(test.inputs["modality"] == VISIBLE)
    infrared = np.flatnonzero(test.inputs["modality"] == INFRARED)
    assert (test.cameras[visible] == 1).all()
    assert (test.cameras[infrared] == 2).all()
    forward, backward = test.protocols["visible_to_infrared"], test.protocols["infrared_to_visible"]
    for protocol, query, gallery in ((forward, visible, infrared), (backward, infrared, visible)):
        (trial,) = protocol.trials
        np.testing.assert_array_equal(trial.query, query)
        np.testing.assert_array_equal(trial.gallery, gallery)
        assert not protocol.identity_ranks
        assert not protocol.skipped_cameras


def test_images_are_decoded_by_modality(roots):
    split = load_recognition(roots / "regdb", "train", "regdb")
    image, infrared = split.inputs["image"], split.inputs["modality"] == INFRARED
    assert image.dtype == np.uint8
    assert (image[infrared] == image[infrared][..., :1]).all()
    assert (image[~infrared] != image[~infrared][..., :1]).any()
    gray = load_recognition(roots / "regdb", "train", "regdb", channels=1)
    np.testing.assert_array_equal(gray.inputs["image"][infrared], image[infrared][..., :1])
    assert gray.inputs["image"].shape == (18, 12, 6, 1)


def test_default_sizes(roots, tmp_path):
    assert load_recognition(roots / "regdb", "train", "regdb", size=None, stream=True).inputs[
        "image"
    ].shape[1:] == (288, 144, 3)
    sets.pairs(tmp_path / "Oulu_20Class_train")
    split = load_recognition(tmp_path, "train", "oulu", size=None, stream=True)
    assert split.inputs["image"].shape[1:] == (128, 128, 3)


def test_streamed_and_zipped_sets_equal_loaded_set(roots, tmp_path):
    full = load_recognition(roots / "regdb", "test", "regdb")
    streamed = load_recognition(roots / "regdb", "test", "regdb", stream=True)
    packed = zip_folder(roots / "regdb", tmp_path / "regdb.zip", "RegDB/")
    zipped = load_recognition(packed, "test", "regdb")
    assert isinstance(streamed.inputs["image"], Images)
    np.testing.assert_array_equal(streamed.inputs["image"][np.arange(18)], full.inputs["image"])
    np.testing.assert_array_equal(zipped.inputs["image"], full.inputs["image"])
    assert zipped.names == streamed.names == full.names
    with pytest.raises(UserError, match="cannot read images from a zip"):
        load_recognition(packed, "test", "regdb", stream=True)


def test_incomplete_regdb(roots, tmp_path):
    root = tmp_path / "RegDB"
    shutil.copytree(roots / "regdb", root)
    with pytest.raises(UserError, match=r"trial 11: idx/test_visible_11\.txt and idx/test_"):
        load_recognition(root, "test", "regdb", trial=11)
    with pytest.raises(UserError, match=r"trials with lists: 1, 2$"):
        load_recognition(root, "test", "regdb", trial=11)
    with pytest.raises(UserError, match=r"split 'trian', trial 1: .* did you mean 'train'\?"):
        load_recognition(root, "trian", "regdb")
    (root / "Visible" / "1" / "m_front_v_0.bmp").unlink()
    with pytest.raises(UserError, match=r"Visible/1/m_front_v_0\.bmp: no such image \(1 of 18 lis"):
        load_recognition(root, "train", "regdb")
    problems = []
    split = load_recognition(root, "train", "regdb", on_error=lambda *p: problems.append(p))
    assert len(split.names) == 17
    assert [problem for problem, _ in problems] == ["missing image"]
    lines = (root / "idx" / "train_visible_1.txt").read_text()
    for text, message in (
        ("Visible/1/a.bmp\n", r"line 1: 'Visible/1/a\.bmp'; give \"<path> <label>\""),
        ("../a.bmp 0\n", "leaves the data set"),
        (f"{lines}\nVisible/1/m_front_v_1.bmp 0\n", r"is listed before, in .*train_visible_1.txt"),
    ):
        save(root / "idx" / "train_visible_1.txt", text)
        with pytest.raises(UserError, match=message):
            load_recognition(root, "train", "regdb")


def test_identity_without_own_folder_is_named_by_list_and_label(tmp_path):
    """The labels of both lists begin at 0, for other identities."""
    for split in ("train", "test"):
        for modality in ("visible", "infrared"):
            names = [f"{split}/{modality}/{k}.png" for k in range(4)]
            sets.write_images(tmp_path, names, modality == "infrared")
            lines = "\n".join(f"{name} {k // 2}" for k, name in enumerate(names))
            save(tmp_path / f"{split}_{modality}_1.txt", lines)
    train, test = (load_recognition(tmp_path, split, "regdb") for split in ("train", "test"))
    assert train.classes == ("train_visible_1: label 0", "train_visible_1: label 1")
    assert find_leak(identity_record(train), test) == ""


# ---- LLCM


def test_llcm(roots):
    train = load_recognition(roots / "llcm", "train", "llcm")
    assert (train.classes, len(train.names), train.protocols) == (("0001", "0002"), 8, {})
    assert {*train.cameras.tolist()} == {1, 2}
    test = load_recognition(roots / "llcm", "test", "llcm")
    assert test.classes == ("0714", "0716")
    counts = {
        name: {(len(t.query), len(t.gallery)) for t in protocol.trials}
        for name, protocol in test.protocols.items()
    }
    # 2 identities x 3 visible or 2 infrared cameras x 2 images; one of each pair in a gallery
    assert counts == {"visible_to_infrared": {(12, 4)}, "infrared_to_visible": {(8, 6)}}
    assert all(len(p.trials) == 10 and p.identity_ranks for p in test.protocols.values())
    # An identity is not compared with itself in the same camera.
    same = test.captures[:, None] == test.captures
    expected = (test.labels[:, None] == test.labels) & (test.cameras[:, None] == test.cameras)
    np.testing.assert_array_equal(same, expected)


def test_incomplete_llcm(roots, tmp_path):
    shutil.copytree(roots / "llcm", tmp_path / "LLCM")
    (tmp_path / "LLCM" / "idx" / "train_nir.txt").unlink()
    shutil.rmtree(tmp_path / "LLCM" / "test_nir")
    with pytest.raises(UserError, match=r"LLCM has .*; missing here: idx/train_nir\.txt$"):
        load_recognition(tmp_path, "train", "llcm")
    with pytest.raises(UserError, match=r"missing here: test_nir$"):
        load_recognition(tmp_path, "test", "llcm")
    (tmp_path / "LLCM" / "test_nir").mkdir()
    with pytest.raises(UserError, match=r"test_nir without folders of cameras, such as cam1$"):
        load_recognition(tmp_path, "test", "llcm")
    with pytest.raises(UserError, match=r"no split 'query' of LLCM; known: train, test"):
        load_recognition(tmp_path, "query", "llcm")


# ---- selection and configs


def test_selected_identities(roots):
    split = load_recognition(roots / "sysu", "train", "sysu", classes=("0001", "0005"), limit=20)
    assert (split.classes, len(split.names)) == (("0001", "0005"), 20)
    with pytest.raises(UserError, match=r"no identity '1' among 3, from 0001 to 0005"):
        load_recognition(roots / "sysu", "train", "sysu", classes=("1",))


def data_config(data_format, **common):
    return ConfigDict({"format": data_format, "common": common, "train": {"split": "train"}})


def test_load_split_by_config(roots):
    config = data_config("regdb", source=str(roots / "regdb"), size=(12, 6), trial=2)
    split = load_split(config, config.train, RECOGNITION_FORMATS)
    assert split.classes == ("2", "3", "4")
    config.stream = True
    streamed = load_split(config, config.train, RECOGNITION_FORMATS)
    assert isinstance(streamed.inputs["image"], Images)
    with pytest.raises(UserError, match=r"no argument 'trail' of a regdb set; did you mean 'tri"):
        load_split(config, ConfigDict({"split": "test", "trail": 2}), RECOGNITION_FORMATS)
    with pytest.raises(UserError, match=r"data\.format = 'coco': .*known: sysu, regdb"):
        load_split(data_config("coco"), config.train, RECOGNITION_FORMATS)
    with pytest.raises(UserError, match="no such folder"):
        load_split(data_config("pairs", source="/missing/set"), config.train, RECOGNITION_FORMATS)


def test_corrupted_infrared_stays_gray(roots):
    for config in (
        data_config("regdb", source=str(roots / "regdb"), size=(36, 36)),
        data_config("synthetic", n=1, size=(36, 36)),
    ):
        clean = load_split(config, config.train, RECOGNITION_FORMATS)
        noisy = load_split(config, config.train, RECOGNITION_FORMATS, ("gaussian_noise", 5))
        infrared = noisy.inputs["modality"] == INFRARED
        image = noisy.inputs["image"]
        assert (image[infrared] == image[infrared][..., :1]).all()
        difference = image.astype(int) - clean.inputs["image"]
        assert np.abs(difference).mean((1, 2, 3)).min() > 5


# ---- orchard_vnir: real images in RegDB's layout


def test_orchard_vnir(data_root):
    source = data_root / "orchard_vnir" / "orchard_vnir.zip"
    train = load_recognition(source, "train", "regdb", size=(48, 48))
    test = load_recognition(source, "test", "regdb", size=(48, 48))
    assert train.inputs["image"].shape == (1280, 48, 48, 3)
    assert test.inputs["image"].shape == (1536, 48, 48, 3)
    assert (len(train.classes), len(test.classes)) == (80, 96)
    assert {*train.classes}.isdisjoint(test.classes)
    assert np.bincount(test.labels).tolist() == [16] * 96
    trial = test.protocols["visible_to_infrared"].trials[0]
    assert (len(trial.query), len(trial.gallery)) == (768, 768)
    infrared = train.inputs["modality"] == INFRARED
    image = train.inputs["image"]
    assert (image[infrared] == image[infrared][..., :1]).all()
    assert image.std() > 20
    second = load_recognition(source, "test", "regdb", size=(48, 48), trial=2, limit=96)
    assert {*second.classes} & {*train.classes}  # another trial is not a test of this one
    pairs = load_recognition(source, "test", "pairs", size=(48, 48), limit=64)
    assert len(pairs.names) == 64
