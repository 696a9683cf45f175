"""A run that was killed or stopped ends bit-identical to one that was not, by the same command."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.killed_train import POINTS
from tinyjax.errors import exit_code
from tinyjax.train import main as train_main

TESTS = Path(__file__).parent
COMPARED = ("metrics.csv", "results.csv", "config.json", "members.csv", "weights")


def config_path(name, images):
    """Return the argument of --config for tests/configs/<name>.py."""
    return f"{TESTS / 'configs' / name}.py:{images}"


def start(config, folder, *more, script=("-m", "tinyjax.train")):
    """Start a training process, by default `python -m tinyjax.train`."""
    command = [sys.executable, *script, "--config", config, "--workdir", str(folder), *more]
    pipe, environment = subprocess.PIPE, {**os.environ, "PYTHONPATH": str(TESTS.parent)}
    return subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)


def train(*arguments, **options):
    """Train to the end in a process; returns exit code, standard output and standard error."""
    process = start(*arguments, **options)
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


def wait_for(folder, pattern, process):
    """Wait until a file of the folder matches the pattern or the process has ended."""
    while process.poll() is None and not any(folder.glob(pattern)):
        time.sleep(0.01)


def kill_at_random_times(count, first_file, max_seconds, config, folder):
    """Start a run `count` times. Each attempt is killed at a random time after it has written its
    first file, unless it has ended by then.
    """
    rng = random.Random(time.time())
    for _ in range(count):
        process = start(config, folder)
        wait_for(folder, first_file, process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, max_seconds))
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("config", "point"),
    [
        ("classifier", "inside_save"),
        *(
            pytest.param("classifier", point, marks=pytest.mark.slow)
            for point in POINTS
            if point not in ("inside_save", "after_metrics_of_the_first_suite")
        ),
        # The only config with two suites.
        pytest.param("detector", "after_metrics_of_the_first_suite", marks=pytest.mark.slow),
        # Its steps draw random samples.
        pytest.param("faster_rcnn", "before_save", marks=pytest.mark.slow),
        # Its batches are drawn by identity.
        pytest.param("reid", "before_save", marks=pytest.mark.slow),
        pytest.param("pretrain", "before_save", marks=pytest.mark.slow),
    ],
)
def test_killed_run_resumes_bit_identical(config, point, train_once, noise_images, tmp_path):
    folder, path = tmp_path / "run", config_path(config, noise_images)
    code, _, err = train(path, folder, script=(str(TESTS / "killed_train.py"), point))
    assert code == -signal.SIGKILL, err
    code, _, err = train(path, folder)
    assert code == 0, err
    assert read_contents(folder) == read_contents(train_once(config) / "run")
    assert not list((folder / "populations" / "0" / "checkpoints").glob("*tmp*"))


@pytest.mark.slow
def test_run_killed_at_random_times_resumes_bit_identical(train_once, noise_images, tmp_path):
    folder, path = tmp_path / "run", config_path("classifier", noise_images)
    kill_at_random_times(4, "members.csv", 4, path, folder)
    code, _, err = train(path, folder)
    assert code == 0, err
    assert read_contents(folder) == read_contents(train_once("classifier") / "run")


def test_sigterm_saves_and_exits_with_75(train_once, noise_images, tmp_path):
    folder, path = tmp_path / "run", config_path("classifier", noise_images)
    process = start(path, folder)
    wait_for(folder, "metrics.csv", process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate()
    assert process.returncode == 75, err
    assert "saved at step" in out
    assert train_main(["--config", path, "--workdir", str(folder)]) == 0
    assert read_contents(folder) == read_contents(train_once("classifier") / "run")


@pytest.fixture
def finished(train_once, tmp_path):
    """A copy of a finished run."""
    return shutil.copytree(train_once("classifier") / "run", tmp_path / "run")


def test_finished_run_is_left_unchanged(finished, noise_images, capsys):
    def modification_times():
        return {file: file.stat().st_mtime_ns for file in (finished / "weights").iterdir()}

    before = modification_times()
    assert len([file for file in before if file.suffix == ".safetensors"]) == 2  # last and best
    path = config_path("classifier", noise_images)
    assert train_main(["--config", path, "--workdir", str(finished)]) == 0
    assert "finished" in capsys.readouterr().out
    assert before == modification_times()


def test_run_is_not_continued_with_another_config(finished, noise_images, capsys):
    before = read_contents(finished)
    path = config_path("classifier", noise_images)
    argv = ["--config", path, "--workdir", str(finished), "--config.optimizer.lr=0.5"]
    assert exit_code(lambda: train_main(argv)) == 2
    error = capsys.readouterr().err
    assert "optimizer.lr: 0.002 in the folder, 0.5 in this config" in error
    assert "Traceback" not in error
    assert read_contents(finished) == before


@pytest.mark.parametrize(("text", "problem"), [("", "Expecting value"), ("[]", "a list, not an")])
def test_damaged_config_is_an_error(finished, noise_images, capsys, text, problem):
    (finished / "config.json").write_text(text)
    argv = ["--config", config_path("classifier", noise_images), "--workdir", str(finished)]
    assert exit_code(lambda: train_main(argv)) == 2
    message = f"error: {finished}/config.json: this file is damaged ({problem}"
    assert capsys.readouterr().err.startswith(message)


def test_finished_run_is_not_compared_with_other_data(finished, noise_images, capsys):
    path = config_path("classifier", noise_images)
    argv = ["--config", path, "--workdir", str(finished), "--config.data.common.source=elsewhere"]
    assert train_main(argv) == 0
    output = capsys.readouterr().out
    assert "elsewhere in this config; not compared, because the run is finished" in output
