"""python -m tinyjax.prepare: the report and the conversion, on tiny sets."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.data.layouts import source_files
from tests.data.loaders import load_detection
from tinyjax import errors, prepare

SPLITS = {"train": 5, "val": 3}


def run(*argv):
    return errors.exit_code(lambda: prepare.main([str(a) for a in argv]))


def test_check_counts_and_draws_samples(tmp_path, capsys):
    source = source_files.zip_folder(
        source_files.yolo(tmp_path / "set", SPLITS), tmp_path / "set.zip"
    )
    assert run(source, "--check", "--report", tmp_path / "report") == 0
    printed = capsys.readouterr().out
    for words in (
        "labels 0 person, 1 car",
        "train: 5 images, person 5, car 2; 1 without objects",
        "val: 3 images, person 2, car 1; 1 without objects",
        "96 x 64 px",
        "val: 0 of 3 images (0 %) have a near-duplicate in train",
    ):
        assert words in printed, words
    assert (tmp_path / "report" / "report.txt").read_text() in printed + "\n"
    for name in SPLITS:
        sheet = np.asarray(Image.open(tmp_path / "report" / f"{name}.png"))
        assert (sheet == (0xF0, 0xE4, 0x42)).all(-1).any()  # boxes in the first class's color


def test_check_lists_all_problems(tmp_path, capsys):
    source = source_files.coco(tmp_path / "set", SPLITS)
    file = source / "annotations" / "instances_train.json"
    document = json.loads(file.read_text())
    a = document["annotations"]
    a[0]["bbox"], a[1]["bbox"], a[2]["bbox"] = [1, 1, 0, 5], [200, 1, 5, 5], [1, float("nan"), 5, 5]
    a[3]["bbox"] = [90, 60, 10, 10]
    a.append({**a[4], "id": 99})
    a.append({**a[4], "id": 100, "category_id": 77})
    file.write_text(json.dumps(document))
    (source / "images" / "val_00.png").write_bytes(b"no image")
    (source / "images" / "val_01.png").unlink()
    assert run(source, "--check", "--report", tmp_path / "report") == 2
    printed = capsys.readouterr().out
    for words in (
        "empty box: 1",
        "box outside: 1",
        "box not finite: 1",
        "unknown category: 1",
        "unreadable image: 1",
        "missing image: 1",
        "1 images with boxes that extend beyond the image",
        "1 images with boxes that occur twice",
        "val_00.png: not a readable image",
        "val: 1 images",
    ):
        assert words in printed, words


def test_check_says_how_ambiguous_labels_were_read(tmp_path, capsys):
    source = source_files.voc(tmp_path / "set", SPLITS)
    assert run(source, "--check", "--report", tmp_path / "report") == 0
    printed = capsys.readouterr().out
    rule = "6 VOC files of an unknown tool: pixels counted from 1"
    assert printed.count(rule) == len(SPLITS)
    assert "labelImg or CVAT, Label Studio, makesense.ai count from 0" in printed
    assert run(source, "--check", "--report", tmp_path / "report", "--first-pixel", "1") == 0
    assert "pixels counted" not in capsys.readouterr().out
    assert run(source, "--to", tmp_path / "out") == 0
    assert capsys.readouterr().out.count(rule) == 1


def test_check_counts_replaced_areas_and_files_that_are_listed_twice(tmp_path, capsys):
    source = source_files.coco(tmp_path / "set", SPLITS)
    file = source / "annotations" / "instances_train.json"
    document = json.loads(file.read_text())
    for annotation in document["annotations"][:3]:
        annotation["area"] = 1
    file.write_text(json.dumps(document))
    assert run(source, "--check", "--report", tmp_path / "report") == 0
    printed = capsys.readouterr().out
    assert "3 of 7 boxes have an area of at most 1 or above their width x height" in printed
    document["images"].append({**document["images"][0], "id": 99})
    file.write_text(json.dumps(document))
    assert run(source, "--check", "--report", tmp_path / "report") == 2
    assert "image listed twice: 1\n" in capsys.readouterr().out


def mixed(folder):
    """Images of 64 x 96, and two of 128 x 192 with boxes twice as large."""
    source = source_files.coco(folder, SPLITS)
    for name in SPLITS:
        file = source / "annotations" / f"instances_{name}.json"
        document = json.loads(file.read_text())
        info = next(i for i in document["images"] if i["file_name"] == f"{name}_00.png")
        info.update(width=192, height=128)
        for a in document["annotations"]:
            if a["image_id"] == info["id"]:
                a["bbox"] = [2 * number for number in a["bbox"]]
        file.write_text(json.dumps(document))
        path = source / "images" / f"{name}_00.png"
        Image.open(path).resize((192, 128), Image.Resampling.NEAREST).save(path)
    return source


def test_check_suggests_a_common_size(tmp_path, capsys):
    source = mixed(tmp_path / "set")
    assert run(source, "--check", "--report", tmp_path / "report") == 2  # training needs a size
    printed = capsys.readouterr().out
    for words in (
        "size of images, px        5 %   25 %   50 %   75 %   95 %\n"
        "  width                  96.0   96.0   96.0  120.0  192.0\n"
        "  height                 64.0   64.0   64.0   80.0  128.0\n",
        "checked at 96 x 64, letterboxed: sides of objects are in these pixels",
        "train: 5 images, person 5, car 2",
        "  96 x 64 px",
        "  person                  8.5    8.5    8.5    8.5    8.5",  # sqrt(6 * 12) in all images
        "mixed sizes: 1\n    images of 2 sizes; give a size, such as --size 64 96",
        "height=64,width=96",
    ):
        assert words in printed, words
    assert run(source, "--check", "--report", tmp_path / "report", "--size", 64, 96) == 0
    assert "mixed sizes" not in capsys.readouterr().out


def test_check_maps_deep_images_by_range16(tmp_path):
    source = source_files.coco(tmp_path / "set", SPLITS)
    for path in (source / "images").iterdir():
        Image.fromarray(np.full((64, 96), 300, np.uint16)).save(path)
    values = []
    for rule in ((), ("--range16", "range", 0, 600), ("--range16", "range", 0, 1200)):
        assert run(source, "--check", "--report", tmp_path / "report", *rule) == 0
        sheet = np.asarray(Image.open(tmp_path / "report" / "val.png").convert("L"))
        values.append(int(np.bincount(sheet[:64].ravel())[:-1].argmax()))
    assert values == [0, 128, 64]


def test_converted_set_passes_the_check(tmp_path, capsys):
    source = source_files.voc(tmp_path / "set", SPLITS)
    assert run(source, "--to", tmp_path / "out") == 0
    assert f"data.common.source = '{tmp_path / 'out'}'" in capsys.readouterr().out
    assert run(tmp_path / "out", "--check", "--report", tmp_path / "report") == 0
    assert "train: 5 images, car 2, person 5" in capsys.readouterr().out


def test_convert_stops_at_an_unreadable_image(tmp_path, capsys):
    source = source_files.coco(tmp_path / "set", SPLITS)
    (source / "images" / "val_00.png").write_bytes(b"no image")
    assert run(source, "--to", tmp_path / "out") == 2
    assert "val_00.png: not a readable image" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["coco", "voc", "yolo"])
def test_convert_with_skip_errors_writes_the_valid_images(layout, tmp_path, capsys):
    source = getattr(source_files, layout)(tmp_path / "set", SPLITS)
    for name in ("train_01.png", "val_00.png"):
        next(source.rglob(name)).write_bytes(b"no image")
    if layout == "coco":
        file = source / "annotations" / "instances_train.json"
        document = json.loads(file.read_text())
        document["annotations"][0]["bbox"] = [1, 1, 0, 5]
        file.write_text(json.dumps(document))
    elif layout == "voc":
        (source / "Annotations" / "train_00.xml").write_text("<annotation>")
    else:
        (source / "labels" / "train" / "train_00.txt").write_text("0 .5 .5 0 .1\n")
    assert run(source, "--to", tmp_path / "out", "--skip-errors") == 0
    printed = capsys.readouterr().out
    problem = "bad label file" if layout == "voc" else "empty box"
    for words in (
        "left out\n",
        "train_01.png: not a",
        "unreadable image: 2\n",
        f"\n{problem}: 1\n",
    ):
        assert words in printed, words
    assert f"train {3 if layout == 'voc' else 4}, val 2 images" in printed
    for name in SPLITS:
        classes = source_files.CLASSES
        expected = load_detection(source, name, classes, on_error=lambda *_: None)
        source_files.assert_same(load_detection(tmp_path / "out", name, classes), expected)


def test_convert_without_valid_images_is_an_error(tmp_path, capsys):
    source = source_files.coco(tmp_path / "set", SPLITS)
    for file in (source / "images").glob("val*"):
        file.unlink()
    assert run(source, "--to", tmp_path / "out", "--skip-errors") == 2
    assert not (tmp_path / "out").exists()
    output = capsys.readouterr()
    assert "split 'val' has no valid images" in output.err
    assert "val_00.png: no such image (3 of 3" in output.out + output.err
    assert run(source, "--check", "--report", tmp_path / "report") == 2
    output = capsys.readouterr()
    assert "val_00.png: no such image (3 of 3" in output.out + output.err


def test_fitted_anchors_are_the_sizes_of_the_objects(tmp_path, capsys):
    """Persons are 6 x 12, cars 20 x 10."""
    source = source_files.coco(tmp_path / "set", SPLITS)
    for options in ((), ("--size", 64, 96)):  # with a size, images are not read
        assert run(source, "--anchors", 2, *options) == 0
        printed = capsys.readouterr().out
        assert "2 anchors fitted to 7 objects of train: 4 per cell of stride 4, 1 per" in printed
        for split, objects in (("train", 5), ("val", 2)):
            rows = printed[printed.index(f"\n{split} ") :].splitlines()
            assert [row.split()[:2] for row in rows[2:4]] == [
                ["person", str(objects)],
                ["car", str(objects // 2)],
            ]
        assert '--config.model.anchors="(((6.0, 12.0, 2),), ((20.0, 10.0, 1),))"' in printed
    assert run(source, "--anchors", 1, "--levels", 1, "--classes", "car", "--only", "val") == 0
    assert '=4 --config.model.anchors="(((20.0, 10.0, 1),),)"' in capsys.readouterr().out


def test_images_of_several_sizes_need_a_size_to_fit_anchors(tmp_path, capsys):
    source = mixed(tmp_path / "set")
    assert run(source, "--anchors", 2) == 2
    assert "images of 2 sizes; give a size, such as --size 64 96" in capsys.readouterr().err
    assert run(source, "--anchors", 2, "--size", 64, 96) == 0


def test_reports_of_two_versions_of_a_set_have_their_own_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("set.v1", "set.v2"):
        source_files.coco(tmp_path / name, SPLITS)
        assert run(name, "--check") == 0
        assert (tmp_path / "runs/check" / name / "report.txt").exists()
    monkeypatch.chdir(tmp_path / "set.v1")
    assert run(".", "--check") == 0
    assert (tmp_path / "set.v1/runs/check/set.v1/report.txt").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{set}"], "give --check, to check the data, --split FRACTIONS, to divide it, --to"),
        (["{set}", "--check", "--to", "{set}/x"], "give --check, to check the data, --split"),
        (["{set}", "--to", "{set}"], "is not empty; give a new folder"),
        (["{set}/nowhere", "--check"], "no such folder"),
        (["{set}", "--check", "--only", "vall"], "did you mean 'val'"),
        (["{set}", "--check", "--classes", "persn"], "did you mean 'person'"),
        (["{set}", "--check", "--size", "0", "5"], "1 or more"),
        (["{set}", "--anchors", "2", "--check"], "give --check, to check the data, --split"),
        (["{set}", "--anchors", "0"], "give numbers, 1 or more"),
        (["{set}", "--anchors", "3"], "3 anchors: the objects have 2 different sizes"),
        (["{set}", "--anchors", "1"], "1 anchors for 2 levels"),
        (["{set}", "--anchors", "2", "--classes", "persn"], "did you mean 'person'"),
        (["{set}/nowhere", "--anchors", "2"], "no such folder"),
        (["{set}", "--check", "--skip-errors"], "--skip-errors: requires --to"),
        (
            ["{set}", "--check", "--range16", "range", "0", "all"],
            "range 0 all: give a rule and two",
        ),
    ],
)
def test_invalid_flags_are_errors(argv, message, tmp_path, capsys):
    folder = source_files.coco(tmp_path / "set", SPLITS)
    assert run(*(item.format(set=folder) for item in argv)) == 2
    assert message in capsys.readouterr().err
