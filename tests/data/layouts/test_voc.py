"""Variants of VOC: names with spaces, lists of a class, Kaggle's folders, broken xml."""

import pytest

from tests.data.layouts import source_files
from tests.data.layouts.source_files import assert_same
from tests.data.loaders import load_detection
from tinyjax.data.layouts import voc
from tinyjax.data.layouts.recognition import find_layout
from tinyjax.data.sources import open_source
from tinyjax.errors import UserError

SPLITS = {"train": 4, "val": 3}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = source_files.coco(tmp_path_factory.mktemp("reference"), SPLITS)
    return {name: load_detection(folder, name, source_files.CLASSES) for name in SPLITS}


def lists(folder):
    return folder / "ImageSets" / "Main"


@pytest.mark.parametrize("number", ["", " 1", "  -1", " 0"])
def test_names_with_spaces_and_presence_numbers(number, tmp_path, expected):
    """A trailing number belongs to the name if an image of that name exists."""
    folder = source_files.voc(tmp_path, SPLITS)
    for folder_name, suffix in (("JPEGImages", "png"), ("Annotations", "xml")):
        for file in (folder / folder_name).iterdir():
            i = int(file.stem[-2:])
            file.rename(file.with_name(f"{file.stem[:-3]} {i}.{suffix}"))
    for name, n in SPLITS.items():
        text = "".join(f"{name} {i}{number}\n" for i in range(n))
        (lists(folder) / f"{name}.txt").write_text(text)
    assert voc.list_splits(folder) == ["train", "val"]
    split = load_detection(folder, "train", source_files.CLASSES)
    assert split.names == ("train 0.png", "train 1.png", "train 2.png", "train 3.png")
    assert_same(split._replace(names=expected["train"].names), expected["train"])


@pytest.mark.parametrize("packed", [False, True])
def test_class_lists_of_the_devkit_are_not_splits(packed, tmp_path):
    folder = source_files.voc(tmp_path / "set", SPLITS)
    names = [name.removesuffix(".png") for name, *_ in source_files.scenes("train", 4)]
    for folder_name in ("person", "diningtable"):
        rows = [f"{name} {i % 3 - 1:2d}" for i, name in enumerate(names)]
        (lists(folder) / f"{folder_name}_train.txt").write_text("\n".join(rows))
    (lists(folder) / "night_train.txt").write_text("\n".join(names[:2]))  # a custom split
    (lists(folder) / "extra_data.txt").write_text(f"{names[0]} 1\n")
    source = source_files.zip_folder(folder, tmp_path / "set.zip") if packed else folder
    with open_source(source) as root:
        assert voc.list_splits(root) == ["extra_data", "night_train", "train", "val"]


def kaggle(folder):
    source_files.voc(folder, SPLITS)
    (folder / "JPEGImages").rename(folder / "images")
    (folder / "Annotations").rename(folder / "annotations")
    return folder


def test_kaggle_folders_with_lists(tmp_path, expected):
    folder = kaggle(tmp_path)
    for name in SPLITS:
        assert_same(load_detection(folder, name, source_files.CLASSES), expected[name])


@pytest.mark.parametrize("layout", ["auto", "voc"])
def test_error_without_lists_says_what_to_write(layout, tmp_path):
    folder = kaggle(tmp_path)
    for file in lists(folder).iterdir():
        file.unlink()
    message = r"annotations: VOC files without splits; .* into .*ImageSets/Main/train.txt and val"
    with pytest.raises(UserError, match=message):
        load_detection(folder, "train", layout=layout)


def test_xml_without_images_does_not_hide_yolo(tmp_path, expected):
    folder = source_files.yolo(tmp_path, SPLITS)
    for name, _, objects in source_files.scenes("train", 4):
        file = folder / "annotations" / name.replace(".png", ".xml")
        source_files.save(file, source_files.voc_xml(name, objects, 1))
    assert find_layout(folder, "auto").__name__.endswith("yolo")
    assert_same(load_detection(folder, "train"), expected["train"])


@pytest.mark.parametrize("packed", [False, True])
def test_images_and_xml_in_subfolders(packed, tmp_path, expected):
    """As CVAT exports the tasks of a project."""
    folder = source_files.voc(tmp_path / "set", SPLITS)
    for name, n in SPLITS.items():
        for i in range(n):
            for parent, suffix in (("JPEGImages", "png"), ("Annotations", "xml")):
                file = folder / parent / f"{name}_{i:02d}.{suffix}"
                (file.parent / "a").mkdir(exist_ok=True)
                file.rename(file.parent / "a" / file.name)
        (lists(folder) / f"{name}.txt").write_text("".join(f"a/{name}_{i:02d}\n" for i in range(n)))
    source = source_files.zip_folder(folder, tmp_path / "set.zip") if packed else folder
    for name in SPLITS:
        split = load_detection(source, name, source_files.CLASSES)
        assert split.names == tuple(f"a/{one}" for one in expected[name].names)
        assert_same(split._replace(names=expected[name].names), expected[name])


@pytest.mark.parametrize("wrap", ["", "mine/"])
def test_flat_splits_in_subfolders(wrap, tmp_path, expected):
    folder = source_files.flat_voc(tmp_path / wrap, SPLITS)
    for file in [*folder.rglob("*.*")]:
        (file.parent / "a").mkdir(exist_ok=True)
        file.rename(file.parent / "a" / file.name)
    assert voc.list_splits(tmp_path) == ["train", "valid"]
    for name in SPLITS:
        split = load_detection(tmp_path, name, source_files.CLASSES, first_pixel=0)
        assert_same(split._replace(names=expected[name].names), expected[name])


@pytest.mark.parametrize("folders", [("JPEGImages", "Annotations"), ("images", "Annotations"), ""])
def test_set_without_splits_is_the_split_all(folders, tmp_path, expected):
    """Label Studio exports images/ and Annotations/, labelImg one folder."""
    folder = source_files.voc(tmp_path, {"train": 4})
    for file in lists(folder).iterdir():
        file.unlink()
    for old, new in zip(("JPEGImages", "Annotations"), folders or (".", "."), strict=True):
        for file in [*(folder / old).iterdir()]:
            (folder / new).mkdir(exist_ok=True)
            file.rename(folder / new / file.name)
        if new != old:
            (folder / old).rmdir()
    assert voc.list_splits(folder) == ["all"]
    split = load_detection(folder, "all", source_files.CLASSES, first_pixel=1)
    assert_same(split, expected["train"])
    with pytest.raises(UserError, match=r"without splits; .* or run python -m tinyjax.prepare"):
        load_detection(folder, "train")


@pytest.mark.parametrize("layout", ["voc", "flat_voc"])
def test_broken_xml_is_reported_once_by_its_split(layout, tmp_path):
    folder = getattr(source_files, layout)(tmp_path, SPLITS)
    next(folder.rglob("val_00.xml")).write_text("<annotation>")
    problems = {name: [] for name in SPLITS}
    for name, rows in problems.items():
        load_detection(
            folder, name, first_pixel=0, on_error=lambda *one, rows=rows: rows.append(one)
        )
    assert problems["train"] == []
    ((folder_name, message),) = problems["val"]
    assert folder_name == "bad label file"
    assert "val_00.xml: not XML" in message


LABELME = (
    "<annotation><filename>a.png</filename><object><name>car</name><polygon><pt><x>1</x><y>2</y>"
    "</pt></polygon></object></annotation>"
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace(">96<", ">inf<"), "size: cannot convert float infinity"),
        (lambda text: text.replace(">96<", ">wide<"), "size: could not convert .*; give numbers"),
        (lambda text: LABELME, "object 1: <bndbox>: no xmin; give xmin, ymin, xmax, ymax"),
        (lambda text: text + text, "not XML"),
    ],
)
def test_xml_that_cannot_be_read_is_one_problem(change, message, tmp_path):
    folder = source_files.voc(tmp_path, SPLITS)
    file = folder / "Annotations" / "train_01.xml"
    file.write_text(change(file.read_text()))
    with pytest.raises(UserError, match=f"train_01.xml: {message}"):
        load_detection(folder, "train")
    problems = []
    split = load_detection(folder, "train", on_error=lambda *problem: problems.append(problem))
    assert [problem for problem, _ in problems] == ["bad label file"]
    assert len(split.names) == 3


def test_lists_of_file_names(tmp_path, expected):
    folder = source_files.voc(tmp_path, SPLITS)
    file = lists(folder) / "train.txt"
    file.write_text("".join(f"{name}.png\n" for name in file.read_text().split()))
    assert_same(load_detection(folder, "train", source_files.CLASSES), expected["train"])


def test_name_that_is_listed_twice_is_one_image(tmp_path, expected):
    folder = source_files.voc(tmp_path, SPLITS)
    file = lists(folder) / "train.txt"
    file.write_text(file.read_text() * 2)
    assert_same(load_detection(folder, "train", source_files.CLASSES), expected["train"])
