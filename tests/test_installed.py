"""The wheel: what it contains, and the commands where nothing but the wheel is installed."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyjax.run.csv_files import read_rows

ROOT = Path(__file__).parents[1]
SOURCES = ("tinyjax", "launch", "configs")
SMALL = [
    *("--config.model.backbone=mobilenetv3/s-6", "--config.crop_size=(64,64)", "--config.batch=4"),
    *("--config.data.common.size=(64,64)", "--config.data.train.n=8"),
    *("--config.data.suites.night.n=4", "--config.data.suites.day.n=4"),
    *("--config.schedule.steps=2", "--config.schedule.warmup=1", "--config.eval_every=2"),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that is built from a copy of the checkout, which stays unchanged."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    code = "import setuptools.build_meta as backend; backend.build_wheel('dist')"
    run(sys.executable, "-c", code, cwd=folder)
    (file,) = (folder / "dist").glob("*.whl")
    return file


def run(*words, **options):
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_wheel_contains_all_files_in_one_package(wheel):
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    expected = {
        f"{'' if name == 'tinyjax' else 'tinyjax/'}{file.relative_to(ROOT).as_posix()}"
        for name in SOURCES
        for file in (ROOT / name).rglob("*")
        if file.is_file() and file.suffix != ".pyc"
    }
    assert names == expected
    assert {"tinyjax/configs/studies/capacity.py", "tinyjax/launch/job.py"} <= names


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """`installed(*words)` runs a program of a new environment with the wheel in an empty folder."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "env", with_pip=True)
    programs = folder / "env" / "bin"
    run(programs / "pip", "install", "--no-deps", "--no-index", "--quiet", wheel)
    # The other packages are those of this environment. Its editable tinyjax stays hidden, because
    # Python does not read the path files of a folder that a path file adds.
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    (home := folder / "home").mkdir()
    (work := folder / "work").mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HOME": str(home)}

    def run_program(name, *words):
        return run(programs / name, *words, cwd=work, env=environment).stdout

    run_program.work, run_program.home, run_program.site = work, home, site
    return run_program


@pytest.mark.slow
def test_installed_package_is_the_wheel(installed):
    code = "import tinyjax, tinyjax.launch as l; print(tinyjax.__file__, l.__file__)"
    files = [Path(text) for text in installed("python", "-c", code).split()]
    assert all(installed.site in file.parents for file in files)
    missing = "import importlib.util as u; print(u.find_spec('launch'), u.find_spec('configs'))"
    assert installed("python", "-c", missing) == "None None\n"
    assert installed("tinyjax", "--version") == installed("python", "-m", "tinyjax", "--version")


@pytest.mark.slow
def test_installed_package_trains_evaluates_and_predicts(installed):
    training = ["--config", "configs/quickstart.py", "--workdir=~/run", *SMALL]
    installed("tinyjax", "train", *training)
    run_folder = installed.home / "run"
    trained = read_rows(run_folder / "results.csv")
    installed("python", "-m", "tinyjax.evaluate", "--workdir=~/run")
    assert (run_folder / "evaluations" / "last.csv").exists()
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(installed.work / "a.png")
    installed("tinyjax", "predict", "--workdir=~/run", "--input", "a.png", "--output=~/predicted")
    assert (installed.home / "predicted" / "predictions.json").exists()
    installed("tinyjax", "report", "~/run")
    assert (run_folder / "report.html").exists()
    # A worker finds the run finished.
    installed("tinyjax", "launch", "--engine=local", "--shards=1", *training)
    assert "done" in installed("tinyjax", "launch", "status", "~/run")
    assert {row["suite"] for row in trained} == {"night", "day"}
    assert not (installed.work / "~").exists()


@pytest.mark.slow
def test_installed_package_plans_a_study_and_a_sweep(installed):
    study = ["--config", "configs/studies/capacity.py", "--workdir=x", "--dry-run"]
    assert "caltech101" in installed("tinyjax", "study", *study)
    sweep = ["--config", "configs/sweeps/widths.py", "--workdir=~/widths", "--shards=2"]
    for program in (["tinyjax", "launch"], ["python", "-m", "tinyjax.launch"]):
        printed = installed(*program, "--engine=local", *sweep, "--dry-run")
        assert f"--workdir {installed.home}/widths --shard 1/2" in printed
