"""Names beyond ASCII where the locale is not UTF-8, without Python's own UTF-8 mode."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.layouts import source_files
from tinyjax.run.csv_files import read_rows

ROOT = Path(__file__).parents[1]
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LANG": "C"}
CLASSES = ("人", "汽车")
SMALL = [
    *("--config.model.backbone=mobilenetv3/s-6", "--config.crop_size=(64,64)", "--config.batch=2"),
    *("--config.schedule.steps=2", "--config.schedule.warmup=1", "--config.eval_every=2"),
]


def run_command(folder, *words, environment=C_LOCALE):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "PYTHONUTF8"))}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)],
        capture_output=True,
        cwd=folder,
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


@pytest.fixture
def write_source(tmp_path, monkeypatch):
    """`write_source(layout) -> folder` of data whose files and classes have Chinese names."""
    plain = source_files.scenes
    monkeypatch.setattr(source_files, "CLASSES", CLASSES)
    monkeypatch.setattr(
        source_files, "scenes", lambda *a: [(f"图{name}", *rest) for name, *rest in plain(*a)]
    )
    return lambda name: getattr(source_files, name)(tmp_path / "数据", {"train": 4, "val": 2})


@pytest.mark.parametrize("layout", ["coco", "voc", "yolo"])
def test_data_is_checked_in_the_c_locale(layout, write_source, tmp_path):
    source = write_source(layout)
    flags = ["--check", "--report", "报告"]
    printed = run_command(tmp_path, "tinyjax.prepare", source, *flags)
    assert "train: 4 images, ? 4, ?? 2" in printed.decode("ascii")
    report = (tmp_path / "报告" / "report.txt").read_text(encoding="utf-8")
    assert "train: 4 images, 人 4, 汽车 2" in report


def test_console_shows_what_its_locale_can_encode(write_source, tmp_path):
    """Python starts again in UTF-8 mode, but writes to the console in its encoding."""
    source = write_source("coco")
    latin = {**C_LOCALE, "PYTHONIOENCODING": "latin-1:replace"}
    flags = ["--check", "--report", "é"]
    printed = run_command(tmp_path, "tinyjax.prepare", source, *flags, environment=latin)
    assert b"samples of each split to \xe9" in printed
    assert (tmp_path / "é" / "report.txt").exists()


@pytest.mark.slow
def test_run_in_the_c_locale(write_source, tmp_path):
    source, run = write_source("coco"), tmp_path / "跑"
    config = f"configs/own.py:source={source},classes=人+汽车"
    training = ["--config", config, "--workdir", run, *SMALL]
    run_command(tmp_path, "tinyjax.train", *training)
    log = (run / "log.txt").read_text(encoding="utf-8")
    assert "training: 4 images, 人 4, 汽车 2" in log
    rows = read_rows(run / "results.csv")
    assert {"AP/人", "AP/汽车"} <= rows[0].keys()
    run_command(tmp_path, "tinyjax.evaluate", "--workdir", run)
    assert {"AP/人", "AP/汽车"} <= read_rows(run / "evaluations" / "last.csv")[0].keys()
    run_command(tmp_path, "tinyjax.report", run)
    assert "汽车" in (run / "report.html").read_text(encoding="utf-8")
    flags = ["--input", source / "images", "--output", "出", "--threshold", "0.001"]
    run_command(tmp_path, "tinyjax.predict", "--workdir", run, *flags)
    predicted = json.loads((tmp_path / "出" / "predictions.json").read_bytes())
    assert {row["file_name"][0] for row in predicted} == {"图"}
    assert {row["category"] for row in predicted} <= {*CLASSES}
    assert read_rows(tmp_path / "出" / "predictions.csv")[0]["file"] == predicted[0]["file_name"]
    assert (tmp_path / "出" / "图train_00.png.png").exists()
