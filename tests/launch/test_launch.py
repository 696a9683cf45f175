"""A sweep in shards on engines that run on this machine: local workers that are killed, Ray with a
node that is lost, Slurm's local executor. All results equal those of a single process.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import local
from tests.test_resume import read_contents

ROOT = Path(__file__).parents[2]
SWEEP = ["--config", "tests/configs/sweep_four_populations.py"]


def command(*argv):
    return [sys.executable, "-m", *argv]


def start(*argv):
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)


def launch(folder, engine, *more):
    return start(
        *command("launch", "--engine", engine, *SWEEP, "--workdir", str(folder), "--shards", "4"),
        *more,
    )


def show(subcommand, folder):
    return subprocess.run(
        command("launch", subcommand, str(folder)), capture_output=True, text=True, cwd=ROOT
    )


@pytest.fixture(scope="module")
def single_process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("single_process") / "run"
    process = start(*command("tinyjax.train", *SWEEP, "--workdir", str(folder)))
    _, err = process.communicate()
    assert process.returncode == 0, err
    return folder


def worker_processes(parent):
    """Return the worker processes of a launcher."""
    import psutil

    children = psutil.Process(parent.pid).children(recursive=True)
    return [p for p in children if "tinyjax.train" in " ".join(p.cmdline())]


def test_killed_local_workers_are_restarted(single_process, tmp_path):
    folder, draw = tmp_path / "run", random.Random(time.time())
    running, killed = launch(folder, "local", "--at-once", "2"), 0
    while running.poll() is None and killed < 3:
        time.sleep(draw.uniform(2, 20))
        for victim in worker_processes(running)[:1]:
            victim.send_signal(signal.SIGKILL)
            killed += 1
    out, err = running.communicate()
    assert running.returncode == 0, err
    assert out.count("ended with exit code 137; restarting it") == killed > 0
    assert read_contents(folder) == read_contents(single_process)
    shown = show("status", folder)
    assert shown.returncode == 0, shown.stderr
    assert [line.split()[1] for line in shown.stdout.splitlines()[1:]] == ["done"] * 4


def test_launcher_is_stopped_and_resumed(single_process, tmp_path):
    folder = tmp_path / "run"
    running = launch(folder, "local")
    while running.poll() is None and not list(folder.glob("populations/*/metrics.csv")):
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate()
    assert running.returncode == 75, err
    states = [line.split()[1] for line in show("status", folder).stdout.splitlines()[1:]]
    assert states == ["stopped", "missing", "missing", "missing"]
    collected = show("collect", folder)
    assert collected.returncode == 2
    assert "populations 0, 1, 2, 3 are not finished" in collected.stderr
    running = launch(folder, "local")
    _, err = running.communicate()
    assert running.returncode == 0, err
    assert read_contents(folder) == read_contents(single_process)


def test_slurm_local_executor(single_process, tmp_path):
    folder = tmp_path / "run"
    running = launch(folder, "slurm", "--set", "cluster=local")
    out, err = running.communicate()
    assert running.returncode == 0, out + err
    assert read_contents(folder) == read_contents(single_process)


def test_ray_restarts_the_shards_of_a_lost_node(single_process, tmp_path):
    folder = tmp_path / "run"
    code = (
        "import sys; from tests.launch.ray_cluster import main; "
        f"sys.exit(main({str(folder)!r}, {SWEEP[1]!r}))"
    )
    running = start(sys.executable, "-c", code)
    out, err = running.communicate()
    assert running.returncode == 0, out + err
    assert "a node was removed" in out
    assert read_contents(folder) == read_contents(single_process)


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
    running = launch(tmp_path / "run", "local", "--config.schedule.stepz=3")
    _, err = running.communicate()
    assert running.returncode == 2
    assert "shard 0 ended with exit code 2: invalid input" in err
    assert "stepz" in (tmp_path / "run" / "launched" / "0.txt").read_text()
    assert sorted(os.listdir(tmp_path / "run")) == ["launch.json", "launched"]
