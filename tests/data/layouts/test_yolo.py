"""YOLO as people have it: paths of another machine, lists, subfolders, lists of classes."""

import shutil

import numpy as np
import pytest

from tests.data.layouts import source_files
from tests.data.layouts.source_files import same
from tinyjax.data.detection import load
from tinyjax.data.images import opened
from tinyjax.data.layouts import yolo
from tinyjax.errors import UserError

SPLITS = {"train": 4, "val": 3}
NAMES = "names: [person, car]\n"


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = source_files.coco(tmp_path_factory.mktemp("reference"), SPLITS)
    return {name: load(folder, name, source_files.CLASSES) for name in SPLITS}


def yaml_says(folder, text, name="data.yaml"):
    (folder / "data.yaml").unlink()
    (folder / name).write_text(text + NAMES)
    return folder


PATHS = {
    "of Linux": ("", "/home/x/mine/{}"),
    "of Windows": ("", "D:\\sets\\mine\\{}"),
    "below another path": ("path: D:\\sets\\mine\n", "{}"),
    "above": ("", "../../../{}"),
    "that is there, below one that is not": ("path: ../datasets/mine\n", "./{}"),
    "of which nothing is there": ("", "/x/somewhere/{0[0]}-{0[1]}"),
    "that is no path": ("", "../../.."),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", PATHS)
@pytest.mark.parametrize("layout", ["yolo", "roboflow_yolo"])
def test_a_path(layout, case, packed, tmp_path, expected):
    folder = getattr(source_files, layout)(tmp_path / "set", SPLITS)
    own = {"yolo": "images/{}", "roboflow_yolo": "{}/images"}[layout]
    head, path = PATHS[case]
    lines = [
        f"{name}: {path.format(own.format(on_disk))}\n"
        for name, on_disk in (("train", "train"), ("val", "val" if layout == "yolo" else "valid"))
    ]
    source = yaml_says(folder, head + "".join(lines))
    if packed:
        source = source_files.zipped(source, tmp_path / "set.zip", "mine/")
    for name in SPLITS:
        same(load(source, name), expected[name])
    with opened(source) as root:
        assert yolo.splits(root) == ["train", "val"]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("path: frames\n", "images/{}"),
        ("path: D:\\sets\\frames\n", "images\\{}"),
        ("", "D:\\sets\\frames\\images\\{}"),
        ("", "C:frames/images/{}"),
        ("", "../../frames/images/{}"),
    ],
)
def test_folders_of_no_customary_name(path, value, tmp_path, expected):
    folder = source_files.yolo(tmp_path, SPLITS)
    for kind in ("images", "labels"):
        for old, new in (("train", "one"), ("val", "two")):
            (folder / "frames" / kind).mkdir(parents=True, exist_ok=True)
            (folder / kind / old).rename(folder / "frames" / kind / new)
    yaml_says(folder, f"{path}train: {value.format('one')}\nval: {value.format('two')}\n")
    for name in SPLITS:
        same(load(folder, name), expected[name])


@pytest.mark.parametrize("layout", ["yolo", "roboflow_yolo"])
def test_an_end_that_two_splits_share_is_not_taken_for_either(layout, tmp_path, expected):
    """images/ is there: all of it in either split would be a leak."""
    folder = getattr(source_files, layout)(tmp_path, SPLITS)
    yaml_says(folder, "train: /x/train/images\nval: /x/val/images\n")
    for name in SPLITS:
        same(load(folder, name), expected[name])


@pytest.mark.parametrize("packed", [False, True])
def test_images_beside_the_yaml_and_a_folder_that_has_images_in_it(packed, tmp_path, expected):
    folder = source_files.roboflow_yolo(tmp_path / "set", {"val": 3})
    for name, image, _ in source_files.scenes("train", 4):
        source_files.save(folder / name, source_files.png(image))
    for file in (source_files.yolo(tmp_path / "plain", SPLITS) / "labels" / "train").iterdir():
        source_files.save(folder / file.name, file.read_bytes())
    shutil.move(folder / "valid", tmp_path / "set" / "valid")
    yaml_says(folder, "train: .\n")
    source = source_files.zipped(folder, tmp_path / "set.zip") if packed else folder
    same(load(source, "train"), expected["train"])
    shutil.move(tmp_path / "set" / "valid", folder / "second")
    yaml_says(folder, "val: second\n")
    source = source_files.zipped(folder, tmp_path / "set.zip") if packed else folder
    same(load(source, "val"), expected["val"])


def test_the_yamls_own_name_of_a_split_is_kept_and_the_other_is_found(tmp_path, expected):
    folder = source_files.yolo(tmp_path, SPLITS)
    yaml_says(folder, "train: images/train\nvalid: images/val\n")
    assert yolo.splits(folder) == ["train", "valid"]
    for name in ("val", "valid"):
        same(load(folder, name), expected["val"])


def test_a_path_of_which_nothing_is_there_is_named(tmp_path):
    folder = source_files.yolo(tmp_path, SPLITS)
    yaml_says(folder, "train: [images/train, D:\\more]\nval: images/val\ntest: /x/test\n")
    assert yolo.splits(folder) == ["train", "val"]
    with pytest.raises(UserError, match=r"data.yaml: train: D:\\more: no end of that path"):
        load(folder, "train")
    with pytest.raises(UserError, match=r"test: /x/test: no end .*nor images/test or test/images"):
        load(folder, "test")
    (folder / "images").rename(folder / "pictures")
    with pytest.raises(UserError, match=r"data.yaml: no images beside it; train: .*test: /x/test"):
        load(folder, "train")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("line", ["images/train/{}", "./images/train/{}", "/x/images/train/{}"])
def test_a_list_of_images(line, packed, tmp_path, expected):
    folder = source_files.yolo(tmp_path / "set", SPLITS)
    for name in SPLITS:  # of both splits in one folder, as darknet has it
        for file in (folder / "images" / name).iterdir():
            file.rename(folder / "images" / file.name)
        for file in (folder / "labels" / name).iterdir():
            file.rename(folder / "labels" / file.name)
        rows = [line.replace("train/", "").format(one) for one, *_ in source_files.scenes(name, 9)]
        source_files.save(folder / "lists" / f"{name}.txt", "\n".join(rows[: SPLITS[name]]) + "\n")
    yaml_says(folder, "path: /x\ntrain: /x/set/lists/train.txt\nval: lists/val.txt\n")
    source = source_files.zipped(folder, tmp_path / "set.zip") if packed else folder
    for name in SPLITS:
        split = load(source, name)
        assert split.names == tuple(f"images/{one}" for one in expected[name].names)
        same(split._replace(names=expected[name].names), expected[name])
    with opened(source) as root:
        assert yolo.splits(root) == ["train", "val"]


def test_a_list_may_name_what_is_not_there(tmp_path):
    folder = source_files.yolo(tmp_path, SPLITS)
    (folder / "train.txt").write_text("images/train/train_00.png\n/x/images/train/ghost.png\n")
    yaml_says(folder, "train: train.txt\n")
    with pytest.raises(UserError, match=r"images/train/ghost.png: no such image \(1 of 2 images"):
        load(folder, "train")


def test_a_yaml_of_any_name_if_no_other_has_names(tmp_path, expected):
    folder = source_files.yolo(tmp_path, SPLITS)
    yaml_says(folder, "train: images/train\nval: images/val\n", "hit-uav.yaml")
    (folder / "hyp.yaml").write_text("lr0: 0.01\n")
    same(load(folder, "train"), expected["train"])
    (folder / "other.yml").write_text(NAMES)
    with pytest.raises(UserError, match=r"hit-uav.yaml, other.yml all have names; keep one"):
        load(folder, "train")


@pytest.mark.parametrize("packed", [False, True])
def test_images_in_subfolders_keep_their_path(packed, tmp_path, expected):
    folder = source_files.yolo(tmp_path / "set", SPLITS)
    for kind, suffix in (("images", "png"), ("labels", "txt")):
        for number in (0, 1, 2):
            file = folder / kind / "train" / f"train_{number:02d}.{suffix}"
            (file.parent / "a" / "b").mkdir(parents=True, exist_ok=True)
            file.rename(file.parent / ("a" if number == 0 else "a/b") / file.name)
    source = source_files.zipped(folder, tmp_path / "set.zip") if packed else folder
    split = load(source, "train")
    names = ("a/b/train_01.png", "a/b/train_02.png", "a/train_00.png", "train_03.png")
    assert split.names == names
    order = [1, 2, 0, 3]
    for field in ("images", "boxes", "labels"):
        assert np.array_equal(getattr(split, field), getattr(expected["train"], field)[order])
    if not packed:
        source_files.save(folder / "labels" / "train" / "c" / "stray.txt", "0 .5 .5 .1 .1")
        with pytest.raises(UserError, match=r"c/stray.txt: no image stray in .*images/train"):
            load(source, "train")


def labeled(folder, place):
    """A set without a yaml, its classes.txt where labelImg leaves it."""
    source_files.yolo(folder, SPLITS)
    (folder / "data.yaml").unlink()
    if place == "{}":  # images and labels in one folder
        for kind in ("images", "labels"):
            for name in SPLITS:
                shutil.copytree(folder / kind / name, folder / name, dirs_exist_ok=True)
            shutil.rmtree(folder / kind)
    elif place == "{}/labels":
        for name in SPLITS:
            for kind in ("images", "labels"):
                shutil.move(folder / kind / name, folder / name / kind)
    for name in SPLITS:
        source_files.save(folder / place.format(name) / "classes.txt", "person\ncar\n")
        source_files.save(folder / place.format(name) / "backup" / "notes.md", "no split")
    return folder


@pytest.mark.parametrize("packed", ["folder", "folder in a folder", "zip"])
@pytest.mark.parametrize("place", ["", "labels", "labels/{}", "{}", "{}/labels"])
def test_classes_where_labelimg_leaves_them(place, packed, tmp_path, expected):
    source = labeled(tmp_path / "above" / "set", place)
    if packed == "folder in a folder":
        source = source.parent
    if packed == "zip":
        source = source_files.zipped(source, tmp_path / "set.zip")
    for name in SPLITS:
        same(load(source, name), expected[name])
    with opened(source) as root:
        assert sorted(yolo.splits(root)) == ["train", "val"]


def test_lists_of_classes_may_grow_but_not_differ(tmp_path):
    folder = labeled(tmp_path, "{}")
    (folder / "val" / "classes.txt").write_text("person\ncar\nboat\n")
    assert load(folder, "train").classes == ("person", "car", "boat")
    (folder / "val" / "classes.txt").write_text("car\nperson\n")
    with pytest.raises(UserError, match=r"val/classes.txt: other classes than in .*make the two"):
        load(folder, "train")


def test_the_yaml_itself_and_a_home_folder_may_be_the_source(tmp_path, expected, monkeypatch):
    folder = source_files.yolo(tmp_path / "set", SPLITS)
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in (folder / "data.yaml", "~/set", "~/set/data.yaml"):
        same(load(source, "train"), expected["train"])
    (folder / "other.yaml").write_text(NAMES)
    with pytest.raises(UserError, match=r"other.yaml: data.yaml stands beside it; give the folder"):
        load(folder / "other.yaml", "train")
