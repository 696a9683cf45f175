"""Paths of options and Python calls: "~" is the home folder in all of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tinyjax
from launch import __main__ as launch
from launch.job import make_job
from tests.data.layouts import source_files
from tests.untrained import write_untrained_run
from tinyjax import average, evaluate, predict, preflight, prepare, report, rgn
from tinyjax.config import parse_options
from tinyjax.config.paths import parse_local_path, parse_path
from tinyjax.data.sources import open_source
from tinyjax.errors import UserError
from tinyjax.reporting.run_folders import path_key
from tinyjax.study import _make_stage
from tinyjax.transfer.starting_weights import load_starting_weights


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The home folder; no test may write to a folder "~" of the working directory."""
    home, work = tmp_path / "home", tmp_path / "work"
    for folder in (home, work):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    yield home
    assert not (work / "~").exists()


@pytest.mark.parametrize("parse", [parse_path, parse_local_path])
def test_home_is_replaced_only_at_the_beginning(parse, home):
    assert parse("~/a/~b") == parse(Path("~/a/~b")) == home / "a" / "~b"
    assert parse("~") == home
    assert parse("./~") == Path("~")
    assert parse("a/~") == Path("a/~")
    assert parse("~no-such-user/a") == Path("~no-such-user/a")


def test_user_without_a_home_folder(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # of an unknown user, without HOME
    with pytest.raises(UserError, match="~/x: this user has no home folder"):
        parse_path("~/x")
    assert parse_path("~x") == Path("~x")


def test_local_path_is_not_in_a_bucket():
    with pytest.raises(UserError, match="gs://bucket/a: give a path on this machine"):
        parse_local_path("gs://bucket/a")


@pytest.mark.parametrize(
    ("module", "argv", "field"),
    [
        ("train", ["--config=c.py", "--workdir=~/x"], "workdir"),
        (average, ["--workdir=r", "--start=~/x"], "start"),
        (evaluate, ["--workdir=~/x"], "workdir"),
        (rgn, ["--workdir=~/x"], "workdir"),
        (predict, ["--workdir=~/x", "--input=i", "--output=o"], "workdir"),
        (predict, ["--workdir=r", "--input=i", "--output=~/x"], "output"),
        (prepare, ["~/x", "--check"], "source"),
        (prepare, ["a", "--to=~/x"], "to"),
        (prepare, ["a", "--check", "--report=~/x"], "report"),
    ],
)
def test_options(module, argv, field, home):
    flags = getattr(module, "FLAGS", {})
    required = [name for name in ("config", "workdir") if f"--{name}=" in " ".join(argv)]
    assert getattr(parse_options("x", None, argv, flags, required), field) == home / "x"


def test_missing_files_are_named_in_the_home_folder(home):
    with pytest.raises(UserError, match=f"{home}/x: no such folder"):
        report.main(["~/x"])
    with pytest.raises(UserError, match=f"--prices {home}/x"):
        preflight.main(["--config=c.py", "--accelerator=cpu", "--prices=~/x"])
    with pytest.raises(UserError, match=f"--input {home}/x"):
        predict.find_files(["~/x"])
    with pytest.raises(UserError, match=f"{home}/x"):
        tinyjax.load("~/x")
    with pytest.raises(UserError, match=f"no such Python file: {home}/x.py"):
        tinyjax.train("~/x.py", "~/run")


def test_prepare_reads_and_writes_the_home_folder(home):
    source_files.coco(home / "data", {"train": 2, "val": 1})
    assert prepare.main(["~/data", "--check", "--report=~/report"]) == 0
    assert (home / "report" / "report.txt").exists()
    assert prepare.main(["~/data", "--to=~/prepared"]) == 0
    with open_source("~/prepared") as root:
        assert root == home / "prepared"


def test_runs_in_the_home_folder(home):
    run = write_untrained_run(home / "run")
    assert tinyjax.load("~/run").classes
    for path in ("~/run", f"~/run/weights/{next(run.rglob('*.safetensors')).name}"):
        assert load_starting_weights(path, "mobilenetv3/s-6").arrays
    assert path_key("~/run") == path_key(home.resolve() / "run")
    assert _make_stage("a", "~/run") == run
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(home / "a,b.png")
    assert predict.find_files(["~/*.png"]) == [home / "a,b.png"]


def test_launch_writes_to_the_home_folder(home):
    assert make_job("c.py", (), "~/x", 2).workdir == str(home / "x")
    with pytest.raises(UserError, match="no such folder"):
        launch.main(["status", "~/x"])
