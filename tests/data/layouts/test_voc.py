"""VOC as people have it: names with spaces, lists of a class, Kaggle's folders, broken xml."""

import pytest

from tests.data.layouts import source_files
from tests.data.layouts.source_files import same
from tinyjax.data.detection import layout_of, load
from tinyjax.data.images import opened
from tinyjax.data.layouts import voc
from tinyjax.errors import UserError

SPLITS = {"train": 4, "val": 3}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = source_files.coco(tmp_path_factory.mktemp("reference"), SPLITS)
    return {name: load(folder, name, source_files.CLASSES) for name in SPLITS}


def lists(folder):
    return folder / "ImageSets" / "Main"


@pytest.mark.parametrize("number", ["", " 1", "  -1", " 0"])
def test_names_with_spaces_and_the_devkits_number(number, tmp_path, expected):
    """ "shot 1" is a name where there is such an image, and "shot" with a number where not."""
    folder = source_files.voc(tmp_path, SPLITS)
    for kind, suffix in (("JPEGImages", "png"), ("Annotations", "xml")):
        for place in (folder / kind).iterdir():
            i = int(place.stem[-2:])
            place.rename(place.with_name(f"{place.stem[:-3]} {i}.{suffix}"))
    for name, n in SPLITS.items():
        text = "".join(f"{name} {i}{number}\n" for i in range(n))
        (lists(folder) / f"{name}.txt").write_text(text)
    assert voc.splits(folder) == ["train", "val"]
    split = load(folder, "train", source_files.CLASSES)
    assert split.names == ("train 0.png", "train 1.png", "train 2.png", "train 3.png")
    same(split._replace(names=expected["train"].names), expected["train"])


@pytest.mark.parametrize("packed", [False, True])
def test_the_devkits_lists_of_a_class_are_no_splits(packed, tmp_path):
    folder = source_files.voc(tmp_path / "set", SPLITS)
    names = [name.removesuffix(".png") for name, *_ in source_files.scenes("train", 4)]
    for kind in ("person", "diningtable"):
        rows = [f"{name} {i % 3 - 1:2d}" for i, name in enumerate(names)]
        (lists(folder) / f"{kind}_train.txt").write_text("\n".join(rows))
    (lists(folder) / "night_train.txt").write_text("\n".join(names[:2]))  # a split of one's own
    (lists(folder) / "extra_data.txt").write_text(f"{names[0]} 1\n")
    source = source_files.zipped(folder, tmp_path / "set.zip") if packed else folder
    with opened(source) as root:
        assert voc.splits(root) == ["extra_data", "night_train", "train", "val"]


def kaggle(folder):
    source_files.voc(folder, SPLITS)
    (folder / "JPEGImages").rename(folder / "images")
    (folder / "Annotations").rename(folder / "annotations")
    return folder


def test_kaggles_folders_with_lists(tmp_path, expected):
    folder = kaggle(tmp_path)
    for name in SPLITS:
        same(load(folder, name, source_files.CLASSES), expected[name])


@pytest.mark.parametrize("layout", ["auto", "voc"])
def test_without_lists_it_is_said_what_to_write(layout, tmp_path):
    folder = kaggle(tmp_path)
    for file in lists(folder).iterdir():
        file.unlink()
    message = r"annotations: VOC files without splits; .* into .*ImageSets/Main/train.txt and val"
    with pytest.raises(UserError, match=message):
        load(folder, "train", layout=layout)


@pytest.mark.parametrize("layout", ["coco", "yolo"])
def test_xml_without_images_beside_it_hides_no_other_layout(layout, tmp_path, expected):
    folder = getattr(source_files, layout)(tmp_path, SPLITS)
    for name, _, objects in source_files.scenes("train", 4):
        file = folder / "annotations" / name.replace(".png", ".xml")
        source_files.save(file, source_files.voc_xml(name, objects, 1))
    assert layout_of(folder, "auto").__name__.endswith(layout)
    same(load(folder, "train"), expected["train"])


@pytest.mark.parametrize("layout", ["voc", "flat_voc"])
def test_a_broken_xml_is_named_once_and_by_its_own_split(layout, tmp_path):
    folder = getattr(source_files, layout)(tmp_path, SPLITS)
    next(folder.rglob("val_00.xml")).write_text("<annotation>")
    found = {name: [] for name in SPLITS}
    for name, rows in found.items():
        load(folder, name, first_pixel=0, refuse=lambda *one, rows=rows: rows.append(one))
    assert found["train"] == []
    ((kind, message),) = found["val"]
    assert kind == "bad label file"
    assert "val_00.xml: not XML" in message
