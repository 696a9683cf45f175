"""A sweep in shards, really run: on local workers that are killed, on Ray with a node that is lost,
on Slurm's local executor. All end as one process does.
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
from tests.test_resume import contents

ROOT = Path(__file__).parents[2]
SWEEP = ["--config", "tests/configs/sweep_four_populations.py"]


def command(*argv):
    return [sys.executable, "-m", *argv]


def started(*argv):
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdout=pipe, stderr=pipe, text=True, cwd=ROOT)


def launched(folder, engine, *more):
    return started(
        *command("launch", "--engine", engine, *SWEEP, "--workdir", str(folder), "--shards", "4"),
        *more,
    )


def looked(what, folder):
    return subprocess.run(
        command("launch", what, str(folder)), capture_output=True, text=True, cwd=ROOT
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    process = started(*command("tinyjax.train", *SWEEP, "--workdir", str(folder)))
    _, err = process.communicate()
    assert process.returncode == 0, err
    return folder


def trainers(parent):
    """Workers of a launcher."""
    import psutil

    found = psutil.Process(parent.pid).children(recursive=True)
    return [p for p in found if "tinyjax.train" in " ".join(p.cmdline())]


def test_local_workers_that_are_killed(undisturbed, tmp_path):
    folder, draw = tmp_path / "run", random.Random(time.time())
    running, killed = launched(folder, "local", "--at-once", "2"), 0
    while running.poll() is None and killed < 3:
        time.sleep(draw.uniform(2, 20))
        for victim in trainers(running)[:1]:
            victim.send_signal(signal.SIGKILL)
            killed += 1
    out, err = running.communicate()
    assert running.returncode == 0, err
    assert out.count("ended with 137; it goes on") == killed > 0
    assert contents(folder) == contents(undisturbed)
    said = looked("status", folder)
    assert said.returncode == 0, said.stderr
    assert [line.split()[1] for line in said.stdout.splitlines()[1:]] == ["done"] * 4


def test_the_launcher_itself_is_stopped(undisturbed, tmp_path):
    folder = tmp_path / "run"
    running = launched(folder, "local")
    while running.poll() is None and not list(folder.glob("populations/*/metrics.csv")):
        time.sleep(0.1)
    running.send_signal(signal.SIGTERM)
    _, err = running.communicate()
    assert running.returncode == 75, err
    states = [line.split()[1] for line in looked("status", folder).stdout.splitlines()[1:]]
    assert states == ["stopped", "missing", "missing", "missing"]
    early = looked("collect", folder)
    assert early.returncode == 2
    assert "populations 0, 1, 2, 3 are not finished" in early.stderr
    running = launched(folder, "local")
    _, err = running.communicate()
    assert running.returncode == 0, err
    assert contents(folder) == contents(undisturbed)


def test_slurm_s_local_executor(undisturbed, tmp_path):
    folder = tmp_path / "run"
    running = launched(folder, "slurm", "--set", "cluster=local")
    out, err = running.communicate()
    assert running.returncode == 0, out + err
    assert contents(folder) == contents(undisturbed)


def test_ray_loses_a_node(undisturbed, tmp_path):
    folder = tmp_path / "run"
    code = (
        "import sys; from tests.launch.rays import main; "
        f"sys.exit(main({str(folder)!r}, {SWEEP[1]!r}))"
    )
    running = started(sys.executable, "-c", code)
    out, err = running.communicate()
    assert running.returncode == 0, out + err
    assert "a node is gone" in out
    assert contents(folder) == contents(undisturbed)


@pytest.mark.parametrize(("slots", "expected"), [
    (1, [[2, 3, 4, 5, 8]]),
    (0, [[2, 3, 4, 5, 8]]),  # one after the other
    (2, [[2, 3], [4, 5, 8]]),
    (3, [[2], [3, 4], [5, 8]]),
    (5, [[2], [3], [4], [5], [8]]),
])  # fmt: skip
def test_workers_have_cores_of_their_own(monkeypatch, slots, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {8, 2, 3, 4, 5})
    assert [local.share(slot, slots) for slot in range(slots or 1)] == expected


def test_more_workers_than_cores_share_all(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert [0, 1] in [local.share(slot, 3) for slot in range(3)]
    assert {core for slot in range(3) for core in local.share(slot, 3)} == {0, 1}


def test_a_mistake_ends_all(tmp_path):
    running = launched(tmp_path / "run", "local", "--config.schedule.stepz=3")
    _, err = running.communicate()
    assert running.returncode == 2
    assert "shard 0 ended with 2; there is something to mend" in err
    assert "stepz" in (tmp_path / "run" / "launched" / "0.txt").read_text()
    assert sorted(os.listdir(tmp_path / "run")) == ["launch.json", "launched"]
