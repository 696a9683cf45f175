"""Variants of YOLO: paths of another machine, lists, subfolders, lists of classes."""

import shutil

import numpy as np
import pytest

from tests.data.layouts import source_files
from tests.data.layouts.source_files import assert_same
from tests.data.loaders import load_detection
from tinyjax.data.layouts import yolo
from tinyjax.data.sources import open_source
from tinyjax.errors import UserError

SPLITS = {"train": 4, "val": 3}
NAMES = "names: [person, car]\n"


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = source_files.coco(tmp_path_factory.mktemp("reference"), SPLITS)
    return {name: load_detection(folder, name, source_files.CLASSES) for name in SPLITS}


def write_yaml(folder, text, name="data.yaml"):
    (folder / "data.yaml").unlink()
    (folder / name).write_text(text + NAMES)
    return folder


PATHS = {
    "Linux": ("", "/home/x/mine/{}"),
    "Windows": ("", "D:\\sets\\mine\\{}"),
    "below another path": ("path: D:\\sets\\mine\n", "{}"),
    "above": ("", "../../../{}"),
    "existing, below one that is missing": ("path: ../datasets/mine\n", "./{}"),
    "missing": ("", "/x/somewhere/{0[0]}-{0[1]}"),
    "not a path": ("", "../../.."),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", PATHS)
@pytest.mark.parametrize("layout", ["yolo", "roboflow_yolo"])
def test_yaml_paths(layout, case, packed, tmp_path, expected):
    folder = getattr(source_files, layout)(tmp_path / "set", SPLITS)
    pattern = {"yolo": "images/{}", "roboflow_yolo": "{}/images"}[layout]
    head, path = PATHS[case]
    lines = [
        f"{name}: {path.format(pattern.format(on_disk))}\n"
        for name, on_disk in (("train", "train"), ("val", "val" if layout == "yolo" else "valid"))
    ]
    source = write_yaml(folder, head + "".join(lines))
    if packed:
        source = source_files.zip_folder(source, tmp_path / "set.zip", "mine/")
    for name in SPLITS:
        assert_same(load_detection(source, name), expected[name])
    with open_source(source) as root:
        assert yolo.list_splits(root) == ["train", "val"]


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
def test_unconventional_folder_names(path, value, tmp_path, expected):
    folder = source_files.yolo(tmp_path, SPLITS)
    for subfolder in ("images", "labels"):
        for old, new in (("train", "one"), ("val", "two")):
            (folder / "frames" / subfolder).mkdir(parents=True, exist_ok=True)
            (folder / subfolder / old).rename(folder / "frames" / subfolder / new)
    write_yaml(folder, f"{path}train: {value.format('one')}\nval: {value.format('two')}\n")
    for name in SPLITS:
        assert_same(load_detection(folder, name), expected[name])


@pytest.mark.parametrize("layout", ["yolo", "roboflow_yolo"])
def test_path_end_shared_by_two_splits_is_not_used(layout, tmp_path, expected):
    """images/ exists, but reading all of it for each split would be a leak."""
    folder = getattr(source_files, layout)(tmp_path, SPLITS)
    write_yaml(folder, "train: /x/train/images\nval: /x/val/images\n")
    for name in SPLITS:
        assert_same(load_detection(folder, name), expected[name])


@pytest.mark.parametrize("packed", [False, True])
def test_images_next_to_the_yaml_and_images_subfolder(packed, tmp_path, expected):
    folder = source_files.roboflow_yolo(tmp_path / "set", {"val": 3})
    for name, image, _ in source_files.scenes("train", 4):
        source_files.save(folder / name, source_files.png(image))
    for file in (source_files.yolo(tmp_path / "plain", SPLITS) / "labels" / "train").iterdir():
        source_files.save(folder / file.name, file.read_bytes())
    shutil.move(folder / "valid", tmp_path / "set" / "valid")
    write_yaml(folder, "train: .\n")
    source = source_files.zip_folder(folder, tmp_path / "set.zip") if packed else folder
    assert_same(load_detection(source, "train"), expected["train"])
    shutil.move(tmp_path / "set" / "valid", folder / "second")
    write_yaml(folder, "val: second\n")
    source = source_files.zip_folder(folder, tmp_path / "set.zip") if packed else folder
    assert_same(load_detection(source, "val"), expected["val"])


def test_yaml_split_name_is_kept_and_its_alias_works(tmp_path, expected):
    folder = source_files.yolo(tmp_path, SPLITS)
    write_yaml(folder, "train: images/train\nvalid: images/val\n")
    assert yolo.list_splits(folder) == ["train", "valid"]
    for name in ("val", "valid"):
        assert_same(load_detection(folder, name), expected["val"])


def test_missing_path_is_an_error(tmp_path):
    folder = source_files.yolo(tmp_path, SPLITS)
    write_yaml(folder, "train: [images/train, D:\\more]\nval: images/val\ntest: /x/test\n")
    assert yolo.list_splits(folder) == ["train", "val"]
    with pytest.raises(UserError, match=r"data.yaml: train: D:\\more: no trailing part of that"):
        load_detection(folder, "train")
    with pytest.raises(UserError, match=r"test: /x/test: no trailing .*nor images/test or test/"):
        load_detection(folder, "test")
    (folder / "images").rename(folder / "pictures")
    with pytest.raises(UserError, match=r"data.yaml: no images next to it; train: .*test: /x/test"):
        load_detection(folder, "train")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("line", ["images/train/{}", "./images/train/{}", "/x/images/train/{}"])
def test_image_list(line, packed, tmp_path, expected):
    folder = source_files.yolo(tmp_path / "set", SPLITS)
    for name in SPLITS:  # both splits in one folder, as in darknet
        for file in (folder / "images" / name).iterdir():
            file.rename(folder / "images" / file.name)
        for file in (folder / "labels" / name).iterdir():
            file.rename(folder / "labels" / file.name)
        rows = [line.replace("train/", "").format(one) for one, *_ in source_files.scenes(name, 9)]
        source_files.save(folder / "lists" / f"{name}.txt", "\n".join(rows[: SPLITS[name]]) + "\n")
    write_yaml(folder, "path: /x\ntrain: /x/set/lists/train.txt\nval: lists/val.txt\n")
    source = source_files.zip_folder(folder, tmp_path / "set.zip") if packed else folder
    for name in SPLITS:
        split = load_detection(source, name)
        assert split.names == tuple(f"images/{one}" for one in expected[name].names)
        assert_same(split._replace(names=expected[name].names), expected[name])
    with open_source(source) as root:
        assert yolo.list_splits(root) == ["train", "val"]


def test_missing_image_of_a_list_is_an_error(tmp_path):
    folder = source_files.yolo(tmp_path, SPLITS)
    (folder / "train.txt").write_text("images/train/train_00.png\n/x/images/train/ghost.png\n")
    write_yaml(folder, "train: train.txt\n")
    with pytest.raises(UserError, match=r"images/train/ghost.png: no such image \(1 of 2 images"):
        load_detection(folder, "train")


def test_yaml_of_any_name_if_unique(tmp_path, expected):
    folder = source_files.yolo(tmp_path, SPLITS)
    write_yaml(folder, "train: images/train\nval: images/val\n", "hit-uav.yaml")
    (folder / "hyp.yaml").write_text("lr0: 0.01\n")
    assert_same(load_detection(folder, "train"), expected["train"])
    (folder / "other.yml").write_text(NAMES)
    with pytest.raises(UserError, match=r"hit-uav.yaml, other.yml all have names; keep one"):
        load_detection(folder, "train")


@pytest.mark.parametrize("packed", [False, True])
def test_images_in_subfolders_keep_their_path(packed, tmp_path, expected):
    folder = source_files.yolo(tmp_path / "set", SPLITS)
    for kind, suffix in (("images", "png"), ("labels", "txt")):
        for number in (0, 1, 2):
            file = folder / kind / "train" / f"train_{number:02d}.{suffix}"
            (file.parent / "a" / "b").mkdir(parents=True, exist_ok=True)
            file.rename(file.parent / ("a" if number == 0 else "a/b") / file.name)
    source = source_files.zip_folder(folder, tmp_path / "set.zip") if packed else folder
    split = load_detection(source, "train")
    names = ("a/b/train_01.png", "a/b/train_02.png", "a/train_00.png", "train_03.png")
    assert split.names == names
    order = [1, 2, 0, 3]
    images = expected["train"].inputs["image"]
    assert np.array_equal(split.inputs["image"], images[order])
    for field in ("boxes", "labels"):
        assert np.array_equal(getattr(split, field), getattr(expected["train"], field)[order])
    if not packed:
        source_files.save(folder / "labels" / "train" / "c" / "stray.txt", "0 .5 .5 .1 .1")
        with pytest.raises(UserError, match=r"c/stray.txt: no image stray in .*images/train"):
            load_detection(source, "train")


def labelimg(folder, class_folder):
    """A set without a yaml, with classes.txt where labelImg writes it."""
    source_files.yolo(folder, SPLITS)
    (folder / "data.yaml").unlink()
    if class_folder == "{}":  # images and labels in one folder
        for subfolder in ("images", "labels"):
            for name in SPLITS:
                shutil.copytree(folder / subfolder / name, folder / name, dirs_exist_ok=True)
            shutil.rmtree(folder / subfolder)
    elif class_folder == "{}/labels":
        for name in SPLITS:
            for subfolder in ("images", "labels"):
                shutil.move(folder / subfolder / name, folder / name / subfolder)
    for name in SPLITS:
        source_files.save(folder / class_folder.format(name) / "classes.txt", "person\ncar\n")
        source_files.save(folder / class_folder.format(name) / "backup" / "notes.md", "no split")
    return folder


@pytest.mark.parametrize("packed", ["folder", "folder in a folder", "zip"])
@pytest.mark.parametrize("class_folder", ["", "labels", "labels/{}", "{}", "{}/labels"])
def test_classes_in_the_folders_of_labelimg(class_folder, packed, tmp_path, expected):
    source = labelimg(tmp_path / "above" / "set", class_folder)
    if packed == "folder in a folder":
        source = source.parent
    if packed == "zip":
        source = source_files.zip_folder(source, tmp_path / "set.zip")
    for name in SPLITS:
        assert_same(load_detection(source, name), expected[name])
    with open_source(source) as root:
        assert sorted(yolo.list_splits(root)) == ["train", "val"]


def test_class_lists_may_grow_but_not_differ(tmp_path):
    folder = labelimg(tmp_path, "{}")
    (folder / "val" / "classes.txt").write_text("person\ncar\nboat\n")
    assert load_detection(folder, "train").classes == ("person", "car", "boat")
    (folder / "val" / "classes.txt").write_text("car\nperson\n")
    with pytest.raises(UserError, match=r"val/classes.txt: other classes than in .*make the two"):
        load_detection(folder, "train")


def test_yaml_and_home_folder_as_source(tmp_path, expected, monkeypatch):
    folder = source_files.yolo(tmp_path / "set", SPLITS)
    monkeypatch.setenv("HOME", str(tmp_path))
    for source in (folder / "data.yaml", "~/set", "~/set/data.yaml"):
        assert_same(load_detection(source, "train"), expected["train"])
    write_yaml(folder, "train: images/val\n", "other.yaml")
    (folder / "data.yaml").write_text("train: images/train\nnames: [car, person]\n")
    assert_same(load_detection(folder / "other.yaml", "train"), expected["val"])
    assert load_detection(folder / "data.yaml", "train").classes == ("car", "person")
    with pytest.raises(UserError, match=r"other.yaml: a file of YOLO, but format = 'voc'"):
        load_detection(folder / "other.yaml", "train", layout="voc")


def cvat_yolo(folder, lists=True, data="data/"):
    """CVAT's YOLO 1.1, as https://docs.cvat.ai describes it; older versions write data/ before
    paths.
    """
    source_files.yolo(folder / "plain", SPLITS)
    for split, cvat in (("train", "train"), ("val", "valid")):
        rows = []
        for parent in ("images", "labels"):
            for file in (folder / "plain" / parent / split).iterdir():
                source_files.save(folder / f"obj_{cvat}_data" / file.name, file.read_bytes())
        for name, *_ in source_files.scenes(split, SPLITS[split]):
            rows.append(f"{data}obj_{cvat}_data/{name}\n")
            label = folder / f"obj_{cvat}_data" / name.replace(".png", ".txt")
            label.touch()  # images without objects have an empty file
        if lists:
            (folder / f"{cvat}.txt").write_text("".join(rows))
    shutil.rmtree(folder / "plain")
    (folder / "obj.names").write_text("person\ncar\n")
    return folder


CVAT_DATA = (
    "classes = 2\nnames = data/obj.names\ntrain = data/train.txt\nvalid = data/valid.txt\n"
    "backup = backup/\n"
)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("files", ["obj.data", "obj.data without data/", "lists", "folders"])
def test_yolo_of_cvat(files, packed, tmp_path, expected):
    data = "" if "without" in files else "data/"
    source = cvat_yolo(tmp_path / "set", lists=files != "folders", data=data)
    if "obj.data" in files:
        (source / "obj.data").write_text(CVAT_DATA.replace("data/", data))
    if packed:
        source = source_files.zip_folder(source, tmp_path / "set.zip")
    with open_source(source) as root:
        assert yolo.list_splits(root) == ["train", "valid"]
    for name in SPLITS:
        split = load_detection(source, name)
        assert_same(split._replace(names=expected[name].names), expected[name])


def test_yolo_of_cvat_without_images_is_an_error(tmp_path):
    folder = cvat_yolo(tmp_path)
    for file in folder.rglob("*.png"):
        file.unlink()
    with pytest.raises(UserError, match=r"obj_train_data/train_00.png: no such image \(4 of 4"):
        load_detection(folder, "train")


def test_ultralytics_yolo_of_cvat(tmp_path, expected):
    folder = source_files.yolo(tmp_path, SPLITS)
    for name, n in SPLITS.items():
        rows = [f"data/images/{name}/{one}\n" for one, *_ in source_files.scenes(name, n)]
        (folder / f"{name}.txt").write_text("".join(rows))
    write_yaml(folder, "path: ./\ntrain: train.txt\nval: val.txt\n")
    for name in SPLITS:
        split = load_detection(folder, name)
        assert_same(split._replace(names=expected[name].names), expected[name])


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_set_without_splits_is_the_split_all(flat, packed, tmp_path, expected):
    """Label Studio's export; with `flat` a folder of labelImg."""
    folder = source_files.yolo(tmp_path / "set", {"train": 4})
    for parent in ("images", "labels"):
        for file in (folder / parent / "train").iterdir():
            file.rename(folder / ("" if flat else parent) / file.name)
        (folder / parent / "train").rmdir()
    (folder / "data.yaml").unlink()
    (folder / "notes.json").write_text('{"categories": [], "info": {}}')
    message = r"train_00.txt: a YOLO label file, but no file names the classes; write .*classes.txt"
    with pytest.raises(UserError, match=message):
        load_detection(folder, "train")
    (folder / "classes.txt").write_text("person\ncar\n")
    source = source_files.zip_folder(folder, tmp_path / "set.zip") if packed else folder
    assert_same(load_detection(source, "all"), expected["train"])
    with pytest.raises(UserError, match=r"no images of a split 'train'; .*prepare .* --split"):
        load_detection(source, "train")


def test_yaml_and_classes_must_agree(tmp_path):
    folder = source_files.yolo(tmp_path, SPLITS)
    (folder / "classes.txt").write_text("person\ncar\nboat\n")
    assert load_detection(folder, "train").classes == ("person", "car")
    (folder / "classes.txt").write_text("car\nperson\n")
    with pytest.raises(UserError, match=r"classes.txt: car, person; but .*data.yaml: person, car"):
        load_detection(folder, "train")
    assert load_detection(folder / "data.yaml", "train").classes == ("person", "car")


def test_image_whose_label_file_is_not_text_is_left_out(tmp_path, expected):
    folder = source_files.yolo(tmp_path, SPLITS)
    (folder / "labels/train/train_01.txt").write_bytes("0 .5 .5 .1 .1".encode("utf-16"))
    with pytest.raises(UserError, match=r"train_01\.txt: not text in UTF-8"):
        load_detection(folder, "train")
    problems = []
    split = load_detection(folder, "train", on_error=lambda *problem: problems.append(problem))
    assert [problem for problem, _ in problems] == ["bad label file"]
    assert split.names == tuple(n for n in expected["train"].names if n != "train_01.png")


@pytest.mark.parametrize("value", ["list.txt", "[images/train, list.txt]"])
def test_image_that_is_listed_twice_is_one_image(value, tmp_path, expected):
    folder = source_files.yolo(tmp_path, SPLITS)
    paths = [f"./{path.relative_to(folder)}\n" for path in folder.glob("images/train/*.png")]
    (folder / "list.txt").write_text("".join(paths * 2))
    write_yaml(folder, f"train: {value}\nval: images/val\n")
    split = load_detection(folder, "train")
    assert len(split.names) == SPLITS["train"]
    np.testing.assert_array_equal(split.boxes, expected["train"].boxes)
