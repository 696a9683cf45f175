"""Killed equals undisturbed: whatever ends a run, the same command ends it bit-identical."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.killed_train import POINTS

HERE = Path(__file__).parent
SAME = ("metrics.csv", "results.csv", "config.json", "members.csv", "weights")


def start(folder, *script, more=()):
    command = [sys.executable, *(script or ("-m", "tinyjax.train"))]
    command += ["--config", str(HERE / "configs" / "detector.py"), "--workdir", str(folder), *more]
    pipe, environment = subprocess.PIPE, {**os.environ, "PYTHONPATH": str(HERE.parent)}
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def run(folder, *script, more=()):
    """Exit code, standard output and error of a whole run."""
    process = start(folder, *script, more=more)
    out, err = process.communicate()
    return process.returncode, out, err


def contents(folder):
    """Everything that must be equal: file -> bytes."""
    found = {}
    for name in SAME:
        path = folder / name
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            found[str(file.relative_to(folder))] = file.read_bytes()
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    code, _, err = run(folder)
    assert code == 0, err
    return folder


# Half a minute each: every `make test` dies inside a save, `make test-all` at all points.
@pytest.mark.parametrize(
    "point",
    [p if p == "inside_save" else pytest.param(p, marks=pytest.mark.slow) for p in POINTS],
)
def test_killed_at(point, undisturbed, tmp_path):
    folder = tmp_path / "run"
    code, _, err = run(folder, str(HERE / "killed_train.py"), point)
    assert code == -signal.SIGKILL, err
    code, _, err = run(folder)
    assert code == 0, err
    assert contents(folder) == contents(undisturbed)
    assert not list((folder / "populations" / "0" / "checkpoints").glob("*tmp*"))


def test_killed_at_random_times(undisturbed, tmp_path):
    """Each attempt lives for a random while after its first sign of life, at times to its end."""
    folder, draw = tmp_path / "run", random.Random(time.time())
    for _ in range(2):
        process = start(folder)
        while process.poll() is None and not (folder / "members.csv").exists():
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 15))
        process.kill()
        process.communicate()
    assert run(folder)[0] == 0
    assert contents(folder) == contents(undisturbed)


def test_told_to_stop_saves_and_leaves_with_75(undisturbed, tmp_path):
    folder = tmp_path / "run"
    process = start(folder)
    while process.poll() is None and not (folder / "metrics.csv").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 75, err
    assert "saved at step" in out
    assert run(folder)[0] == 0
    assert contents(folder) == contents(undisturbed)


def test_a_finished_run_says_so_and_does_nothing(undisturbed):
    def written():
        return {file: file.stat().st_mtime_ns for file in (undisturbed / "weights").iterdir()}

    before = written()
    assert len([file for file in before if file.suffix == ".safetensors"]) == 2  # last and best
    code, out, _ = run(undisturbed)
    assert code == 0
    assert "finished" in out
    assert before == written()


def test_another_config_is_refused(undisturbed):
    before = contents(undisturbed)
    code, _, err = run(undisturbed, more=["--config.optimizer.lr=0.5"])
    assert code == 2
    assert "optimizer.lr: 0.001 there, 0.5 here" in err
    assert "Traceback" not in err
    assert contents(undisturbed) == before
