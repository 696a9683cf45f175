"""A sweep in shards on engines that run on this machine: local workers that are killed, Ray with a
node that is lost, Slurm's local executor. All results equal those of a single process.
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from launch import local
from launch.__main__ import main as launch_main
from tests.test_resume import config_path, read_contents, wait_for
from tinyjax.errors import exit_code

ROOT = Path(__file__).parents[2]
FOUR = "sweep_four_populations"


def start(*argv):
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *argv], stdout=pipe, stderr=pipe, text=True, cwd=ROOT)


def launch(config, folder, engine, shards, *more):
    return start(
        *("-m", "launch", "--engine", engine, "--config", config, "--workdir", str(folder)),
        *("--shards", str(shards), *more),
    )


def states(folder, capsys):
    """Return the states of the shards that `launch status` prints."""
    capsys.readouterr()
    assert launch_main(["status", str(folder)]) == 0
    return [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]]


def kill_a_worker(launcher):
    """Kill a worker process of a launcher; returns whether there was one."""
    for process in psutil.Process(launcher.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):  # it has ended by itself
            if "tinyjax.train" in process.cmdline():
                process.kill()
                return True
    return False


@pytest.mark.slow
def test_killed_worker_is_restarted(train_once, noise_images, tmp_path, capsys):
    folder, name = tmp_path / "run", "sweep_two_populations"
    running = launch(config_path(name, noise_images), folder, "local", 2, "--at-once", "2")
    wait_for(folder, "populations/*/metrics.csv", running)
    assert kill_a_worker(running)
    out, err = running.communicate()
    assert running.returncode == 0, err
    assert out.count("ended with exit code 137; restarting it") == 1
    assert read_contents(folder) == read_contents(train_once(name) / "run")
    assert states(folder, capsys) == ["done"] * 2


@pytest.mark.slow
def test_workers_killed_at_random_times_are_restarted(train_once, noise_images, tmp_path, capsys):
    folder, draw = tmp_path / "run", random.Random(time.time())
    running, killed = (
        launch(config_path(FOUR, noise_images), folder, "local", 4, "--at-once", "2"),
        0,
    )
    while running.poll() is None and killed < 3:
        time.sleep(draw.uniform(1, 6))
        killed += kill_a_worker(running)
    out, err = running.communicate()
    assert running.returncode == 0, err
    assert out.count("ended with exit code 137; restarting it") == killed > 0
    assert read_contents(folder) == read_contents(train_once(FOUR) / "run")
    assert states(folder, capsys) == ["done"] * 4


@pytest.mark.slow
def test_launcher_is_stopped_and_resumed(train_once, noise_images, tmp_path, capsys):
    folder, config = tmp_path / "run", config_path(FOUR, noise_images)
    running = launch(config, folder, "local", 4)
    wait_for(folder, "populations/*/metrics.csv", running)
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate()
    assert running.returncode == 75, err
    assert states(folder, capsys) == ["stopped", "missing", "missing", "missing"]
    assert exit_code(lambda: launch_main(["collect", str(folder)])) == 2
    assert "populations 0, 1, 2, 3 are not finished" in capsys.readouterr().err
    running = launch(config, folder, "local", 4)
    _, err = running.communicate()
    assert running.returncode == 0, err
    assert read_contents(folder) == read_contents(train_once(FOUR) / "run")


@pytest.mark.slow
def test_slurm_local_executor(train_once, noise_images, tmp_path):
    folder, config = tmp_path / "run", config_path(FOUR, noise_images)
    running = launch(config, folder, "slurm", 4, "--set", "cluster=local")
    out, err = running.communicate()
    assert running.returncode == 0, out + err
    assert read_contents(folder) == read_contents(train_once(FOUR) / "run")


@pytest.mark.slow
def test_ray_restarts_the_shards_of_a_lost_node(train_once, noise_images, tmp_path):
    folder, config = tmp_path / "run", config_path(FOUR, noise_images)
    code = (
        "import sys; from tests.launch.ray_cluster import main; "
        f"sys.exit(main({str(folder)!r}, {config!r}))"
    )
    running = start("-c", code)
    out, err = running.communicate()
    assert running.returncode == 0, out + err
    assert "a node was removed" in out
    starts = [log.read_text().count("writes to: ") for log in folder.glob("log-*-of-4.txt")]
    assert max(starts) > 1
    assert read_contents(folder) == read_contents(train_once(FOUR) / "run")


@pytest.mark.parametrize(("slots", "expected"), [
    (1, [[2, 3, 4, 5, 8]]),
    (0, [[2, 3, 4, 5, 8]]),  # one after the other
    (2, [[2, 3], [4, 5, 8]]),
    (3, [[2], [3, 4], [5, 8]]),
    (5, [[2], [3], [4], [5], [8]]),
])  # fmt: skip
def test_workers_do_not_share_cores(monkeypatch, slots, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {8, 2, 3, 4, 5})
    assert [local.worker_cores(slot, slots) for slot in range(slots or 1)] == expected


def test_more_workers_than_cores_share_all_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert [0, 1] in [local.worker_cores(slot, 3) for slot in range(3)]
    assert {core for slot in range(3) for core in local.worker_cores(slot, 3)} == {0, 1}


def test_invalid_input_ends_all_shards(tmp_path):
    config = config_path(FOUR, tmp_path)
    running = launch(config, tmp_path / "run", "local", 4, "--config.schedule.stepz=3")
    _, err = running.communicate()
    assert running.returncode == 2
    assert "shard 0 ended with exit code 2: invalid input" in err
    assert "stepz" in (tmp_path / "run" / "launched" / "0.txt").read_text()
    assert sorted(os.listdir(tmp_path / "run")) == ["launch.json", "launched"]
