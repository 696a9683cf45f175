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
CONFIG = HERE / "tiny_config.py"
SAME = ("metrics.csv", "results.csv", "config.json", "weights")


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Processes share compiled programs, so that a test waits for one compilation and not for
    thirty.
    """
    cache = tmp_path_factory.mktemp("compiled")
    return {
        **os.environ,
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(HERE.parent),
    }


def command(folder, *script):
    script = script or ("-m", "tinyjax.train")
    return [sys.executable, *script, "--config", str(CONFIG), "--workdir", str(folder)]


def run(folder, environment, *script):
    return subprocess.run(
        command(folder, *script), env=environment, capture_output=True, text=True, check=False
    )


def contents(folder):
    """Everything that must be equal: file -> bytes."""
    found = {}
    for name in SAME:
        path = folder / name
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            found[str(file.relative_to(folder))] = file.read_bytes()
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, environment):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    done = run(folder, environment)
    assert done.returncode == 0, done.stderr
    return contents(folder)


def test_the_run_folder_has_what_it_promises(undisturbed):
    assert {"metrics.csv", "results.csv", "config.json"} < set(undisturbed)
    assert len([name for name in undisturbed if name.endswith(".safetensors")]) == 2


@pytest.mark.parametrize("point", POINTS)
def test_killed_at(point, undisturbed, environment, tmp_path):
    folder = tmp_path / "run"
    dead = run(folder, environment, str(HERE / "killed_train.py"), point)
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    again = run(folder, environment)
    assert again.returncode == 0, again.stderr
    assert contents(folder) == undisturbed
    assert not list((folder / "populations" / "0" / "checkpoints").glob("*tmp*"))


def test_killed_at_random_times(undisturbed, environment, tmp_path):
    folder, draw, kills = tmp_path / "run", random.Random(0), 0
    while True:
        process = subprocess.Popen(
            command(folder), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            # From the first checkpoint on; before it there is nothing to lose. Delays grow, so that
            # it ends.
            process.wait(timeout=draw.uniform(2, 8) + kills)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            kills += 1
        else:
            break
    assert process.returncode == 0
    assert kills > 0
    assert contents(folder) == undisturbed


def test_told_to_stop_saves_and_leaves_with_75(undisturbed, environment, tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        command(folder), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    metrics = folder / "metrics.csv"
    while process.poll() is None and not metrics.exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 75, err
    assert b"saved at step" in out
    assert run(folder, environment).returncode == 0
    assert contents(folder) == undisturbed


def test_a_finished_run_says_so_and_does_nothing(undisturbed, environment, tmp_path):
    folder = tmp_path / "run"
    assert run(folder, environment).returncode == 0
    before = {file: file.stat().st_mtime_ns for file in (folder / "weights").iterdir()}
    again = run(folder, environment)
    assert again.returncode == 0
    assert "finished" in again.stdout
    assert before == {file: file.stat().st_mtime_ns for file in (folder / "weights").iterdir()}


def test_another_config_is_refused(environment, tmp_path):
    folder = tmp_path / "run"
    assert run(folder, environment).returncode == 0
    other = subprocess.run(
        [*command(folder), "--config.optimiser.lr=0.5"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert other.returncode == 2
    assert "optimiser.lr: 0.001 there, 0.5 here" in other.stderr
    assert "Traceback" not in other.stderr
