"""A run that was killed or stopped ends bit-identical to one that was not, by the same command."""

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
COMPARED = ("metrics.csv", "results.csv", "config.json", "members.csv", "weights")


def start(folder, *script, overrides=()):
    """Start a training: `python -m tinyjax.train`, or `python script`."""
    command = [sys.executable, *(script or ("-m", "tinyjax.train"))]
    command += ["--config", str(HERE / "configs" / "detector.py"), "--workdir", str(folder)]
    pipe, environment = subprocess.PIPE, {**os.environ, "PYTHONPATH": str(HERE.parent)}
    return subprocess.Popen(
        [*command, *overrides], env=environment, stdout=pipe, stderr=pipe, text=True
    )


def train(folder, *script, overrides=()):
    """Train to the end; returns exit code, standard output and standard error."""
    process = start(folder, *script, overrides=overrides)
    out, err = process.communicate()
    return process.returncode, out, err


def read_contents(folder):
    """Everything that must be equal: file -> bytes."""
    contents = {}
    for name in COMPARED:
        path = folder / name
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            contents[str(file.relative_to(folder))] = file.read_bytes()
    return contents


def wait_for(file, process):
    """Wait until the file exists or the process has ended."""
    while process.poll() is None and not file.exists():
        time.sleep(0.01)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    code, _, err = train(folder)
    assert code == 0, err
    return folder


# Half a minute each: `make test` kills inside a save, `make test-all` at all points.
@pytest.mark.parametrize(
    "point",
    [p if p == "inside_save" else pytest.param(p, marks=pytest.mark.slow) for p in POINTS],
)
def test_killed_at_a_point(point, uninterrupted, tmp_path):
    folder = tmp_path / "run"
    code, _, err = train(folder, str(HERE / "killed_train.py"), point)
    assert code == -signal.SIGKILL, err
    code, _, err = train(folder)
    assert code == 0, err
    assert read_contents(folder) == read_contents(uninterrupted)
    assert not list((folder / "populations" / "0" / "checkpoints").glob("*tmp*"))


def test_killed_at_random_times(uninterrupted, tmp_path):
    """Each attempt runs for a random time after it has written its first file, or to its end."""
    folder, rng = tmp_path / "run", random.Random(time.time())
    for _ in range(2):
        process = start(folder)
        wait_for(folder / "members.csv", process)
        time.sleep(rng.uniform(0, 15))
        process.kill()
        process.communicate()
    code, _, err = train(folder)
    assert code == 0, err
    assert read_contents(folder) == read_contents(uninterrupted)


def test_sigterm_saves_and_exits_with_75(uninterrupted, tmp_path):
    folder = tmp_path / "run"
    process = start(folder)
    wait_for(folder / "metrics.csv", process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 75, err
    assert "saved at step" in out
    code, _, err = train(folder)
    assert code == 0, err
    assert read_contents(folder) == read_contents(uninterrupted)


def test_a_finished_run_is_left_unchanged(uninterrupted):
    def modification_times():
        return {file: file.stat().st_mtime_ns for file in (uninterrupted / "weights").iterdir()}

    before = modification_times()
    assert len([file for file in before if file.suffix == ".safetensors"]) == 2  # last and best
    code, out, _ = train(uninterrupted)
    assert code == 0
    assert "finished" in out
    assert before == modification_times()


def test_another_config_is_refused(uninterrupted):
    before = read_contents(uninterrupted)
    code, _, err = train(uninterrupted, overrides=["--config.optimizer.lr=0.5"])
    assert code == 2
    assert "optimizer.lr: 0.001 in the folder, 0.5 in this config" in err
    assert "Traceback" not in err
    assert read_contents(uninterrupted) == before
