"""python -m tinyjax.prepare: the report and the conversion, on files of the true layout."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyjax import errors, prepare

sys.path.insert(0, str(Path(__file__).parent / "data"))
import layouts

SPLITS = {"train": 5, "val": 3}


def run(*argv):
    return errors.exit_code(lambda: prepare.main([str(a) for a in argv]))


def test_check_counts_what_is_there_and_draws_it(tmp_path, capsys):
    source = layouts.zipped(layouts.yolo(tmp_path / "set", SPLITS), tmp_path / "set.zip")
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
        assert (sheet == (0xF0, 0xE4, 0x42)).all(-1).any()  # boxes in the first class's colour


def test_check_lists_every_problem_and_goes_on(tmp_path, capsys):
    source = layouts.coco(tmp_path / "set", SPLITS)
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
        "1 images with boxes that overhang it",
        "1 images with boxes that are there twice",
        "val_00.png: not a readable image",
        "val: 1 images",
    ):
        assert words in printed, words


def test_convert_then_check_and_train_on_it(tmp_path, capsys):
    source = layouts.voc(tmp_path / "set", SPLITS)
    assert run(source, "--to", tmp_path / "out") == 0
    assert f"data.common.source = '{tmp_path / 'out'}'" in capsys.readouterr().out
    assert run(tmp_path / "out", "--check", "--report", tmp_path / "report") == 0
    assert "train: 5 images, car 2, person 5" in capsys.readouterr().out


def test_convert_refuses_what_cannot_be_trained_on(tmp_path, capsys):
    source = layouts.coco(tmp_path / "set", SPLITS)
    (source / "images" / "val_00.png").write_bytes(b"no image")
    assert run(source, "--to", tmp_path / "out") == 2
    assert "val_00.png: not a readable image" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["{set}"], "give --check, to look at the data, or --to DIR"),
        (["{set}", "--check", "--to", "{set}/x"], "give --check, to look at the data, or --to"),
        (["{set}", "--to", "{set}"], "is not empty; name a new folder"),
        (["{set}/nowhere", "--check"], "no such folder"),
        (["{set}", "--check", "--split", "vall"], "did you mean 'val'"),
        (["{set}", "--check", "--classes", "persn"], "did you mean 'person'"),
        (["{set}", "--check", "--size", "0", "5"], "1 or more"),
    ],
)
def test_mistakes(argv, message, tmp_path, capsys):
    folder = layouts.coco(tmp_path / "set", SPLITS)
    assert run(*(item.format(set=folder) for item in argv)) == 2
    assert message in capsys.readouterr().err


def test_help_is_quick_to_come(monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        prepare.main(["--help"])
    assert end.value.code == 0
    assert "--check" in capsys.readouterr().out
