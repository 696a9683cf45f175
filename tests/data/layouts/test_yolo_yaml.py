"""The class names, paths and words of YOLO's yaml and classes.txt."""

import pytest

from tests.data.layouts.yolo_sets import BOX, read_boxes, write
from tests.data.loaders import load_detection
from tinyjax.errors import UserError

WORDS = "no, yes, on, 010, null, 1e3, 2024-01-01, 0x1F, 1_000, ~, 12:30, 1.10, True"


@pytest.mark.parametrize("form", ["list", "block", "dict", "quoted keys"])
def test_class_names_are_read_as_written(form, tmp_path):
    names = WORDS.split(", ")
    yaml = {
        "list": f"names: [{WORDS}]\n",
        "block": "names:\n" + "".join(f"- {name}\n" for name in names),
        "dict": "names:\n" + "".join(f"  {i}: {n}\n" for i, n in [*enumerate(names)][::-1]),
        "quoted keys": "names:\n" + "".join(f"  '{i}': \"{n}\"\n" for i, n in enumerate(names)),
    }[form]
    folder = write(tmp_path, f"12 {BOX}", yaml=f"nc: 13\nval: null\ntest:\n{yaml}")
    split = load_detection(folder, "train")
    assert split.classes == tuple(names)
    assert split.labels[0, 0] == 12


def test_paths_are_read_as_written(tmp_path):
    folder = write(tmp_path, f"0 {BOX}")
    for subfolder in ("images", "labels"):
        (folder / subfolder / "train").rename(folder / subfolder / "010")
    for yaml in ("train: images/010", "path: images\ntrain: 010", "train: [~, images/010]"):
        (folder / "data.yaml").write_text(f"{yaml}\nval: ~\nnames: [a]\n")
        assert read_boxes(folder)[0] == [[0, 36, 24, 60, 40]]


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("nc: 3\nnames: [a, b]", "nc is 3, but names has 2; correct one of them"),
        ("nc: two\nnames: [a, b]", "nc is two, but names has 2"),
        ("names: [a, b, a]", "classes 0 and 2 are both 'a'; rename one"),
        ("names: [a, ' a ']", "classes 0 and 1 are both 'a'"),
        ("names: [a, '']", "class 1 has no name"),
        ("names:\n  0: a\n  1:\n", "class 1 has no name"),
        ("names: {0: a, 0: b}", "not YAML .0: given twice"),
        ("names: {0: a, 2: b}", "names: .*; give the classes, a list or 0: name"),
        ("names: {a: 0, b: 1}", "names: .*; give the classes"),
        ("names: {00: a}", "names: .*; give the classes"),
        ("names: [a, [b]]", "names: .*; give the classes"),
        ("names: coco.names", "names: 'coco.names'; give the classes"),
        ("names: []", r"names: \[\]; give the classes"),
        ("nc: 2", "names: None; give the classes"),
        ("names: " + 2000 * "[", "not YAML"),
    ],
)
def test_invalid_class_names_are_an_error(yaml, message, tmp_path):
    folder = write(tmp_path, f"0 {BOX}", yaml=yaml)
    with pytest.raises(UserError, match=f"data.yaml: {message}"):
        load_detection(folder, "train")


def test_lines_of_classes_txt_are_class_numbers(tmp_path):
    folder = write(tmp_path, f"1 {BOX}")
    (folder / "data.yaml").unlink()
    for text in (" no \n010\t\n\n\n", "no\r\n010"):
        (folder / "classes.txt").write_text(text)
        split = load_detection(folder, "train")
        assert (split.classes, split.labels[0, 0]) == (("no", "010"), 1)
    (folder / "classes.txt").write_text("no\n\n010\n")
    with pytest.raises(UserError, match=r"classes.txt: class 1 has no name; give each"):
        load_detection(folder, "train")
    (folder / "classes.txt").write_text("no\nno\n")
    with pytest.raises(UserError, match=r"classes.txt: classes 0 and 1 are both 'no'"):
        load_detection(folder, "train")
