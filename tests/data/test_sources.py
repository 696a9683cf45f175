"""Sources: zips of other packers, broken zips, links in folders."""

import os
import shutil
import zipfile

import pytest

from tests.data.layouts import source_files
from tests.data.layouts.source_files import WRITERS, assert_same
from tests.data.loaders import load_classification, load_detection
from tests.miniatures import write_noise_images
from tinyjax.data.layouts.listing import walk_files
from tinyjax.data.sources import open_source
from tinyjax.errors import UserError

SPLITS = {"train": 4, "val": 3}
LAYOUTS = ("coco", "voc", "yolo", "roboflow yolo")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = source_files.coco(tmp_path_factory.mktemp("reference"), SPLITS)
    return {name: load_detection(folder, name, source_files.CLASSES) for name in SPLITS}


def zip_with_backslashes(folder, target, every=1, prefix=""):
    """A zip with backslashes in the name of every n-th entry, as older Windows packers write."""
    names = []
    with zipfile.ZipFile(target, "w") as file:
        for k, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
            name = prefix + path.relative_to(folder).as_posix()
            names += [name] if k % every == 0 else []
            file.writestr(name, path.read_bytes())
    data = target.read_bytes()
    for name in names:  # in the header of the entry and in the central directory
        data = data.replace(name.encode(), name.replace("/", "\\").encode())
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("prefix", ["", "a/", "a/b/c/d/"])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_zip_with_backslashes(layout, every, prefix, tmp_path, expected):
    source = WRITERS[layout](tmp_path / "set", SPLITS)
    source = zip_with_backslashes(source, tmp_path / "set.zip", every, prefix)
    assert any("\\" in info.orig_filename for info in zipfile.ZipFile(source).infolist())
    for name in SPLITS:
        assert_same(load_detection(source, name, source_files.CLASSES), expected[name])


def test_backslashes_do_not_leave_the_zip(tmp_path):
    source = tmp_path / "set.zip"
    with zipfile.ZipFile(source, "w") as file:
        file.writestr("..\\evil.png", b"")
    with pytest.raises(UserError, match="leaves the folder"), open_source(source):
        pass


@pytest.mark.parametrize("layout", LAYOUTS)
def test_zip_of_macos(layout, tmp_path, expected):
    folder = WRITERS[layout](tmp_path / "set", SPLITS)
    source = source_files.zip_folder(folder, tmp_path / "set.zip", "mine/")
    with zipfile.ZipFile(source, "a") as file:
        for name in [n for n in file.namelist() if not n.endswith("/")]:
            parent, _, base = name.rpartition("/")
            file.writestr(f"__MACOSX/{parent}/._{base}", b"\x00\x05\x16\x07")
        file.writestr("mine/.DS_Store", b"\x00")
        file.writestr("mine/Thumbs.db", b"\x00")
    for name in SPLITS:
        assert_same(load_detection(source, name, source_files.CLASSES), expected[name])


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.99])
def test_truncated_zip_is_an_error(fraction, tmp_path):
    source = source_files.zip_folder(source_files.coco(tmp_path / "a", SPLITS), tmp_path / "a.zip")
    data = source.read_bytes()
    source.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(UserError, match=r"a truncated or broken zip; copy or download it again"):
        load_detection(source, "train")


# ---- links


@pytest.mark.parametrize("target", ["../{}", ".", "..", "../..", "a"])
@pytest.mark.parametrize("layout", ["yolo", "roboflow yolo", "flat voc"])
def test_link_to_a_folder_that_is_read_anyway(layout, target, tmp_path, expected):
    folder = WRITERS[layout](tmp_path, SPLITS)
    for images in {file.parent for file in folder.rglob("train_*.*")}:
        (images / "a").mkdir()
        for file in images.glob("train_00.*"):
            file.rename(images / "a" / file.name)
        os.symlink(target.format(images.name), images / "all")
    split = load_detection(
        folder, "train", source_files.CLASSES, first_pixel=0, on_error=pytest.fail
    )
    assert split.names == ("a/train_00.png", *expected["train"].names[1:])
    assert_same(split._replace(names=expected["train"].names), expected["train"])


def test_set_above_a_link_is_not_read(tmp_path):
    """A COCO set two folders above, which the link leads to, is not a second format."""
    source_files.coco(tmp_path, SPLITS)
    folder = source_files.flat_voc(tmp_path / "inner", SPLITS)
    os.symlink("../..", folder / "train" / "all")
    assert load_detection(folder, "train", source_files.CLASSES, first_pixel=0).names


def test_folder_with_only_a_link_to_itself_is_not_read_forever(tmp_path):
    os.symlink(".", tmp_path / "all")
    with pytest.raises(UserError, match="no known layout"):
        load_detection(tmp_path, "train", source_files.CLASSES)


def test_links_to_each_other_end(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.png").touch()
    os.symlink("../b", tmp_path / "a" / "link")
    os.symlink("../a", tmp_path / "b" / "link")
    os.symlink("self", tmp_path / "self")
    assert [name for name, _ in walk_files(tmp_path / "a", ".png")] == ["a.png", "link/b.png"]
    (tmp_path / "self").unlink()
    assert [name for name, _ in walk_files(tmp_path, ".png")] == ["a/a.png", "b/b.png"]


def test_images_and_folders_elsewhere_may_be_links(tmp_path, expected):
    elsewhere = source_files.yolo(tmp_path / "elsewhere", SPLITS)
    folder = tmp_path / "set"
    for subfolder in ("images", "labels"):
        (folder / subfolder / "train").mkdir(parents=True)
        for file in (elsewhere / subfolder / "train").iterdir():
            os.symlink(file, folder / subfolder / "train" / file.name)
        os.symlink(elsewhere / subfolder / "val", folder / subfolder / "val")
    shutil.copy(elsewhere / "data.yaml", folder)
    for name in SPLITS:
        assert_same(load_detection(folder, name), expected[name])


@pytest.mark.parametrize("target", ["nowhere", "more"])
def test_links_without_target_are_errors(target, tmp_path):
    folder = source_files.yolo(tmp_path, SPLITS)
    link = folder / "images" / "train" / "more"
    os.symlink(target, link)
    with pytest.raises(UserError, match=r"train/more: a link without target; restore it"):
        load_detection(folder, "train")
    link.unlink()
    os.symlink("nowhere.png", folder / "images" / "train" / "more.png")
    with pytest.raises(UserError, match=r"more.png: no such image \(1 of 5 images"):
        load_detection(folder, "train")


def test_link_in_a_folder_of_classes(tmp_path):
    folder = write_noise_images(tmp_path)
    os.symlink("..", folder / "train" / "cat" / "all")
    assert len(load_classification(folder, "train", (8, 8)).names) == 8
